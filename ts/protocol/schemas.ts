/** JSON schemas of request fields by name, for the API's description. What the parsers check in code stands there. */

import { REASONING_EFFORTS } from './reasoning.js';
import { TRANSCRIPT_ANSWER_SCHEMAS, TRANSCRIPT_FIELD_SCHEMAS } from './transcript-schemas.js';
import { RESPONSE_ANSWER_SCHEMAS, RESPONSE_FIELD_SCHEMAS } from './response-schemas.js';
import { MAX_CHOICES, MAX_INT32, MAX_STOP_STRINGS, MAX_STOP_TOKENS, MAX_TOP_LOGPROBS } from './sampling.js';

export type JsonSchema = Readonly<Record<string, unknown>>;

const string = { type: 'string' } as const;
const boolean = { type: 'boolean' } as const;
const object = { type: 'object' } as const;
const number = (minimum: number, maximum: number): JsonSchema => ({ type: 'number', minimum, maximum });
const integer = (minimum: number, maximum: number): JsonSchema => ({ type: 'integer', minimum, maximum });
const array = (items: JsonSchema, bounds: JsonSchema = {}): JsonSchema => ({ type: 'array', items, ...bounds });
const tokenIds = array(integer(0, MAX_INT32), { minItems: 1 });

const message: JsonSchema = {
  type: 'object',
  required: ['role'],
  properties: {
    role: { enum: ['system', 'developer', 'user', 'assistant', 'tool'] },
    content: { anyOf: [string, array(object), { type: 'null' }] },
    name: string,
    tool_calls: array(object),
    tool_call_id: string,
    reasoning_content: string,
  },
};

/**
 * Fields that mean the same wherever they occur. A field that is not here is described by its note alone: `null` is
 * always allowed and means absent.
 */
export const FIELD_SCHEMAS: Readonly<Record<string, JsonSchema>> = {
  ...RESPONSE_FIELD_SCHEMAS,
  add_generation_prompt: boolean,
  add_special_tokens: boolean,
  cache_salt: string,
  chat_template_kwargs: object,
  continue_final_message: boolean,
  echo: boolean,
  frequency_penalty: number(-2, 2),
  guided_choice: array({ type: 'string', minLength: 1 }, { minItems: 1 }),
  guided_grammar: { type: 'string', minLength: 1 },
  guided_json: { anyOf: [string, boolean, object] },
  guided_json_object: boolean,
  guided_regex: { type: 'string', minLength: 1 },
  ignore_eos: boolean,
  logit_bias: { type: 'object', additionalProperties: { type: 'number' } },
  max_completion_tokens: integer(1, MAX_INT32),
  max_output_tokens: integer(1, MAX_INT32),
  messages: array(message, { minItems: 1 }),
  min_p: number(0, 1),
  model: string,
  n: integer(1, MAX_CHOICES),
  parallel_tool_calls: boolean,
  presence_penalty: number(-2, 2),
  prompt: { anyOf: [string, tokenIds, array({ anyOf: [string, tokenIds] }, { minItems: 1 })] },
  reasoning_effort: { enum: [...REASONING_EFFORTS] },
  response_format: object,
  seed: { type: 'integer' },
  stop: { anyOf: [string, array(string, { maxItems: MAX_STOP_STRINGS })] },
  stop_token_ids: array(integer(0, MAX_INT32), { maxItems: MAX_STOP_TOKENS }),
  stream: boolean,
  stream_options: { type: 'object', properties: { include_usage: boolean } },
  structured_outputs: object,
  temperature: number(0, 2),
  tool_choice: { anyOf: [string, object] },
  tools: array(object),
  top_k: integer(-1, MAX_INT32),
  top_logprobs: integer(0, MAX_TOP_LOGPROBS),
  top_p: number(0, 1),
  typical_p: number(0, 1),
  repetition_penalty: number(0, 1000),
  no_repeat_ngram_size: integer(0, MAX_INT32),
  min_tokens: integer(0, MAX_INT32),
  generation_config: { type: 'string', description: 'a GenerationConfig as JSON text' },
};

