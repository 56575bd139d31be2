/** `POST /v1/responses`: what comes in. */

import { ApiError, invalidValue, missingParameter } from './errors.js';
import {
  array,
  boolean,
  type Fields,
  fieldsOf,
  integer,
  isObject,
  type JsonObject,
  nonEmptyString,
  object,
  oneOf,
  string,
} from './fields.js';
import { checkFields, extras, type FieldTable, isEmpty, type ParseOptions } from './field-table.js';
import { parseGenerationConfig } from './generation-config.js';
import { REASONING_EFFORTS } from './reasoning.js';
import { parseInput } from './response-input.js';
import type { InputItem } from './response-items.js';
import {
  parseResponseToolChoice,
  parseResponseTools,
  parseTextFormat,
  type ResponseTextFormat,
  type ResponseTool,
  type ResponseToolChoice,
} from './response-tools.js';
import {
  MAX_INT32,
  MAX_TOP_LOGPROBS,
  parseModel,
  parseSampling,
  parseStops,
  type SamplingFields,
  SHARED_FIELDS,
  type StopFields,
} from './sampling.js';

/** A request that exists is valid. */
export interface CreateResponse extends StopFields {
  /** Undefined: the one model that is served. */
  readonly model: string | undefined;
  readonly input: readonly InputItem[];
  readonly instructions: string | undefined;
  readonly previousResponseId: string | undefined;
  /** Id of the conversation that the response belongs to. */
  readonly conversation: string | undefined;
  readonly store: boolean;
  readonly background: boolean;
  readonly stream: boolean;
  readonly metadata: Readonly<Record<string, string>>;
  readonly sampling: SamplingFields;
  /** As they came, for the echo. */
  readonly penalties: { readonly presence: number; readonly frequency: number };
  /** Alternatives per token; undefined: no log-probabilities. */
  readonly logprobs: number | undefined;
  readonly maxOutputTokens: number | undefined;
  readonly maxToolCalls: number | undefined;
  readonly tools: readonly ResponseTool[];
  readonly toolChoice: ResponseToolChoice;
  readonly parallelToolCalls: boolean;
  readonly format: ResponseTextFormat;
  readonly verbosity: 'low' | 'medium' | 'high';
  readonly reasoningEffort: string | undefined;
  readonly reasoningSummary: string | undefined;
  /** Reasoning items carry their text in `encrypted_content`, for clients that keep nothing else. */
  readonly encryptedReasoning: boolean;
  readonly truncation: 'auto' | 'disabled';
  readonly safetyIdentifier: string | undefined;
  readonly promptCacheKey: string | undefined;
  readonly templateVariables: JsonObject;
  readonly cacheSalt: string | undefined;
}

/** What becomes of each field of the request. */
export const RESPONSE_FIELDS = {
  model: SHARED_FIELDS.model,
  input: { status: 'honoured', note: 'a string or items' },
  instructions: {
    status: 'honoured',
    note: 'a system message before all others; not carried over to the next response',
  },
  previous_response_id: { status: 'honoured', note: 'its input and output come before the new input' },
  conversation: {
    status: 'honoured',
    note: 'its id, or an object with it; its items come before the input, and input and output are added to it',
  },
  store: { status: 'honoured', note: 'default true' },
  background: { status: 'honoured', note: 'needs store' },
  stream: { status: 'honoured', note: 'default false' },
  include: {
    status: 'honoured',
    note: 'message.output_text.logprobs and reasoning.encrypted_content; others have no effect',
  },
  metadata: { status: 'honoured', note: 'kept and echoed' },
  temperature: SHARED_FIELDS.temperature,
  top_p: SHARED_FIELDS.top_p,
  top_logprobs: { status: 'honoured', note: `0..${MAX_TOP_LOGPROBS}` },
  max_output_tokens: { status: 'honoured', note: 'at least 1 (16 at OpenAI); reasoning counts' },
  max_tool_calls: { status: 'honoured', note: 'calls of MCP tools over the whole response' },
  tools: { status: 'honoured', note: 'functions and MCP servers; tools that run elsewhere are dropped' },
  tool_choice: { status: 'honoured' },
  parallel_tool_calls: { status: 'honoured', note: 'if false, calls after the first are dropped' },
  text: {
    status: 'honoured',
    note: 'format: text, json_object, json_schema; verbosity is a variable for the chat template',
  },
  reasoning: {
    status: 'honoured',
    note: 'effort as far as the chat template has a switch, a word or a budget for it; summary has no effect: reasoning is sent whole',
  },
  truncation: { status: 'honoured', note: 'auto leaves out the oldest turns that do not fit' },
  safety_identifier: { status: 'honoured', note: 'echoed' },
  prompt_cache_key: { status: 'honoured', note: 'echoed; prefixes are found by their tokens' },
  stream_options: { status: 'ignored', note: 'there is no obfuscation' },
  prompt_cache_options: { status: 'ignored', note: 'prefixes are found by their tokens' },
  prompt_cache_retention: { status: 'ignored', note: 'prefixes are found by their tokens' },
  service_tier: { status: 'ignored', note: 'there is one' },
  user: { status: 'ignored', note: 'no accounts' },
  moderation: { status: 'ignored', note: 'there is none' },
  context_management: { status: 'ignored', note: 'nothing is compacted unasked; see POST /v1/responses/compact' },
  prompt: { status: 'refused', note: 'there are no stored prompts; send instructions and input', harmless: isEmpty },
  ...extras({
    seed: SHARED_FIELDS.seed,
    stop: SHARED_FIELDS.stop,
    presence_penalty: SHARED_FIELDS.presence_penalty,
    frequency_penalty: SHARED_FIELDS.frequency_penalty,
    logit_bias: SHARED_FIELDS.logit_bias,
    top_k: SHARED_FIELDS.top_k,
    min_p: SHARED_FIELDS.min_p,
    typical_p: SHARED_FIELDS.typical_p,
    min_tokens: SHARED_FIELDS.min_tokens,
    no_repeat_ngram_size: SHARED_FIELDS.no_repeat_ngram_size,
    repetition_penalty: SHARED_FIELDS.repetition_penalty,
    stop_token_ids: SHARED_FIELDS.stop_token_ids,
    ignore_eos: SHARED_FIELDS.ignore_eos,
    generation_config: SHARED_FIELDS.generation_config,
    cache_salt: SHARED_FIELDS.cache_salt,
    chat_template_kwargs: { status: 'honoured', note: 'variables for the chat template' },
    client_metadata: { status: 'ignored', note: 'a client’s own' },
  }),
} as const satisfies FieldTable;

