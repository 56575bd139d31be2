/**
 * Where a published schema is not what goes over the wire. One entry per contradiction, each with its reason. An entry that
 * changes nothing, or without which everything that is sent fits as well, fails `schemas-coverage.test.ts`: then the schema
 * has been put right, and the entry goes.
 */

import type { Patch } from './published.js';
import type { Schema } from './rewrite.js';

const orNull = (schema: Schema): Schema => ({ anyOf: [schema, { type: 'null' }] });
const orAlso =
  (...more: readonly Schema[]) =>
  (schema: Schema): Schema => ({ anyOf: [schema, ...more] });
const withMembers =
  (...members: readonly Schema[]) =>
  (union: Schema): Schema => ({ ...union, oneOf: [...(union['oneOf'] as Schema[]), ...members] });
const named =
  (name: string) =>
  (type: Schema): Schema => ({ ...type, enum: [...(type['enum'] as string[]), name] });

const withProperty =
  (name: string, property: Schema) =>
  (object: Schema): Schema => ({ ...object, properties: { ...(object['properties'] as Schema), [name]: property } });

const without =
  (name: string) =>
  (object: Schema): Schema => ({ ...object, required: (object['required'] as string[]).filter((one) => one !== name) });

/** An object of one of these types. */
const typed = (...types: readonly string[]): Schema => ({
  type: 'object',
  required: ['type'],
  properties: { type: { enum: types } },
});

/** OpenAI's document against OpenAI's API. */
export const OPENAI_PATCHES: readonly Patch[] = [
  {
    at: 'Response/allOf/2/properties/usage',
    change: orNull,
    why: 'until a response ends, the live API sends `usage: null`; Open Responses requires the key',
  },
  {
    at: 'CreateCompletionResponse/properties/choices/items/properties/finish_reason',
    change: orNull,
    why: 'one schema describes whole answers and chunks, and in all chunks but the last the live API sends null',
  },
  {
    at: 'CreateCompletionResponse/properties/usage',
    change: orNull,
    why: 'with include_usage all chunks but the last say `usage: null`; the schema of chat chunks knows it',
  },
  {
    at: 'CreateCompletionResponse/properties/choices/items/properties/logprobs/anyOf/0/properties/token_logprobs/items',
    change: orNull,
    why: 'nothing comes before the first token of an echoed prompt: the live API sends null',
  },
  {
    at: 'CreateCompletionResponse/properties/choices/items/properties/logprobs/anyOf/0/properties/top_logprobs/items',
    change: orNull,
    why: 'as above, for its alternatives',
  },
  {
    at: 'MCPApprovalResponseResource',
    change: without('request_id'),
    why: 'it requires a key that it does not have; the item names its request by approval_request_id',
  },
  {
    at: 'CreateTranscriptionResponseVerboseJson',
    change: withProperty('task', { enum: ['transcribe'] }),
    why: 'the live API says the task, and so do the examples of the document',
  },
  {
    at: 'CreateTranslationResponseVerboseJson',
    change: withProperty('task', { enum: ['translate'] }),
    why: 'as above',
  },
];

/** Open Responses against OpenAI's API: where the two differ, OpenAI's names are sent. */
export const OPEN_RESPONSES_PATCHES: readonly Patch[] = [
  {
    at: 'ResponseReasoningDeltaStreamingEvent/properties/type',
    change: named('response.reasoning_text.delta'),
    why: 'OpenAI’s name; official clients throw on response.reasoning.delta (openresponses#42)',
  },
  {
    at: 'ResponseReasoningDoneStreamingEvent/properties/type',
    change: named('response.reasoning_text.done'),
    why: 'OpenAI’s name, as above',
  },
  {
    at: 'ItemField',
    change: withMembers(typed('mcp_list_tools', 'mcp_call', 'mcp_approval_request', 'mcp_approval_response')),
    why: 'its unions leave MCP out, which is a part of OpenAI’s API; OpenAI’s schema holds these items',
  },
  {
    at: 'Tool',
    change: withMembers(typed('mcp')),
    why: 'as above, for the tools that are echoed',
  },
  {
    at: 'ResponseResource/properties/tool_choice',
    change: withMembers(typed('mcp')),
    why: 'as above, for the choice of one',
  },
  {
    at: 'AllowedToolChoice/properties/tools/items',
    change: withMembers(typed('mcp')),
    why: 'as above, for a choice among several',
  },
  {
    at: 'JsonSchemaResponseFormat/properties/schema',
    change: orAlso({ type: 'object' }),
    why: 'its echo of a schema is typed null only; the schema that was asked for is echoed',
  },
  {
    at: 'JsonSchemaResponseFormat',
    change: without('description'),
    why: 'OpenAI’s schema leaves it out where there is none, and refuses null',
  },
  {
    at: '/paths/~1responses/post/responses/200/content/text~1event-stream/schema',
    change: withMembers(
      typed(
        ...['in_progress', 'completed', 'failed'].flatMap((state) => [
          `response.mcp_list_tools.${state}`,
          `response.mcp_call.${state}`,
        ]),
        'response.mcp_call_arguments.delta',
        'response.mcp_call_arguments.done',
      ),
    ),
    why: 'its events leave MCP out as well; OpenAI’s schema holds these',
  },
];
