/** A generation's events with back-pressure by credit. */

import { EventQueue, type EventQueueOptions } from './event-queue.js';
import type { Generation, GenerationEvent } from './types.js';

export interface GenerationQueueOptions extends EventQueueOptions {
  /** Tokens the engine may produce ahead of the reader; granted back as they are read. At least 1. */
  readonly credit: number;
  /** The reader took that many tokens more: the engine may produce as many again. */
  readonly onGrant: (tokens: number) => void;
}

/** A `Generation` fed by the engine. It holds at most `credit` tokens, because the engine parks a sequence that has none left. */
export class GenerationQueue extends EventQueue<GenerationEvent> implements Generation {
  protected override readonly progressType = 'prefill';
  readonly #onGrant: (tokens: number) => void;
  /** Tokens are granted back in lots of this size, so that most reads cost no call into the engine. */
  readonly #lot: number;
  #owed = 0;

  constructor(options: GenerationQueueOptions) {
    super('generation', options);
    this.#onGrant = options.onGrant;
    this.#lot = Math.max(1, options.credit >> 2);
  }

  protected override taken(event: GenerationEvent): void {
    if (event.type !== 'delta') return;
    this.#owed += event.nTokens;
    if (this.#owed < this.#lot) return;
    const granted = this.#owed;
    this.#owed = 0;
    this.#onGrant(granted);
  }
}
