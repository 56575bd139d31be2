/** One request's side of the border: batches of events pushed in, one async iterator out, back-pressure by credit. */

import { EngineError, type Generation, type GenerationEvent } from './types.js';

export interface GenerationQueueOptions {
  /** Tokens the engine may produce ahead of the reader; granted back as they are read. At least 1. */
  readonly credit: number;
  /** The reader took that many tokens more: the engine may produce as many again. */
  readonly onGrant: (tokens: number) => void;
  /** The reader does not want the rest. Called at most once, never after the end. */
  readonly onCancel: () => void;
  /** Aborting cancels. Already aborted: the queue is born failed and `onCancel` is not called. */
  readonly signal?: AbortSignal;
}

interface Reader {
  readonly resolve: (result: IteratorResult<GenerationEvent, undefined>) => void;
  readonly reject: (error: EngineError) => void;
}

const DONE: IteratorResult<GenerationEvent, undefined> = { done: true, value: undefined };

/**
 * A `Generation` fed by the engine. It ends with a `finished` event, by `fail`, or by cancellation (`cancel()`, the
 * signal, leaving the loop); what is pushed afterwards is dropped. It holds at most `credit` tokens, because the
 * engine parks a sequence that has none left.
 */
export class GenerationQueue implements Generation {
  readonly #options: GenerationQueueOptions;
  /** Tokens are granted back in lots of this size, so that most reads cost no call into the engine. */
  readonly #lot: number;
  #events: GenerationEvent[] = [];
  #next = 0;
  #owed = 0;
  #ended = false;
  #failure: EngineError | undefined;
  #reader: Reader | undefined;
  #iterated = false;

  constructor(options: GenerationQueueOptions) {
    this.#options = options;
    this.#lot = Math.max(1, options.credit >> 2);
    const { signal } = options;
    if (signal?.aborted === true) {
      this.#end(aborted(signal));
    } else {
      signal?.addEventListener('abort', this.#onAbort, { once: true });
    }
  }

  /** Events of this request, in order. One `finished` ends it. */
  push(events: readonly GenerationEvent[]): void {
    if (this.#ended) return;
    for (const event of events) {
      this.#append(event);
      if (event.type === 'finished') {
        this.#end(undefined);
        break;
      }
    }
    this.#serve();
  }

  /** The generation broke: the reader gets what is queued, then the error. */
  fail(error: EngineError): void {
    if (this.#ended) return;
    this.#end(error);
    this.#serve();
  }

  cancel(): void {
    this.#cancel(new EngineError('cancelled', 'the generation was cancelled'));
  }

  [Symbol.asyncIterator](): AsyncIterator<GenerationEvent, undefined> {
    if (this.#iterated) throw new EngineError('invalid_request', 'a generation can be read only once');
    this.#iterated = true;
    return {
      next: () => this.#read(),
      return: () => {
        this.cancel();
        this.#drop();
        this.#failure = undefined;
        return Promise.resolve(DONE);
      },
    };
  }

  readonly #onAbort = (): void => {
    const { signal } = this.#options;
    if (signal) this.#cancel(aborted(signal));
  };

  #append(event: GenerationEvent): void {
    const last = this.#events.length - 1;
    // Progress that nobody has read yet is outdated by newer progress: a slow reader must not pile it up.
    if (event.type === 'prefill' && last >= this.#next && this.#events[last]?.type === 'prefill') {
      this.#events[last] = event;
    } else {
      this.#events.push(event);
    }
  }

  #read(): Promise<IteratorResult<GenerationEvent, undefined>> {
    if (this.#reader) {
      return Promise.reject(new EngineError('invalid_request', 'a generation has one reader at a time'));
    }
    const event = this.#take();
    if (event) return Promise.resolve({ done: false, value: event });
    if (this.#failure) return Promise.reject(this.#takeFailure(this.#failure));
    if (this.#ended) return Promise.resolve(DONE);
    return new Promise((resolve, reject) => {
      this.#reader = { resolve, reject };
    });
  }

  /** Hands the waiting reader, if there is one, what has come. */
  #serve(): void {
    const reader = this.#reader;
    if (!reader) return;
    const event = this.#take();
    if (!event && !this.#ended) return;
    this.#reader = undefined;
    if (event) reader.resolve({ done: false, value: event });
    else if (this.#failure) reader.reject(this.#takeFailure(this.#failure));
    else reader.resolve(DONE);
  }

  #take(): GenerationEvent | undefined {
    const event = this.#events[this.#next];
    if (!event) return undefined;
    this.#next += 1;
    if (this.#next === this.#events.length) this.#drop();
    if (event.type === 'delta') this.#grant(event.nTokens);
    return event;
  }

  #grant(tokens: number): void {
    if (this.#ended) return;
    this.#owed += tokens;
    if (this.#owed < this.#lot) return;
    const granted = this.#owed;
    this.#owed = 0;
    this.#options.onGrant(granted);
  }

  /** An error is thrown once; the iterator is done afterwards. */
  #takeFailure(error: EngineError): EngineError {
    this.#failure = undefined;
    return error;
  }

  #cancel(error: EngineError): void {
    if (this.#ended) return;
    // What is queued is not wanted any more.
    this.#drop();
    this.#end(error);
    this.#options.onCancel();
    this.#serve();
  }

  #end(failure: EngineError | undefined): void {
    this.#ended = true;
    this.#failure = failure;
    this.#options.signal?.removeEventListener('abort', this.#onAbort);
  }

  #drop(): void {
    this.#events = [];
    this.#next = 0;
  }
}

function aborted(signal: AbortSignal): EngineError {
  return new EngineError('cancelled', 'the generation was aborted', undefined, { cause: signal.reason });
}
