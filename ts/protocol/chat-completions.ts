/** `POST /v1/chat/completions`: what comes in, and what goes out. */

import { invalidValue } from './errors.js';
import {
  array,
  boolean,
  type Fields,
  fieldsOf,
  integer,
  isObject,
  type JsonObject,
  object,
  oneOf,
  string,
} from './fields.js';
import { checkMcpTools, type McpTool, parseMcpTool, requireUnattended } from './mcp.js';
import { checkFields, equals, extras, type FieldTable, isEmpty, type ParseOptions } from './field-table.js';
import { parseGenerationConfig } from './generation-config.js';
import { type GrammarFields, parseGuided } from './grammar.js';
import { type Message, parseMessage } from './messages.js';
import { REASONING_EFFORTS } from './reasoning.js';
import {
  MAX_INT32,
  MAX_TOP_LOGPROBS,
  parseChoices,
  parseModel,
  parseSampling,
  parseStops,
  parseStream,
  type SamplingFields,
  SHARED_FIELDS,
  type StopFields,
  type StreamFields,
} from './sampling.js';
import { parseResponseFormat, type ResponseFormat } from './response-format.js';
import { checkToolChoice, parseTool, parseToolChoice, type ToolChoice, type ToolDefinition } from './tools.js';
import type { McpCallError } from './response-items.js';
import type { WireTimings, WireUsage } from './usage.js';

/** A request that exists is valid. */
export interface ChatCompletionRequest extends StreamFields, StopFields {
  /** Undefined: the one model that is served. */
  readonly model: string | undefined;
  /** At least one. */
  readonly messages: readonly Message[];
  /** Empty if there are none. */
  readonly tools: readonly ToolDefinition[];
  /** Names tools that exist; undefined: the model decides. */
  readonly toolChoice: ToolChoice | undefined;
  /** Servers whose tools may be called without asking. Empty if there are none. */
  readonly mcpTools: readonly McpTool[];
  readonly parallelToolCalls: boolean | undefined;
  readonly responseFormat: ResponseFormat | undefined;
  /** What the answer must match, if it is said in vLLM's way: then there is no response format. */
  readonly grammar: GrammarFields | undefined;
  /** Answers to the conversation, at least 1. */
  readonly n: number;
  readonly sampling: SamplingFields;
  /** At least 1; undefined: the rest of the context. */
  readonly maxTokens: number | undefined;
  /** Alternatives per token, 0..20; undefined: no log-probabilities. */
  readonly logprobs: number | undefined;
  readonly templateVariables: JsonObject;
  readonly addGenerationPrompt: boolean;
  readonly continueFinalMessage: boolean;
  readonly cacheSalt: string | undefined;
}

/** What becomes of each field of the request. */
export const CHAT_COMPLETION_FIELDS = {
  ...SHARED_FIELDS,
  messages: { status: 'honoured' },
  max_completion_tokens: { status: 'honoured', note: 'goes before max_tokens' },
  top_logprobs: { status: 'honoured', note: `0..${MAX_TOP_LOGPROBS}; needs logprobs` },
  tools: {
    status: 'honoured',
    note: 'functions, strict or not; MCP servers that need no approval; tools that run elsewhere are dropped',
  },
  tool_choice: { status: 'honoured', note: 'none, auto, required, a function, allowed_tools' },
  parallel_tool_calls: { status: 'honoured', note: 'if false, calls after the first are dropped' },
  response_format: { status: 'honoured', note: 'text, json_object (also with a schema as `value`), json_schema' },
  reasoning_effort: {
    status: 'honoured',
    note: 'none, minimal, low, medium, high, xhigh, max, as far as the chat template has a switch, a word or a budget for it',
  },
  metadata: { status: 'ignored', note: 'completions are not stored' },
  store: { status: 'ignored', note: 'completions are not stored' },
  service_tier: { status: 'ignored', note: 'there is one' },
  safety_identifier: { status: 'ignored', note: 'no accounts' },
  prompt_cache_key: { status: 'ignored', note: 'prefixes are found by their tokens' },
  prompt_cache_options: { status: 'ignored', note: 'prefixes are found by their tokens' },
  prompt_cache_retention: { status: 'ignored', note: 'prefixes are found by their tokens' },
  prediction: { status: 'ignored', note: 'changes speed only' },
  verbosity: { status: 'ignored', note: 'local models know no such thing' },
  moderation: { status: 'ignored', note: 'there is none' },
  web_search_options: { status: 'ignored', note: 'there is no hosted search' },
  modalities: { status: 'refused', note: 'answers are text', harmless: isTextOnly },
  audio: { status: 'refused', note: 'answers are text' },
  functions: { status: 'refused', note: 'deprecated; use tools', harmless: isEmpty },
  function_call: { status: 'refused', note: 'deprecated; use tool_choice', harmless: equals('none', 'auto') },
  ...extras({
    chat_template_kwargs: { status: 'honoured', note: 'variables for the chat template' },
    add_generation_prompt: { status: 'honoured' },
    continue_final_message: { status: 'honoured', note: 'the last message must be an assistant’s' },
    chat_template: { status: 'refused', note: 'only the model’s own template is run' },
    documents: { status: 'refused', note: 'put them into a message', harmless: isEmpty },
  }),
} as const satisfies FieldTable;

