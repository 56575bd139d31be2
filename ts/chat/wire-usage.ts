/** The engine's counts and times → their wire form. */

import type { Timings, Usage } from '../engine/types.js';
import type { WireTimings, WireUsage } from '../protocol/usage.js';

/** @param reasoningTokens undefined where it is not known */
export function toWireUsage(usage: Usage, reasoningTokens?: number): WireUsage {
  return {
    prompt_tokens: usage.promptTokens,
    completion_tokens: usage.completionTokens,
    total_tokens: usage.promptTokens + usage.completionTokens,
    prompt_tokens_details: { cached_tokens: usage.cachedTokens },
    ...(reasoningTokens === undefined ? {} : { completion_tokens_details: { reasoning_tokens: reasoningTokens } }),
  };
}

export function addUsage(a: Usage, b: Usage): Usage {
  return {
    promptTokens: a.promptTokens + b.promptTokens,
    cachedTokens: a.cachedTokens + b.cachedTokens,
    completionTokens: a.completionTokens + b.completionTokens,
  };
}

export function toWireTimings(usage: Usage, timings: Timings): WireTimings {
  const computed = usage.promptTokens - usage.cachedTokens;
  return {
    queued_ms: milliseconds(timings.queued),
    cache_n: usage.cachedTokens,
    prompt_n: computed,
    prompt_ms: milliseconds(timings.prefill),
    prompt_per_second: rate(computed, timings.prefill),
    predicted_n: usage.completionTokens,
    predicted_ms: milliseconds(timings.decode),
    predicted_per_second: rate(usage.completionTokens - 1, timings.decode),
  };
}

/** JSON has no -Infinity; OpenAI writes an impossible token like this. */
const IMPOSSIBLE = -9999;

export function toWireLogprob(logprob: number | undefined): number {
  return logprob !== undefined && Number.isFinite(logprob) ? logprob : IMPOSSIBLE;
}

/** Microseconds are what the clock gives. */
function milliseconds(seconds: number): number {
  return Math.round(seconds * 1e6) / 1e3;
}

function rate(count: number, seconds: number): number | null {
  return count > 0 && seconds > 0 ? Math.round((count / seconds) * 100) / 100 : null;
}
