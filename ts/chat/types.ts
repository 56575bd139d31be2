/** `ChatModel`: messages in, reasoning / content / tool-call deltas out. HTTP, Responses and MCP know only this. */

import type {
  FinishReason as EngineFinishReason,
  Grammar,
  SamplingOptions,
  Timings,
  TokenInfo,
  Usage,
} from '../engine/types.js';

export type TextPart = { readonly type: 'text'; readonly text: string };
export type ImagePart = { readonly type: 'image'; readonly url: string };
export type ContentPart = TextPart | ImagePart;

export interface ToolCall {
  readonly id: string;
  readonly name: string;
  /** A JSON string, as on the wire. */
  readonly arguments: string;
}

export interface ChatMessage {
  readonly role: 'system' | 'developer' | 'user' | 'assistant' | 'tool';
  readonly content: string | readonly ContentPart[] | null;
  readonly name?: string;
  readonly reasoning?: string;
  readonly toolCalls?: readonly ToolCall[];
  readonly toolCallId?: string;
}

export interface ToolDefinition {
  readonly name: string;
  readonly description?: string;
  /** JSON schema. */
  readonly parameters?: Readonly<Record<string, unknown>>;
  readonly strict?: boolean;
}

export interface ChatRequest {
  readonly messages: readonly ChatMessage[];
  readonly tools?: readonly ToolDefinition[];
  /** Default: `auto` if there are tools. */
  readonly toolChoice?: ToolChoice;
  /** The answer may hold more than one call. @default true */
  readonly parallelToolCalls?: boolean;
  readonly responseFormat?: ResponseFormat;
  /** What the answer must match, instead of a response format. */
  readonly grammar?: Grammar;
  readonly sampling?: SamplingOptions;
  /** Unset: the rest of the context. */
  readonly maxTokens?: number;
  readonly stop?: readonly string[];
  readonly stopTokenIds?: readonly number[];
  readonly ignoreEos?: boolean;
  readonly logprobs?: number;
  /** Extra variables for the template (`enable_thinking`, …). */
  readonly templateVariables?: Readonly<Record<string, unknown>>;
  /** @default true */
  readonly addGenerationPrompt?: boolean;
  /** The last message, an assistant's, is continued. @default false */
  readonly continueFinalMessage?: boolean;
  readonly cacheSalt?: string;
}

/** Whether and which tools may or must be called. */
export type ToolChoice =
  | 'none'
  | 'auto'
  | 'required'
  | { readonly name: string }
  /** Only these; the mode as above. */
  | { readonly allowed: readonly string[]; readonly mode: 'auto' | 'required' };

/** The form of the whole answer. */
export type ResponseFormat =
  | { readonly type: 'text' }
  | { readonly type: 'json_object' }
  | {
      readonly type: 'json_schema';
      readonly name: string;
      readonly schema: Readonly<Record<string, unknown>> | boolean;
      readonly strict: boolean;
    };

/** Delta of a tool call; `index` counts the calls of one answer from 0. */
export type ToolCallEvent =
  | { readonly type: 'tool_call'; readonly index: number; readonly id: string; readonly name: string }
  | { readonly type: 'tool_call_arguments'; readonly index: number; readonly delta: string }
  /** The call is whole: its arguments are valid JSON. A call that is cut off never gets this. */
  | { readonly type: 'tool_call_done'; readonly index: number };

export type FinishReason = EngineFinishReason | 'tool_calls';

export type ChatEvent =
  | { readonly type: 'started'; readonly promptTokens: number; readonly cachedTokens: number }
  | { readonly type: 'prefill'; readonly computed: number }
  | { readonly type: 'reasoning'; readonly text: string; readonly tokens?: readonly TokenInfo[] }
  | { readonly type: 'content'; readonly text: string; readonly tokens?: readonly TokenInfo[] }
  | ToolCallEvent
  | {
      readonly type: 'finished';
      /** `tool_calls` if there are calls and all of them are whole. */
      readonly reason: FinishReason;
      readonly usage: Usage;
      readonly timings: Timings;
      /** Of the completion's tokens; unset where nobody counted. */
      readonly reasoningTokens?: number;
    };

export interface ChatModel {
  /** Events end with one `finished`; failures are thrown as EngineError; leaving the loop cancels. */
  chat(request: ChatRequest, signal?: AbortSignal): AsyncIterable<ChatEvent>;
}
