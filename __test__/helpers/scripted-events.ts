/** Short ways to write down events. */

import type { ChatEvent } from '../../ts/chat/types.js';
import type { TranscribedSegment, TranscriptionEvent } from '../../ts/engine/speech.js';
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

/** Two seconds of a recording that say `text`, one word at a time, with a token each. */
export function segment(id: number, text: string, more: Partial<TranscribedSegment> = {}): TranscribedSegment {
  const spoken = text.match(/\s*\S+/g) ?? [];
  const start = id * 2;
  return {
    id,
    seek: start * 100,
    start,
    end: start + 2,
    text,
    tokens: [50364, ...spoken.map((_word, index) => 100 + index), 50464],
    temperature: 0,
    avgLogprob: -0.25,
    compressionRatio: 1.1,
    noSpeechProb: 0.01,
    ...more,
  };
}

/** The same with what is only told if it is asked for. */
export function fullSegment(id: number, text: string): TranscribedSegment {
  const spoken = text.match(/\s*\S+/g) ?? [];
  const length = 2 / spoken.length;
  return segment(id, text, {
    words: spoken.map((word, index) => ({
      word,
      start: id * 2 + index * length,
      end: id * 2 + (index + 1) * length,
      probability: 0.9,
    })),
    logprobs: spoken.map((word, index) => ({
      id: 100 + index,
      text: word,
      bytes: [...Buffer.from(word)],
      logprob: -0.5,
    })),
  });
}

export const heard = { type: 'started', duration: 4 } as const;
export const english = { type: 'language', code: 'en', name: 'english', probability: 0.9 } as const;
export const transcribed: TranscriptionEvent = { type: 'finished', usage: { audioTokens: 200, textTokens: 6 } };

export function said(id: number, text: string): TranscriptionEvent {
  return { type: 'segment', segment: fullSegment(id, text) };
}
