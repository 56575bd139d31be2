/** A ModelRegistry whose models play what a test wrote down, and remember what was asked of them. */

import type { ListedModel, ModelLease, ModelRegistry, ModelStatus, ServedModel } from '../../ts/app/types.js';
import type { ChatEvent, ChatRequest } from '../../ts/chat/types.js';
import type { Transcription, TranscriptionEvent, TranscriptionRequest } from '../../ts/engine/speech.js';
import {
  type Engine,
  EngineError,
  type GenerateRequest,
  type Generation,
  type GenerationEvent,
  type LoadedModel,
  type LoadProgress,
} from '../../ts/engine/types.js';

/** Something to say, something to wait for, or a failure. */
export type Step<Event> = Event | { readonly wait: Promise<unknown> } | { readonly fail: Error };

export type Script<Request, Event> = (request: Request) => Iterable<Step<Event>>;

export interface ScriptedModelOptions {
  readonly id: string;
  readonly chat?: Script<ChatRequest, ChatEvent>;
  readonly generate?: Script<GenerateRequest, GenerationEvent>;
  /** Makes it a speech model. */
  readonly transcribe?: Script<TranscriptionRequest, TranscriptionEvent>;
  readonly state?: ListedModel['state'];
  readonly contextLength?: number;
  readonly maxNumSeqs?: number;
  readonly defaultSeed?: number;
  /** Loading takes until this is settled, and fails as it does. */
  readonly load?: Promise<unknown>;
  /** What a load that is waited for tells on its way. */
  readonly progress?: readonly LoadProgress[];
}

/** Opens once. */
export class Gate {
  readonly opened: Promise<void>;
  open: () => void = () => undefined;

  constructor() {
    this.opened = new Promise((resolve) => {
      this.open = resolve;
    });
  }
}

/** Values that change, and those who wait for them: no test sleeps. */
class Changes {
  private waiting: { readonly holds: () => boolean; readonly resolve: () => void }[] = [];

  until(holds: () => boolean): Promise<void> {
    if (holds()) return Promise.resolve();
    return new Promise((resolve) => this.waiting.push({ holds, resolve }));
  }

  notify(): void {
    const due = this.waiting.filter(({ holds }) => holds());
    this.waiting = this.waiting.filter((waiter) => !due.includes(waiter));
    for (const { resolve } of due) resolve();
  }
}

export class ScriptedModel {
  readonly chatRequests: ChatRequest[] = [];
  readonly generateRequests: GenerateRequest[] = [];
  readonly transcribeRequests: TranscriptionRequest[] = [];
  /** Generations under way, and the most there were at once. */
  running = 0;
  mostRunning = 0;
  /** Generations that were left before their script's end. */
  cancelled = 0;
  /** Steps that were taken, over all generations. */
  played = 0;
  /** Leases not yet given back. */
  held = 0;
  readonly served: ServedModel;

  constructor(
    readonly options: ScriptedModelOptions,
    private readonly changes: Changes,
    handle: number,
  ) {
    const info = loadedModel(options, handle);
    const engine = new ScriptedEngine(
      (request, signal) => {
        this.generateRequests.push(request);
        return this.play(options.generate?.(request) ?? [], signal);
      },
      (request, signal) => {
        this.transcribeRequests.push(request);
        return this.play(options.transcribe?.(request) ?? [], signal);
      },
    );
    this.served = {
      id: options.id,
      info,
      ...(options.defaultSeed === undefined ? {} : { defaultSeed: options.defaultSeed }),
      engine,
      chat: {
        chat: (request, signal) => {
          this.chatRequests.push(request);
          return this.play(options.chat?.(request) ?? [], signal);
        },
      },
      applyChatTemplate: async ({ messages, tools = [] }) =>
        [...messages.map(({ content }) => JSON.stringify(content)), ...tools.map(({ name }) => name)].join(' '),
    };
  }

  hold(): ModelLease {
    this.held++;
    return {
      model: this.served,
      [Symbol.dispose]: () => {
        this.held--;
        this.changes.notify();
      },
    };
  }

  private async *play<Event extends object>(steps: Iterable<Step<Event>>, signal?: AbortSignal): AsyncGenerator<Event> {
    this.running++;
    this.mostRunning = Math.max(this.mostRunning, this.running);
    this.changes.notify();
    let complete = false;
    try {
      for (const step of steps) {
        if (signal?.aborted === true) throw new EngineError('cancelled', 'the generation was cancelled');
        if ('wait' in step) await untilAborted(step.wait, signal);
        else if ('fail' in step) throw step.fail;
        else {
          this.played++;
          this.changes.notify();
          yield step;
        }
      }
      complete = true;
    } finally {
      this.running--;
      if (!complete) this.cancelled++;
      this.changes.notify();
    }
  }
}

export class ScriptedRegistry implements ModelRegistry {
  readonly models: readonly ScriptedModel[];
  /** Ids in the order they were asked for. */
  readonly asked: (string | undefined)[] = [];
  /** Loads that nobody waits for any more. */
  loadsAbandoned = 0;
  private readonly changes = new Changes();