/** Fields whose meaning differs from endpoint to endpoint, by the endpoint's path. */
export const OWN_FIELD_SCHEMAS: Readonly<Record<string, Readonly<Record<string, JsonSchema>>>> = {
  '/v1/chat/completions': { logprobs: boolean, max_tokens: integer(1, MAX_INT32) },
  '/v1/completions': { logprobs: integer(0, MAX_TOP_LOGPROBS), max_tokens: integer(0, MAX_INT32) },
  ...TRANSCRIPT_FIELD_SCHEMAS,
};

const nullable = (schema: JsonSchema): JsonSchema => ({ anyOf: [schema, { type: 'null' }] });

const usage: JsonSchema = {
  type: 'object',
  required: ['prompt_tokens', 'completion_tokens', 'total_tokens'],
  properties: {
    prompt_tokens: { type: 'integer' },
    completion_tokens: { type: 'integer' },
    total_tokens: { type: 'integer' },
    prompt_tokens_details: object,
    completion_tokens_details: object,
  },
};

/** A list of choices under a head, as completions and their chunks have it. */
function completion(kind: string, choice: JsonSchema, needs: readonly string[] = []): JsonSchema {
  return {
    type: 'object',
    required: ['id', 'object', 'created', 'model', 'choices', ...needs],
    properties: {
      id: string,
      object: { const: kind },
      created: { type: 'integer' },
      model: string,
      choices: array(choice),
      usage: nullable(usage),
      timings: object,
    },
  };
}

function choice(properties: Readonly<Record<string, JsonSchema>>): JsonSchema {
  return {
    type: 'object',
    required: ['index', 'finish_reason', ...Object.keys(properties)],
    properties: {
      index: { type: 'integer' },
      finish_reason: nullable(string),
      logprobs: nullable(object),
      ...properties,
    },
  };
}

/** Named parts of answers. */
export const ANSWER_SCHEMAS = {
  Error: {
    type: 'object',
    required: ['error'],
    properties: {
      error: {
        type: 'object',
        required: ['message', 'type', 'param', 'code'],
        properties: { message: string, type: string, param: nullable(string), code: nullable(string) },
      },
    },
  },
  Model: {
    type: 'object',
    required: ['id', 'object', 'created', 'owned_by', 'state'],
    properties: {
      id: string,
      object: { const: 'model' },
      created: { type: 'integer' },
      owned_by: string,
      state: { enum: ['ready', 'loading', 'available'] },
      context_length: { type: 'integer' },
      max_model_len: { type: 'integer' },
    },
  },
  ModelList: {
    type: 'object',
    required: ['object', 'data'],
    properties: { object: { const: 'list' }, data: array({ $ref: '#/components/schemas/Model' }) },
  },
  ChatCompletion: completion('chat.completion', choice({ message: object }), ['usage']),
  ChatCompletionChunk: completion('chat.completion.chunk', choice({ delta: object })),
  TextCompletion: completion('text_completion', choice({ text: string })),
  ...RESPONSE_ANSWER_SCHEMAS,
  ...TRANSCRIPT_ANSWER_SCHEMAS,
  LoadEvent: {
    type: 'object',
    required: ['status', 'model'],
    properties: {
      status: { enum: ['loading', 'ready', 'error'] },
      model: string,
      stage: { enum: ['processor', 'config', 'download', 'weights'] },
      progress: {
        type: 'object',
        required: ['current', 'total'],
        properties: { current: { type: 'integer' }, total: { type: 'integer' } },
      },
      cached: boolean,
      message: string,
      code: nullable(string),
    },
  },
  Reset: {
    type: 'object',
    required: ['status', 'unloaded'],
    properties: { status: { const: 'ok' }, unloaded: array(string) },
  },
  Home: {
    type: 'object',
    required: ['name', 'endpoints', 'models'],
    properties: { name: string, endpoints: array(object), models: array(object) },
  },
  Health: {
    type: 'object',
    required: ['status', 'models', 'loading'],
    properties: { status: { enum: ['ok', 'draining'] }, models: array(string), loading: array(string) },
  },
} as const satisfies Readonly<Record<string, JsonSchema>>;

export type AnswerName = keyof typeof ANSWER_SCHEMAS;
