/** An answer that can be read part by part, awaited as a whole, or both. */

import { EngineError } from '../engine/types.js';

/**
 * Reads as `for await (const part of stream)`, awaits as `await stream`. Nothing runs before one of them begins.
 * Leaving the loop early cancels the generation; the result is then an EngineError `cancelled`.
 */
export class AnswerStream<Part, Result> implements AsyncIterable<Part>, PromiseLike<Result> {
  readonly #source: () => AsyncGenerator<Part, Result, undefined>;
  #started = false;
  #resolve: (result: Result) => void = () => undefined;
  #reject: (error: unknown) => void = () => undefined;
  readonly #result: Promise<Result>;

  /** `source` yields the parts and returns the result; it is called at most once. */
  constructor(source: () => AsyncGenerator<Part, Result, undefined>) {
    this.#source = source;
    this.#result = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // A failure is thrown in the loop; who does not ask for the result need not hear of it twice.
    this.#result.catch(() => undefined);
  }

  /** Can be read once. */
  [Symbol.asyncIterator](): AsyncGenerator<Part, void, undefined> {
    if (this.#started) throw new EngineError('invalid_request', 'an answer can be read only once');
    this.#started = true;
    return this.#read();
  }

  /** The whole answer. During a loop it waits for the loop to end; without one it reads the answer itself. */
  async result(): Promise<Result> {
    if (!this.#started) {
      const parts = this[Symbol.asyncIterator]();
      while ((await parts.next()).done !== true) continue;
    }
    return this.#result;
  }

  /** `await stream` is `await stream.result()`. */
  then<A = Result, B = never>(
    onResult?: ((result: Result) => A | PromiseLike<A>) | null,
    onError?: ((error: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    return this.result().then(onResult, onError);
  }

  async *#read(): AsyncGenerator<Part, void, undefined> {
    let settled = false;
    const source = this.#source();
    try {
      for (;;) {
        const next = await source.next();
        if (next.done === true) {
          settled = true;
          this.#resolve(next.value);
          return;
        }
        yield next.value;
      }
    } catch (error) {
      settled = true;
      this.#reject(error);
      throw error;
    } finally {
      if (!settled) {
        this.#reject(new EngineError('cancelled', 'the answer was not read to its end'));
        await source.return(undefined as never);
      }
    }
  }
}
