/** JSON schemas of the Responses API for the API's description: fields of requests, and what is answered. */

import { RESPONSE_EVENT_TYPES } from './response-events.js';
import { MAX_INT32 } from './sampling.js';

type JsonSchema = Readonly<Record<string, unknown>>;

const string = { type: 'string' } as const;
const object = { type: 'object' } as const;
const integer = { type: 'integer' } as const;
const nullable = (schema: JsonSchema): JsonSchema => ({ anyOf: [schema, { type: 'null' }] });
const items: JsonSchema = { type: 'array', items: { type: 'object', required: ['type'] } };
const reference = (name: string): JsonSchema => ({ $ref: `#/components/schemas/${name}` });

/** Those that other endpoints do not have. */
export const RESPONSE_FIELD_SCHEMAS: Readonly<Record<string, JsonSchema>> = {
  background: { type: 'boolean', default: false },
  conversation: { anyOf: [string, { type: 'object', required: ['id'], properties: { id: string } }] },
  include: { type: 'array', items: string },
  input: { anyOf: [string, { type: 'array', items: object }] },
  instructions: string,
  items: { type: 'array', items: object, maxItems: 20 },
  max_tool_calls: { type: 'integer', minimum: 0, maximum: MAX_INT32 },
  metadata: { type: 'object', additionalProperties: string, maxProperties: 16 },
  previous_response_id: { type: 'string', minLength: 1 },
  prompt_cache_key: { type: 'string', maxLength: 256 },
  reasoning: {
    type: 'object',
    properties: {
      effort: nullable({ enum: ['none', 'minimal', 'low', 'medium', 'high', 'xhigh', 'max'] }),
      summary: nullable({ enum: ['auto', 'concise', 'detailed'] }),
    },
  },
  safety_identifier: { type: 'string', maxLength: 64 },
  store: { type: 'boolean', default: true },
  text: {
    type: 'object',
    properties: { format: nullable(object), verbosity: nullable({ enum: ['low', 'medium', 'high'] }) },
  },
  truncation: { enum: ['auto', 'disabled'] },
};

const usage: JsonSchema = {
  type: 'object',
  required: ['input_tokens', 'input_tokens_details', 'output_tokens', 'output_tokens_details', 'total_tokens'],
  properties: {
    input_tokens: integer,
    input_tokens_details: object,
    output_tokens: integer,
    output_tokens_details: object,
    total_tokens: integer,
  },
};

/** Named parts of answers. */
export const RESPONSE_ANSWER_SCHEMAS = {
  Response: {
    type: 'object',
    required: ['id', 'object', 'created_at', 'status', 'model', 'output', 'usage', 'error', 'incomplete_details'],
    properties: {
      id: string,
      object: { const: 'response' },
      created_at: integer,
      completed_at: nullable(integer),
      status: { enum: ['queued', 'in_progress', 'completed', 'incomplete', 'failed', 'cancelled'] },
      model: string,
      output: items,
      usage: nullable(usage),
      error: nullable({ type: 'object', required: ['code', 'message'], properties: { code: string, message: string } }),
      incomplete_details: nullable({ type: 'object', required: ['reason'], properties: { reason: string } }),
    },
  },
  ResponseEvent: {
    type: 'object',
    required: ['type', 'sequence_number'],
    properties: {
      type: { enum: RESPONSE_EVENT_TYPES },
      sequence_number: { type: 'integer', minimum: 0 },
      response: reference('Response'),
      item_id: string,
      output_index: integer,
      content_index: integer,
      item: { type: 'object', required: ['type', 'id'] },
      part: { type: 'object', required: ['type'] },
      delta: string,
    },
  },
  DeletedResponse: {
    type: 'object',
    required: ['id', 'object', 'deleted'],
    properties: { id: string, object: { const: 'response' }, deleted: { const: true } },
  },
  ItemList: {
    type: 'object',
    required: ['object', 'data', 'first_id', 'last_id', 'has_more'],
    properties: {
      object: { const: 'list' },
      data: items,
      first_id: nullable(string),
      last_id: nullable(string),
      has_more: { type: 'boolean' },
    },
  },
  Item: { type: 'object', required: ['type', 'id'], properties: { type: string, id: string } },
  Conversation: {
    type: 'object',
    required: ['id', 'object', 'created_at', 'metadata'],
    properties: { id: string, object: { const: 'conversation' }, created_at: integer, metadata: object },
  },
  DeletedConversation: {
    type: 'object',
    required: ['id', 'object', 'deleted'],
    properties: { id: string, object: { const: 'conversation.deleted' }, deleted: { const: true } },
  },
  InputTokens: {
    type: 'object',
    required: ['object', 'input_tokens'],
    properties: { object: { const: 'response.input_tokens' }, input_tokens: integer },
  },
  Compaction: {
    type: 'object',
    required: ['id', 'object', 'created_at', 'output', 'usage'],
    properties: { id: string, object: { const: 'response.compaction' }, created_at: integer, output: items, usage },
  },
} as const satisfies Readonly<Record<string, JsonSchema>>;