export function parseChatCompletionRequest(body: unknown, options: ParseOptions): ChatCompletionRequest {
  const fields = fieldsOf(body, '');
  checkFields(fields, CHAT_COMPLETION_FIELDS, options);
  const messages = fields.required('messages', array(parseMessage, 1));
  const limit = integer(1, MAX_INT32);
  const maxTokens = fields.optional('max_tokens', limit);
  const config = parseGenerationConfig(fields, options);
  return {
    ...parseStream(fields),
    ...parseContinuation(fields, messages),
    model: parseModel(fields),
    messages,
    ...parseTools(fields, options),
    responseFormat: fields.optional('response_format', parseResponseFormat),
    grammar: parseGuided(fields),
    n: parseChoices(fields),
    sampling: { ...config.sampling, ...parseSampling(fields) },
    maxTokens: fields.optional('max_completion_tokens', limit) ?? maxTokens ?? config.maxTokens,
    ...parseStops(fields, config),
    logprobs: parseLogprobs(fields),
    templateVariables: parseTemplateVariables(fields),
    cacheSalt: fields.optional('cache_salt', string),
  };
}

function parseTools(
  fields: Fields,
  options: ParseOptions,
): Pick<ChatCompletionRequest, 'tools' | 'mcpTools' | 'toolChoice' | 'parallelToolCalls'> {
  const given = fields.optional(
    'tools',
    array((value, path) =>
      (isObject(value) && value['type'] === 'mcp' ? unattended : parseTool)(value, path, options.warn),
    ),
  );
  const all = (given ?? []).filter((tool) => tool !== undefined);
  const tools = all.filter((tool): tool is ToolDefinition => !isMcpTool(tool));
  const mcpTools = all.filter(isMcpTool);
  checkMcpTools(mcpTools, 'tools');
  const toolChoice = fields.optional('tool_choice', parseToolChoice);
  if (toolChoice !== undefined) checkToolChoice(toolChoice, tools, fields.pathOf('tool_choice'), mcpTools.length > 0);
  return { tools, mcpTools, toolChoice, parallelToolCalls: fields.optional('parallel_tool_calls', boolean) };
}

/** Without `require_approval: "never"` it is refused: nobody could be asked. */
function unattended(value: unknown, path: string): McpTool {
  const tool = parseMcpTool(value, path);
  requireUnattended(tool, path);
  return tool;
}

function isMcpTool(tool: ToolDefinition | McpTool): tool is McpTool {
  return 'serverLabel' in tool;
}

function parseLogprobs(fields: Fields): number | undefined {
  const logprobs = fields.optional('logprobs', boolean) ?? false;
  const top = fields.optional('top_logprobs', integer(0, MAX_TOP_LOGPROBS)) ?? 0;
  if (top > 0 && !logprobs) throw invalidValue('top_logprobs', 'needs logprobs to be true');
  return logprobs ? top : undefined;
}

function parseTemplateVariables(fields: Fields): JsonObject {
  const effort = fields.optional('reasoning_effort', oneOf(...REASONING_EFFORTS));
  return {
    ...(effort === undefined ? {} : { reasoning_effort: effort }),
    ...fields.optional('chat_template_kwargs', object),
  };
}