  /** @param pinned what a request without a model gets */
  constructor(
    models: readonly ScriptedModelOptions[],
    private readonly pinned?: string,
  ) {
    this.models = models.map((options, index) => new ScriptedModel(options, this.changes, index + 1));
  }

  get first(): ScriptedModel {
    return this.models[0]!;
  }

  /** Resolves when the condition holds; it is looked at after everything that happens here. */
  until(holds: () => boolean): Promise<void> {
    return this.changes.until(holds);
  }

  async acquire(
    id: string | undefined,
    options?: { readonly signal?: AbortSignal; readonly onProgress?: (progress: LoadProgress) => void },
  ): Promise<ModelLease> {
    this.asked.push(id);
    this.changes.notify();
    const model = this.models.find((candidate) => candidate.options.id === (id ?? this.pinned));
    if (model === undefined) throw new EngineError('model_not_found', `no such model: ${id ?? 'none was named'}`);
    for (const progress of model.options.progress ?? []) options?.onProgress?.(progress);
    try {
      await untilAborted(model.options.load ?? Promise.resolve(), options?.signal);
    } catch (error) {
      if (options?.signal?.aborted === true) this.loadsAbandoned++;
      this.changes.notify();
      throw error;
    }
    return model.hold();
  }

  async list(): Promise<ListedModel[]> {
    return this.models.map(({ options }) => ({
      id: options.id,
      created: 1_700_000_000,
      ownedBy: options.id.split('/')[0] ?? '',
      state: options.state ?? 'ready',
      ...(options.contextLength === undefined ? {} : { contextLength: options.contextLength }),
    }));
  }

  async find(id: string): Promise<ListedModel | undefined> {
    return (await this.list()).find((model) => model.id === id);
  }

  loaded(): ModelStatus[] {
    return this.models.map(({ served: { info, engine }, held }) => ({
      info,
      stats: engine.stats(info.handle),
      leases: held,
    }));
  }

  async unloadIdle(): Promise<string[]> {
    return this.models.filter(({ held }) => held === 0).map(({ options }) => options.id);
  }

  async close(): Promise<void> {
    // Nothing is held open.
  }
}

class ScriptedEngine implements Engine {
  constructor(
    private readonly play: (request: GenerateRequest, signal?: AbortSignal) => AsyncGenerator<GenerationEvent>,
    private readonly hear: (request: TranscriptionRequest, signal?: AbortSignal) => AsyncGenerator<TranscriptionEvent>,
  ) {}

  transcribe(request: TranscriptionRequest, signal?: AbortSignal): Transcription {
    const events = this.hear(request, signal);
    return { [Symbol.asyncIterator]: () => events, cancel: () => void events.return(undefined) };
  }

  generate(request: GenerateRequest, signal?: AbortSignal): Generation {
    const events = this.play(request, signal);
    return { [Symbol.asyncIterator]: () => events, cancel: () => void events.return(undefined) };
  }

  async detokenize(_handle: number, ids: readonly number[]): Promise<string> {
    return ids.map((id) => `<${id}>`).join('');
  }

  /** One id per word. */
  async tokenize(_handle: number, text: string): Promise<number[]> {
    return (text.match(/\S+/g) ?? []).map((_word, index) => index);
  }

  load = unexpected;
  unload = unexpected;
  listCached = unexpected;
  measureMachine = unexpected;
  stats = () => ({ running: 0, waiting: 0, freeBlocks: 0, totalBlocks: 0, draftedTokens: 0, acceptedTokens: 0 });
  close = unexpected;
}

function unexpected(): Promise<never> {
  return Promise.reject(new Error('the HTTP layer has no business here'));
}

async function untilAborted(promise: Promise<unknown>, signal?: AbortSignal): Promise<unknown> {
  if (signal === undefined) return promise;
  let fail = (): void => undefined;
  const aborted = new Promise<never>((_resolve, reject) => {
    fail = () => reject(new EngineError('cancelled', 'the request was cancelled'));
    if (signal.aborted) fail();
    else signal.addEventListener('abort', fail, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', fail);
  }
}

function loadedModel(options: ScriptedModelOptions, handle: number): LoadedModel {
  return {
    handle,
    id: options.id,
    kind: options.transcribe === undefined ? 'text' : 'speech',
    family: 'llama',
    weightFormat: 'f32',
    parameters: 1,
    weightBytes: 4,
    bytesPerToken: 4,
    vocabSize: 100,
    contextLength: options.contextLength ?? 512,
    maxModelLen: options.contextLength ?? 512,
    maxNumSeqs: options.maxNumSeqs ?? 16,
    maxBatchTokens: 512,
    kvBytes: 0,
    kvBlocks: 0,
    blockSize: 16,
    device: 'cpu',
    dtype: 'f32',
    cpuLevel: 'scalar',
    threads: 1,
    loadSeconds: 0,
    warnings: [],
    specialTokens: {},
    endTokenIds: [],
  };
}