/** `POST /v1/responses/input_tokens` takes the same request. */
export const INPUT_TOKENS_FIELDS = {
  ...RESPONSE_FIELDS,
  personality: { status: 'ignored', note: 'local models know no such thing' },
} as const satisfies FieldTable;

export const COMPACT_FIELDS = {
  model: { status: 'honoured', note: 'required; none is asked' },
  input: RESPONSE_FIELDS.input,
  previous_response_id: RESPONSE_FIELDS.previous_response_id,
  instructions: { status: 'ignored', note: 'nothing is summarised' },
  prompt_cache_key: { status: 'ignored', note: 'nothing is computed' },
  prompt_cache_options: { status: 'ignored', note: 'nothing is computed' },
  prompt_cache_retention: { status: 'ignored', note: 'nothing is computed' },
  service_tier: RESPONSE_FIELDS.service_tier,
} as const satisfies FieldTable;

/** As at OpenAI. */
export const MAX_METADATA_PAIRS = 16;
export const MAX_METADATA_KEY = 64;
export const MAX_METADATA_VALUE = 512;
const MAX_IDENTIFIER_CHARS = 64;
/** Our own: OpenAI’s schema names no limit. */
const MAX_KEY_CHARS = 256;
const MAX_INCLUDES = 64;

/** @param table of the endpoint */
export function parseCreateResponse(
  body: unknown,
  options: ParseOptions,
  table: FieldTable = RESPONSE_FIELDS,
): CreateResponse {
  const fields = fieldsOf(body, '');
  checkFields(fields, table, options);
  const previousResponseId = fields.optional('previous_response_id', nonEmptyString);
  const conversation = fields.optional('conversation', parseConversation);
  if (conversation !== undefined && previousResponseId !== undefined) throw bothGiven();
  const input = fields.optional('input', (value, path) => parseInput(value, path, options.warn)) ?? [];
  if (input.length === 0 && previousResponseId === undefined && conversation === undefined) {
    if (fields.raw('input') === undefined) throw missingParameter('input', 'a string or an array of items');
    throw invalidValue('input', 'must not be empty');
  }
  const tools = fields.optional('tools', (value, path) => parseResponseTools(value, path, options.warn)) ?? [];
  const store = fields.optional('store', boolean) ?? true;
  const background = fields.optional('background', boolean) ?? false;
  if (background && !store) throw invalidValue('background', 'needs store: the answer is fetched later');
  const includes = fields.optional('include', array(string, 0, MAX_INCLUDES)) ?? [];
  const config = parseGenerationConfig(fields, options);
  const text = fields.optional('text', parseText);
  const reasoning = fields.optional('reasoning', parseReasoning);
  return {
    previousResponseId,
    conversation,
    model: parseModel(fields),
    input,
    instructions: fields.optional('instructions', string),
    store,
    background,
    stream: fields.optional('stream', boolean) ?? false,
    metadata: fields.optional('metadata', parseMetadata) ?? {},
    sampling: { ...config.sampling, ...parseSampling(fields) },
    penalties: {
      presence: numberOrZero(fields, 'presence_penalty'),
      frequency: numberOrZero(fields, 'frequency_penalty'),
    },
    ...parseStops(fields, config),
    logprobs: parseLogprobs(fields, includes),
    maxOutputTokens: fields.optional('max_output_tokens', integer(1, MAX_INT32)) ?? config.maxTokens,
    maxToolCalls: fields.optional('max_tool_calls', integer(0, MAX_INT32)),
    tools,
    toolChoice: parseChoice(fields, tools),
    parallelToolCalls: fields.optional('parallel_tool_calls', boolean) ?? true,
    format: text?.format ?? { type: 'text' },
    verbosity: text?.verbosity ?? 'medium',
    reasoningEffort: reasoning?.effort,
    reasoningSummary: reasoning?.summary,
    encryptedReasoning: includes.includes('reasoning.encrypted_content'),
    truncation: fields.optional('truncation', oneOf('auto', 'disabled')) ?? 'disabled',
    safetyIdentifier: fields.optional('safety_identifier', shortString(MAX_IDENTIFIER_CHARS)),
    promptCacheKey: fields.optional('prompt_cache_key', shortString(MAX_KEY_CHARS)),
    templateVariables: {
      ...(text?.verbosity === undefined ? {} : { verbosity: text.verbosity }),
      ...(reasoning?.effort === undefined ? {} : { reasoning_effort: reasoning.effort }),
      ...fields.optional('chat_template_kwargs', object),
    },
    cacheSalt: fields.optional('cache_salt', string),
  };
}

