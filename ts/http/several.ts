/** Several answers to each prompt: the first computes the prompt, the others find it in the prefix cache. */

import type { ChatEvent } from '../chat/types.js';
import type { GenerationEvent, SamplingOptions } from '../engine/types.js';
import { mapped } from './mapped.js';
import { mergeConcurrently } from './merge.js';

export interface IndexedEvent<Event> {
  /** Of the choice: all of the first prompt, then all of the second. */
  readonly index: number;
  readonly event: Event;
}

export interface SeveralOptions {
  readonly prompts: number;
  /** Answers to each prompt. */
  readonly n: number;
  /** Generations that may run at once. */
  readonly limit: number;
  readonly signal: AbortSignal;
}

/** @param generate starts a generation; `choice` counts the answers to one prompt */
export function generateSeveral<Event extends ChatEvent | GenerationEvent>(
  { prompts, n, limit, signal: outer }: SeveralOptions,
  generate: (prompt: number, choice: number, signal: AbortSignal) => AsyncIterable<Event>,
): AsyncIterable<IndexedEvent<Event>> {
  if (prompts === 1 && n === 1) return mapped(generate(0, 0, outer), (event) => ({ index: 0, event }));
  const stop = new AbortController();
  const signal = AbortSignal.any([outer, stop.signal]);
  const sources = Array.from({ length: prompts }, (_, prompt) => {
    let computed: () => void = () => undefined;
    const ready = new Promise<void>((resolve) => (computed = resolve));
    return Array.from(
      { length: n },
      (_unused, choice) =>
        async function* (): AsyncGenerator<IndexedEvent<Event>> {
          if (choice > 0) await ready;
          try {
            for await (const event of generate(prompt, choice, signal)) {
              // Its first output says that the prompt is in the cache.
              if (event.type !== 'started' && event.type !== 'prefill' && event.type !== 'prompt') computed();
              yield { index: prompt * n + choice, event };
            }
          } finally {
            computed();
          }
        },
    );
  });
  return mergeConcurrently(sources.flat(), limit, () => stop.abort());
}

/**
 * The sampling of one of several answers: seeds count up, so that each is another answer and all can be had again.
 * @param defaultSeed of a request without one; undefined: the engine takes a fresh one for each
 */
export function samplingOf<S extends SamplingOptions>(sampling: S, choice: number, defaultSeed?: number): S {
  const seed = sampling.seed ?? defaultSeed;
  if (seed === undefined || choice === 0) return sampling;
  return { ...sampling, seed: (seed + choice) % 2 ** 53 };
}
