/** The native engine behind the `Engine` interface: plain data across the border, one message per engine step. */

import type {
  BindingCachedModel,
  BindingError,
  BindingEvent,
  BindingMachineReport,
  NativeEngine,
} from '../../index.js';
import { loadAddon } from './addon.js';
import { CREDIT, failureOf, toBinding, toError, toEvent, toLoadedModel, toProgress } from './binding.js';
import type { EventQueue, EventQueueOptions } from './event-queue.js';
import { GenerationQueue } from './generation.js';
import type { Transcription, TranscriptionRequest } from './speech.js';
import { toBindingTranscription, toTranscriptionEvent, TranscriptionQueue } from './transcription.js';
import {
  EngineError,
  type CachedModel,
  type Engine,
  type GenerateRequest,
  type Generation,
  type LoadedModel,
  type LoadOptions,
  type LoadProgress,
  type MachineReport,
  type ModelStats,
} from './types.js';

/** An engine on this process's devices. The addon is loaded by the first call that needs it. */
export function createNativeEngine(): Engine {
  return new NativeEngineAdapter();
}

class NativeEngineAdapter implements Engine {
  #native: NativeEngine | undefined;
  #opening: Promise<NativeEngine> | undefined;
  #addonNote: string | undefined;
  #closed = false;
  #nextId = 1;
  #nextLoad = 1;
  readonly #generations = new Map<number, GenerationQueue>();
  readonly #transcriptions = new Map<number, TranscriptionQueue>();
  /** The event function is weak, so a script can end; while answers are awaited this keeps the process alive. */
  #keepAlive: NodeJS.Timeout | undefined;

  async load(
    options: LoadOptions,
    onProgress?: (progress: LoadProgress) => void,
    signal?: AbortSignal,
  ): Promise<LoadedModel> {
    throwIfAborted(signal);
    const native = await this.#open(options.device ?? 'auto');
    const token = this.#nextLoad++;
    const cancel = (): void => {
      native.cancelLoad(token);
    };
    signal?.addEventListener('abort', cancel, { once: true });
    try {
      const reply = await native.load(token, { ...options }, (progress) => onProgress?.(toProgress(progress)));
      const model = toLoadedModel(unwrap(reply));
      if (signal?.aborted === true) {
        await native.unload(model.handle);
        throwIfAborted(signal);
      }
      return this.#addonNote === undefined ? model : { ...model, warnings: [this.#addonNote, ...model.warnings] };
    } finally {
      signal?.removeEventListener('abort', cancel);
    }
  }