/** @param value `{…}` of at most 16 short strings */
export function parseMetadata(value: unknown, path: string): Readonly<Record<string, string>> {
  const entries = Object.entries(object(value, path));
  if (entries.length > MAX_METADATA_PAIRS) throw invalidValue(path, `must hold at most ${MAX_METADATA_PAIRS} pairs`);
  return Object.fromEntries(
    entries.map(([key, item]) => {
      if (key.length > MAX_METADATA_KEY)
        throw invalidValue(path, `holds a key of more than ${MAX_METADATA_KEY} characters`);
      const text = string(item, `${path}.${key}`);
      if (text.length > MAX_METADATA_VALUE) {
        throw invalidValue(`${path}.${key}`, `must be at most ${MAX_METADATA_VALUE} characters`);
      }
      return [key, text];
    }),
  );
}

function parseConversation(value: unknown, path: string): string {
  return isObject(value) ? fieldsOf(value, path).required('id', nonEmptyString) : nonEmptyString(value, path);
}

function bothGiven(): ApiError {
  return new ApiError({
    status: 400,
    type: 'invalid_request_error',
    code: 'mutually_exclusive_parameters',
    param: 'conversation',
    message: "'conversation' and 'previous_response_id' exclude each other: send one of them",
  });
}

function parseChoice(fields: Fields, tools: readonly ResponseTool[]): ResponseToolChoice {
  const choice = fields.optional('tool_choice', parseResponseToolChoice) ?? 'auto';
  const offers = (wanted: { type: string; name?: string; server_label?: string }): boolean =>
    tools.some((tool) =>
      tool.type === 'function'
        ? wanted.type === 'function' && wanted.name === tool.name
        : wanted.server_label === tool.serverLabel,
    );
  if (choice === 'required' && tools.length === 0)
    throw invalidValue('tool_choice', "is 'required', but there are no tools");
  if (typeof choice === 'string') return choice;
  const wanted = choice.type === 'allowed_tools' ? choice.tools : [choice];
  if (!wanted.every(offers)) throw invalidValue('tool_choice', 'names a tool that is not in tools');
  return choice;
}

function parseLogprobs(fields: Fields, includes: readonly string[]): number | undefined {
  const top = fields.optional('top_logprobs', integer(0, MAX_TOP_LOGPROBS)) ?? 0;
  return top > 0 || includes.includes('message.output_text.logprobs') ? top : undefined;
}

function parseText(
  value: unknown,
  path: string,
): { format?: ResponseTextFormat; verbosity?: 'low' | 'medium' | 'high' } {
  const fields = fieldsOf(value, path);
  return {
    format: fields.optional('format', parseTextFormat),
    verbosity: fields.optional('verbosity', oneOf('low', 'medium', 'high')),
  };
}

function parseReasoning(value: unknown, path: string): { effort?: string; summary?: string } {
  const fields = fieldsOf(value, path);
  return {
    effort: fields.optional('effort', oneOf(...REASONING_EFFORTS)),
    summary: fields.optional('summary', oneOf('auto', 'concise', 'detailed')),
  };
}

/** Its range is held where it is honoured; until then only harmless values come this far. */
function numberOrZero(fields: Fields, name: string): number {
  const value = fields.raw(name);
  return typeof value === 'number' ? value : 0;
}

function shortString(max: number): (value: unknown, path: string) => string {
  return (value, path) => {
    const text = string(value, path);
    if (text.length > max) throw invalidValue(path, `must be at most ${max} characters`);
    return text;
  };
}
