/** Counts and times, as they go over the wire. */

export interface WireUsage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly total_tokens: number;
  readonly prompt_tokens_details: { readonly cached_tokens: number };
  /** Absent where the share of reasoning is not known. */
  readonly completion_tokens_details?: { readonly reasoning_tokens: number };
}

/** Not OpenAI's: llama.cpp's names, so that its clients show speeds; `queued_ms` is ours. */
export interface WireTimings {
  readonly queued_ms: number;
  /** Prompt tokens taken from the prefix cache. */
  readonly cache_n: number;
  /** Prompt tokens computed. */
  readonly prompt_n: number;
  readonly prompt_ms: number;
  readonly prompt_per_second: number | null;
  readonly predicted_n: number;
  readonly predicted_ms: number;
  /** From the second token on: the first belongs to the prompt's time. */
  readonly predicted_per_second: number | null;
}