  async unload(handle: number): Promise<void> {
    unwrap(await this.#ready().unload(handle));
  }

  generate(request: GenerateRequest, signal?: AbortSignal): Generation {
    const native = this.#ready();
    const id = this.#nextId++;
    const queue = new GenerationQueue({
      credit: CREDIT,
      onGrant: (tokens) => {
        native.grant(id, tokens);
      },
      ...this.#leaving(native, id, signal),
    });
    if (signal?.aborted === true) return queue;
    this.#generations.set(id, queue);
    this.#follow(id, native.generate(id, request.model, toBinding(request)));
    return queue;
  }

  transcribe(request: TranscriptionRequest, signal?: AbortSignal): Transcription {
    const native = this.#ready();
    const id = this.#nextId++;
    const queue = new TranscriptionQueue(this.#leaving(native, id, signal));
    if (signal?.aborted === true) return queue;
    this.#transcriptions.set(id, queue);
    this.#follow(id, native.transcribe(id, request.model, toBindingTranscription(request)));
    return queue;
  }

  async tokenize(handle: number, text: string, addSpecialTokens: boolean): Promise<number[]> {
    return unwrap(await this.#ready().tokenize(handle, text, addSpecialTokens));
  }

  async detokenize(handle: number, ids: readonly number[], skipSpecialTokens: boolean): Promise<string> {
    return unwrap(await this.#ready().detokenize(handle, [...ids], skipSpecialTokens));
  }

  stats(handle: number): ModelStats {
    const nothing = { running: 0, waiting: 0, freeBlocks: 0, totalBlocks: 0, draftedTokens: 0, acceptedTokens: 0 };
    return this.#ready().stats(handle) ?? nothing;
  }

  async listCached(): Promise<readonly CachedModel[]> {
    const native = await this.#open('auto');
    return unwrap<BindingCachedModel[]>(await native.listCached());
  }

  async measureMachine(): Promise<MachineReport> {
    const native = await this.#open('auto');
    return unwrap<BindingMachineReport>(await native.measureMachine());
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    for (const id of [...this.#generations.keys(), ...this.#transcriptions.keys()]) {
      this.#fail(id, new EngineError('closed', 'the engine was closed'));
    }
    const native = this.#native ?? (await this.#opening?.catch(() => undefined));
    await native?.close();
  }

  async #open(device: NonNullable<LoadOptions['device']>): Promise<NativeEngine> {
    if (this.#closed) throw new EngineError('closed', 'the engine is closed');
    const { addon, note } = await loadAddon(device);
    this.#addonNote = note;
    this.#opening ??= Promise.resolve(
      new addon.NativeEngine((events) => {
        this.#dispatch(events);
      }),
    );
    this.#native = await this.#opening;
    return this.#native;
  }

  #ready(): NativeEngine {
    if (this.#closed) throw new EngineError('closed', 'the engine is closed');
    if (this.#native === undefined) throw new EngineError('closed', 'no model is loaded');
    return this.#native;
  }

  /** What a queue does when its reader leaves. */
  #leaving(native: NativeEngine, id: number, signal?: AbortSignal): EventQueueOptions {
    const onCancel = (): void => {
      native.cancel(id);
      this.#forget(id);
    };
    return signal === undefined ? { onCancel } : { onCancel, signal };
  }

  /** Hears of a call that did not begin, and keeps the process alive until the last one has ended. */
  #follow(id: number, started: Promise<unknown>): void {
    this.#keepAlive ??= setInterval(() => undefined, 1 << 30);
    void started.then(
      (reply) => {
        if (isError(reply)) this.#fail(id, toError(reply));
      },
      (error: unknown) => {
        this.#fail(id, new EngineError('internal', 'the native call failed', undefined, { cause: error }));
      },
    );
  }

  /** One message per step: sort its events by request, hand each its share. */
  #dispatch(events: readonly BindingEvent[]): void {
    let start = 0;
    while (start < events.length) {
      const id = events[start]?.id ?? 0;
      let end = start + 1;
      while (end < events.length && events[end]?.id === id) end++;
      const own = events.slice(start, end);
      this.#deliver(id, this.#generations.get(id), own, toEvent);
      this.#deliver(id, this.#transcriptions.get(id), own, toTranscriptionEvent);
      start = end;
    }
  }

  #deliver<Event extends { readonly type: string }>(
    id: number,
    queue: EventQueue<Event> | undefined,
    events: readonly BindingEvent[],
    toOwn: (event: BindingEvent) => Event | undefined,
  ): void {
    if (queue === undefined) return;
    const out: Event[] = [];
    for (const event of events) {
      const error = failureOf(event);
      if (error !== undefined) {
        queue.push(out);
        this.#fail(id, error);
        return;
      }
      const own = toOwn(event);
      if (own !== undefined) out.push(own);
    }
    const ended = out.at(-1)?.type === 'finished';
    queue.push(out);
    if (ended) this.#forget(id);
  }

  #fail(id: number, error: EngineError): void {
    const queue = this.#generations.get(id) ?? this.#transcriptions.get(id);
    this.#forget(id);
    queue?.fail(error);
  }

  #forget(id: number): void {
    this.#generations.delete(id);
    this.#transcriptions.delete(id);
    if (this.#generations.size + this.#transcriptions.size === 0) {
      clearInterval(this.#keepAlive);
      this.#keepAlive = undefined;
    }
  }
}

function isError(reply: unknown): reply is BindingError {
  return typeof reply === 'object' && reply !== null && 'code' in reply && 'message' in reply;
}

function unwrap<T>(reply: T | BindingError): T {
  if (isError(reply)) throw toError(reply);
  return reply;
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) {
    throw new EngineError('cancelled', 'the load was cancelled', undefined, { cause: signal.reason });
  }
}
