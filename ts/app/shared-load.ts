/** One load that several callers wait for. */

import { EngineError, type LoadedModel, type LoadProgress } from '../engine/types.js';

type Load = (onProgress: (progress: LoadProgress) => void, signal: AbortSignal) => Promise<LoadedModel>;

/**
 * Starts at once. A waiter's abort takes only that waiter away; when the last one is gone the load itself is aborted.
 */
export class SharedLoad {
  /** Settles when the load has, whoever still waits. */
  readonly settled: Promise<LoadedModel>;
  readonly #controller = new AbortController();
  readonly #listeners = new Set<(progress: LoadProgress) => void>();
  #last: LoadProgress | undefined;
  #waiters = 0;

  constructor(load: Load) {
    this.settled = load((progress) => {
      this.#last = progress;
      for (const listener of this.#listeners) listener(progress);
    }, this.#controller.signal);
    // Waiters see the failure; without any it is nobody's.
    this.settled.catch(() => undefined);
  }

  /** Nobody wants it any more. */
  get aborted(): boolean {
    return this.#controller.signal.aborted;
  }

  abort(): void {
    this.#controller.abort();
  }

  /** Throws what the load throws, or EngineError `cancelled` on the waiter's own abort. */
  async wait(onProgress?: (progress: LoadProgress) => void, signal?: AbortSignal): Promise<LoadedModel> {
    this.#waiters += 1;
    if (onProgress) {
      this.#listeners.add(onProgress);
      if (this.#last) onProgress(this.#last);
    }
    let onAbort: (() => void) | undefined;
    try {
      return await new Promise<LoadedModel>((resolve, reject) => {
        this.settled.then(resolve, reject);
        onAbort = () => {
          reject(
            new EngineError('cancelled', 'the wait for the model was aborted', undefined, { cause: signal?.reason }),
          );
        };
        if (signal?.aborted === true) onAbort();
        else signal?.addEventListener('abort', onAbort, { once: true });
      });
    } catch (error) {
      if (this.#waiters === 1) this.abort();
      throw error;
    } finally {
      this.#waiters -= 1;
      if (onAbort) signal?.removeEventListener('abort', onAbort);
      if (onProgress) this.#listeners.delete(onProgress);
    }
  }
}
