/** The response as it goes over the wire: a superset of OpenAI's and Open Responses' objects. */

import type { OutputItem, StoredItem } from './response-items.js';
import type { EchoedTool, ResponseTextFormat, ResponseToolChoice } from './response-tools.js';

export type ResponseStatus = 'queued' | 'in_progress' | 'completed' | 'incomplete' | 'failed' | 'cancelled';

export interface ResponseUsage {
  readonly input_tokens: number;
  readonly input_tokens_details: {
    readonly cached_tokens: number;
    /** Always 0: writing the prefix cache is not a thing of its own here. */
    readonly cache_write_tokens: number;
  };
  readonly output_tokens: number;
  readonly output_tokens_details: { readonly reasoning_tokens: number };
  readonly total_tokens: number;
}

export type ResponseErrorCode = 'server_error' | 'rate_limit_exceeded' | 'invalid_prompt';

export interface ResponseError {
  readonly code: ResponseErrorCode;
  readonly message: string;
}

/** What of the request comes back in the response, with defaults filled in. */
export interface ResponseEcho {
  readonly model: string;
  readonly instructions: string | null;
  readonly previous_response_id: string | null;
  readonly conversation: { readonly id: string } | null;
  readonly metadata: Readonly<Record<string, string>>;
  readonly tools: readonly EchoedTool[];
  readonly tool_choice: ResponseToolChoice;
  readonly parallel_tool_calls: boolean;
  readonly text: { readonly format: ResponseTextFormat; readonly verbosity: 'low' | 'medium' | 'high' };
  readonly reasoning: { readonly effort: string | null; readonly summary: string | null };
  readonly temperature: number;
  readonly top_p: number;
  readonly presence_penalty: number;
  readonly frequency_penalty: number;
  readonly top_logprobs: number;
  readonly max_output_tokens: number | null;
  readonly max_tool_calls: number | null;
  readonly truncation: 'auto' | 'disabled';
  readonly store: boolean;
  readonly background: boolean;
  readonly service_tier: 'default';
  readonly safety_identifier: string | null;
  readonly prompt_cache_key: string | null;
}

export interface ResponseObject extends ResponseEcho {
  readonly id: string;
  readonly object: 'response';
  /** Unix seconds. */
  readonly created_at: number;
  readonly completed_at: number | null;
  readonly status: ResponseStatus;
  readonly error: ResponseError | null;
  readonly incomplete_details: { readonly reason: 'max_output_tokens' | 'content_filter' } | null;
  readonly output: readonly OutputItem[];
  /** Null until the end. */
  readonly usage: ResponseUsage | null;
}

export interface DeletedResponse {
  readonly id: string;
  readonly object: 'response';
  readonly deleted: true;
}

export interface ItemList {
  readonly object: 'list';
  readonly data: readonly StoredItem[];
  /** Null in an empty list. */
  readonly first_id: string | null;
  readonly last_id: string | null;
  readonly has_more: boolean;
}

export interface InputTokens {
  readonly object: 'response.input_tokens';
  readonly input_tokens: number;
}

export interface ResponseCompaction {
  readonly id: string;
  readonly object: 'response.compaction';
  readonly created_at: number;
  readonly output: readonly StoredItem[];
  readonly usage: ResponseUsage;
}

/** A status that does not change any more. */
export function isTerminal(status: ResponseStatus): boolean {
  return status !== 'queued' && status !== 'in_progress';
}
