/** One request's side of the border: batches of events pushed in, one async iterator out. */

import { EngineError } from './types.js';

export interface EventQueueOptions {
  /** The reader does not want the rest. Called at most once, never after the end. */
  readonly onCancel: () => void;
  /** Aborting cancels. Already aborted: the queue is born failed and `onCancel` is not called. */
  readonly signal?: AbortSignal;
}

interface Reader<Event> {
  readonly resolve: (result: IteratorResult<Event, undefined>) => void;
  readonly reject: (error: EngineError) => void;
}

const DONE: IteratorResult<never, undefined> = { done: true, value: undefined };

/**
 * Ends with a `finished` event, by `fail`, or by cancellation (`cancel()`, the signal, leaving the loop); what is pushed
 * afterwards is dropped.
 */
export abstract class EventQueue<Event extends { readonly type: string }> implements AsyncIterable<Event> {
  readonly #options: EventQueueOptions;
  /** What is read, for messages: "generation". */
  readonly #noun: string;
  #events: Event[] = [];
  #next = 0;
  #ended = false;
  #failure: EngineError | undefined;
  #reader: Reader<Event> | undefined;
  #iterated = false;

  protected constructor(noun: string, options: EventQueueOptions) {
    this.#noun = noun;
    this.#options = options;
    const { signal } = options;
    if (signal?.aborted === true) {
      this.#end(this.#aborted(signal));
    } else {
      signal?.addEventListener('abort', this.#onAbort, { once: true });
    }
  }

  /** Events of this request, in order. One `finished` ends it. */
  push(events: readonly Event[]): void {
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

  /** It broke: the reader gets what is queued, then the error. */
  fail(error: EngineError): void {
    if (this.#ended) return;
    this.#end(error);
    this.#serve();
  }

  cancel(): void {
    this.#cancel(new EngineError('cancelled', `the ${this.#noun} was cancelled`));
  }

  [Symbol.asyncIterator](): AsyncIterator<Event, undefined> {
    if (this.#iterated) throw new EngineError('invalid_request', `a ${this.#noun} can be read only once`);
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

  /** Type of the events of which only the newest is worth keeping: a slow reader must not pile them up. */
  protected abstract readonly progressType: Event['type'];

  /** Called for each event that the reader takes, while more are to come. */
  protected abstract taken(event: Event): void;

  readonly #onAbort = (): void => {
    const { signal } = this.#options;
    if (signal) this.#cancel(this.#aborted(signal));
  };

  #append(event: Event): void {
    const last = this.#events.length - 1;
    const isProgress = event.type === this.progressType;
    if (isProgress && last >= this.#next && this.#events[last]?.type === this.progressType) {
      this.#events[last] = event;
    } else {
      this.#events.push(event);
    }
  }

  #read(): Promise<IteratorResult<Event, undefined>> {
    if (this.#reader) {
      return Promise.reject(new EngineError('invalid_request', `a ${this.#noun} has one reader at a time`));
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

  #take(): Event | undefined {
    const event = this.#events[this.#next];
    if (!event) return undefined;
    this.#next += 1;
    if (this.#next === this.#events.length) this.#drop();
    if (!this.#ended) this.taken(event);
    return event;
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

  #aborted(signal: AbortSignal): EngineError {
    return new EngineError('cancelled', `the ${this.#noun} was aborted`, undefined, { cause: signal.reason });
  }
}
