/** How many transcriptions there may be at once: some run, some wait for their turn, the rest is refused. */

import { EngineError } from '../engine/types.js';
import { ClientGoneError } from './errors.js';

export interface SlotLimits {
  readonly maxTranscriptions: number;
  readonly maxWaitingTranscriptions: number;
}

/** A transcription that was let in. Disposing of it makes room. */
export interface TranscriptionSlot extends Disposable {
  /** Resolves when it may run, in the order of asking. @throws ClientGoneError */
  turn(signal: AbortSignal): Promise<void>;
}

export class TranscriptionSlots {
  #admitted = 0;
  #running = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(private readonly limits: SlotLimits) {}

  get running(): number {
    return this.#running;
  }

  /** Those that wait for their turn or for their recording. */
  get waiting(): number {
    return this.#admitted - this.#running;
  }

  /** Before the upload: what is refused is not stored either. @throws EngineError `queue_full` */
  enter(): TranscriptionSlot {
    const { maxTranscriptions, maxWaitingTranscriptions } = this.limits;
    if (this.#admitted >= maxTranscriptions + maxWaitingTranscriptions) {
      throw new EngineError('queue_full', `${this.#admitted} transcriptions run or wait already: try again later`);
    }
    this.#admitted += 1;
    let state: 'admitted' | 'running' | 'over' = 'admitted';
    return {
      turn: async (signal) => {
        await this.#wait(signal);
        state = 'running';
      },
      [Symbol.dispose]: () => {
        if (state === 'over') return;
        if (state === 'running') this.#leave();
        state = 'over';
        this.#admitted -= 1;
      },
    };
  }

  async #wait(signal: AbortSignal): Promise<void> {
    if (signal.aborted) throw new ClientGoneError();
    if (this.#running < this.limits.maxTranscriptions) {
      this.#running += 1;
      return;
    }
    await new Promise<void>((resolve, reject) => {
      const next = (): void => {
        signal.removeEventListener('abort', gone);
        resolve();
      };
      const gone = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(next), 1);
        reject(new ClientGoneError());
      };
      this.#waiting.push(next);
      signal.addEventListener('abort', gone, { once: true });
    });
  }

  /** Hands the turn to the one that has waited longest. */
  #leave(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#running -= 1;
    else next();
  }
}
