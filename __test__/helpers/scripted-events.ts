/** Short ways to write down events. */

import type { ChatEvent } from '../../ts/chat/types.js';
import type { GenerationEvent, TokenInfo } from '../../ts/engine/types.js';

export const USAGE = { promptTokens: 5, cachedTokens: 2, completionTokens: 3 };
export const TIMINGS = { queued: 0.001, prefill: 0.03, decode: 0.02 };

/** USAGE and TIMINGS as they go over the wire. */
export const WIRE_USAGE = {
  prompt_tokens: 5,
  completion_tokens: 3,
  total_tokens: 8,
  prompt_tokens_details: { cached_tokens: 2 },
  completion_tokens_details: { reasoning_tokens: 0 },
};
export const WIRE_TIMINGS = {
  queued_ms: 1,
  cache_n: 2,
  prompt_n: 3,
  prompt_ms: 30,
  prompt_per_second: 100,
  predicted_n: 3,
  predicted_ms: 20,
  predicted_per_second: 100,
};

export const started = { type: 'started', promptTokens: 5, cachedTokens: 2 } as const;

export function content(text: string, tokens?: readonly TokenInfo[]): ChatEvent {
  return { type: 'content', text, ...(tokens === undefined ? {} : { tokens }) };
}

export function reasoning(text: string, tokens?: readonly TokenInfo[]): ChatEvent {
  return { type: 'reasoning', text, ...(tokens === undefined ? {} : { tokens }) };
}

export function finished(reason: 'stop' | 'length' = 'stop'): ChatEvent & GenerationEvent {
  return { type: 'finished', reason, usage: USAGE, timings: TIMINGS };
}

export function delta(text: string, tokens?: readonly TokenInfo[]): GenerationEvent {
  return {
    type: 'delta',
    pieces: [{ text }],
    nTokens: tokens?.length ?? 1,
    ...(tokens === undefined ? {} : { tokens }),
  };
}

/** A token whose alternatives are named with their log-probabilities. */
export function token(text: string, logprob?: number, top?: Readonly<Record<string, number>>): TokenInfo {
  return tokenOf(Buffer.from(text), text, logprob, top);
}

/** A token that is a part of a character. */
export function bytesToken(bytes: readonly number[], logprob?: number): TokenInfo {
  return tokenOf(Buffer.from(bytes), '\ufffd', logprob);
}

function tokenOf(bytes: Buffer, text: string, logprob?: number, top?: Readonly<Record<string, number>>): TokenInfo {
  const alternatives = Object.entries(top ?? {}).map(([other, value], id) => ({
    id,
    text: other,
    bytes: [...Buffer.from(other)],
    logprob: value,
  }));
  return {
    id: 1000 + bytes.length,
    text,
    bytes: [...bytes],
    ...(logprob === undefined ? {} : { logprob }),
    top: alternatives,
  };
}
