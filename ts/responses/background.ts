/** Responses that nobody waits for: they run on, and their events are in the store for whoever comes. */

import { isTerminalEvent, type ResponseEvent } from '../protocol/response-events.js';
import type { StoredItem } from '../protocol/response-items.js';
import type { ResponseObject } from '../protocol/response-object.js';
import type { ResponseMachine } from './event-machine.js';
import { INTERRUPTED } from './interrupted.js';
import type { CallerStore } from './store.js';

/** At once; the engine's own queue is behind it. */
export const MAX_BACKGROUND = 64;

/** Events read from the store at a time. */
const READ_BATCH = 256;

/** Why a run was ended by us. */
const STOPPED = new Error('the server is stopping');

interface Run {
  readonly machine: ResponseMachine;
  readonly controller: AbortController;
  /** Settles when the response's last event is stored. */
  readonly ended: Promise<void>;
  readonly waiting: Set<() => void>;
}

export class BackgroundRuns {
  private readonly runs = new Map<string, Run>();

  /** @param onLost told of a response whose end could not be stored */
  constructor(private readonly onLost: (id: string, error: unknown) => void) {}

  get isFull(): boolean {
    return this.runs.size >= MAX_BACKGROUND;
  }

  /** What a response that runs looks like now. */
  snapshot(id: string): ResponseObject | undefined {
    return this.runs.get(id)?.machine.snapshot;
  }

  /**
   * Stores the queued response, then lets it run.
   * @param machine fresh; the events are of this machine
   * @param events never fails but by its signal
   * @returns the queued response
   */
  start(
    store: CallerStore,
    machine: ResponseMachine,
    input: readonly StoredItem[],
    events: (signal: AbortSignal) => AsyncIterable<ResponseEvent>,
  ): ResponseObject {
    const { id } = machine;
    const queued = machine.queue();
    const response = machine.snapshot;
    store.put({ response, input });
    store.appendEvents(id, queued);
    const controller = new AbortController();
    const waiting = new Set<() => void>();
    const ended = this.drain(store, machine, input, events(controller.signal), controller.signal, waiting)
      .catch((error: unknown) => this.onLost(id, error))
      .finally(() => {
        this.runs.delete(id);
        for (const wake of waiting) wake();
      });
    this.runs.set(id, { machine, controller, ended, waiting });
    return response;
  }

  /** Resolves when the response is at its end, whichever that is. */
  async cancel(id: string): Promise<void> {
    const run = this.runs.get(id);
    run?.controller.abort();
    await run?.ended;
  }

  /** Ends all. They have failed, as after a death of the process; resolves when that is stored. */
  async end(): Promise<void> {
    const runs = [...this.runs.values()];
    for (const { controller } of runs) controller.abort(STOPPED);
    await Promise.all(runs.map(({ ended }) => ended));
  }

  /** Events after that number, those to come included, up to the last. Ends early if the response is deleted. */
  async *follow(store: CallerStore, id: string, after: number, signal: AbortSignal): AsyncGenerator<ResponseEvent> {
    let last = after;
    while (!signal.aborted) {
      const batch = store.events(id, last, READ_BATCH);
      for (const event of batch) {
        yield event;
        if (isTerminalEvent(event)) return;
        last = event.sequence_number;
      }
      if (batch.length > 0) continue;
      const run = this.runs.get(id);
      if (run === undefined) return;
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          run.waiting.delete(wake);
          signal.removeEventListener('abort', wake);
          resolve();
        };
        run.waiting.add(wake);
        signal.addEventListener('abort', wake, { once: true });
      });
    }
  }

  private async drain(
    store: CallerStore,
    machine: ResponseMachine,
    input: readonly StoredItem[],
    events: AsyncIterable<ResponseEvent>,
    signal: AbortSignal,
    waiting: ReadonlySet<() => void>,
  ): Promise<void> {
    const wake = (): void => {
      for (const resolve of [...waiting]) resolve();
    };
    try {
      for await (const event of events) {
        store.appendEvents(machine.id, [event]);
        // The end is there to be fetched before anybody hears of it.
        if (isTerminalEvent(event)) keepEnd(store, machine, input);
        wake();
      }
    } catch (error) {
      // Only its signal ends it like this; anything else is the store's failure, which may pass.
      if (machine.isTerminal) throw error;
      const broken = { code: 'server_error', message: 'the response could not be stored' } as const;
      const stopped = signal.reason === STOPPED;
      store.appendEvents(
        machine.id,
        signal.aborted && !stopped ? machine.cancel() : machine.fail(stopped ? INTERRUPTED : broken),
      );
      keepEnd(store, machine, input);
      wake();
      if (!signal.aborted) throw error;
    }
  }
}

/** A response that was deleted meanwhile stays so. */
function keepEnd(store: CallerStore, machine: ResponseMachine, input: readonly StoredItem[]): void {
  if (store.get(machine.id) !== undefined) store.put({ response: machine.snapshot, input });
}