function parseContinuation(
  fields: Fields,
  messages: readonly Message[],
): Pick<ChatCompletionRequest, 'addGenerationPrompt' | 'continueFinalMessage'> {
  const add = fields.optional('add_generation_prompt', boolean);
  const continueFinalMessage = fields.optional('continue_final_message', boolean) ?? false;
  if (!continueFinalMessage) return { addGenerationPrompt: add ?? true, continueFinalMessage };
  if (add === true) throw invalidValue('continue_final_message', 'cannot be combined with add_generation_prompt');
  if (messages.at(-1)?.role !== 'assistant') {
    throw invalidValue('continue_final_message', 'needs an assistant message at the end of messages');
  }
  return { addGenerationPrompt: false, continueFinalMessage };
}

function isTextOnly(value: unknown): boolean {
  return Array.isArray(value) && value.every((modality) => modality === 'text');
}

export type WireFinishReason = 'stop' | 'length' | 'tool_calls';

export interface WireTokenLogprob {
  readonly token: string;
  readonly logprob: number;
  readonly bytes: readonly number[];
}

export interface WireLogprob extends WireTokenLogprob {
  readonly top_logprobs: readonly WireTokenLogprob[];
}

export interface WireLogprobs {
  readonly content: readonly WireLogprob[];
  readonly refusal: null;
}

/** Id, type and name only in the first delta of a call. */
export interface ToolCallDelta {
  readonly index: number;
  readonly id?: string;
  readonly type?: 'function';
  readonly function: { readonly name?: string; readonly arguments: string };
}

export interface WireToolCall {
  readonly id: string;
  readonly type: 'function';
  /** The arguments are JSON in a string, unless the call was cut off. */
  readonly function: { readonly name: string; readonly arguments: string };
}

/** What the server ran: one server's list, in one delta, whole. */
export interface ChatMcpList {
  readonly index: number;
  readonly server_label: string;
  /** Names of the tools that the model was offered. */
  readonly tools: readonly string[];
  readonly error?: McpCallError;
}

/** One call. In deltas: first id, type, server and name; then arguments, to be concatenated; then how it ended. */
export interface ChatMcpCallDelta {
  readonly index: number;
  readonly id?: string;
  readonly type?: 'mcp_call';
  readonly server_label?: string;
  readonly name?: string;
  readonly arguments?: string;
  readonly status?: 'completed' | 'failed' | 'incomplete';
  readonly output?: string;
  readonly error?: McpCallError;
}

/** In a delta, one of them at a time; in a message, all that there were. */
export interface ChatMcpLists {
  readonly mcp_list_tools?: readonly ChatMcpList[];
  readonly mcp_calls?: readonly ChatMcpCallDelta[];
}

export interface ChatDelta extends ChatMcpLists {
  readonly role?: 'assistant';
  readonly content?: string;
  /** The same text twice: some clients read the one name, some the other. */
  readonly reasoning_content?: string;
  readonly reasoning?: string;
  readonly tool_calls?: readonly ToolCallDelta[];
}

export interface ChatChunkChoice {
  readonly index: number;
  readonly delta: ChatDelta;
  readonly logprobs: WireLogprobs | null;
  readonly finish_reason: WireFinishReason | null;
}

export interface ChatCompletionChunk {
  readonly id: string;
  readonly object: 'chat.completion.chunk';
  readonly created: number;
  readonly model: string;
  /** Empty in the usage chunk. */
  readonly choices: readonly ChatChunkChoice[];
  /** Only if asked for: null in all chunks but the last. */
  readonly usage?: WireUsage | null;
  /** In the last chunk. */
  readonly timings?: WireTimings;
}

export interface ChatCompletion {
  readonly id: string;
  readonly object: 'chat.completion';
  readonly created: number;
  readonly model: string;
  readonly choices: readonly {
    readonly index: number;
    readonly message: ChatMcpLists & {
      readonly role: 'assistant';
      /** Null where there is nothing but calls. */
      readonly content: string | null;
      readonly reasoning_content?: string;
      readonly reasoning?: string;
      readonly refusal: null;
      readonly tool_calls?: readonly WireToolCall[];
    };
    readonly logprobs: WireLogprobs | null;
    readonly finish_reason: WireFinishReason;
  }[];
  readonly usage: WireUsage;
  readonly timings?: WireTimings;
}
