/** The native engine behind the `Engine` interface: plain data across the border, one message per engine step. */

import type {
  BindingCachedModel,
  BindingConstraint,
  BindingError,
  BindingEvent,
  BindingLoadedModel,
  BindingLoadProgress,
  BindingMachineReport,
  BindingSampling,
  BindingToken,
  NativeEngine,
} from '../../index.js';
import { loadAddon } from './addon.js';
import { GenerationQueue } from './generation.js';
import {
  EngineError,
  type CachedModel,
  type Constraint,
  type Engine,
  type EngineErrorCode,
  type FinishReason,
  type GenerateRequest,
  type Generation,
  type GenerationEvent,
  type LoadedModel,
  type LoadOptions,
  type LoadProgress,
  type MachineReport,
  type ModelStats,
  type SamplingOptions,
  type TokenInfo,
} from './types.js';

/** Tokens a generation may run ahead of its reader. */
const CREDIT = 256;

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
      onCancel: () => {
        native.cancel(id);
        this.#forget(id);
      },
      ...(signal === undefined ? {} : { signal }),
    });
    if (signal?.aborted === true) return queue;
    this.#generations.set(id, queue);
    this.#keepAlive ??= setInterval(() => undefined, 1 << 30);
    void native.generate(id, request.model, toBinding(request)).then(
      (reply) => {
        if (isError(reply)) this.#fail(id, toError(reply));
      },
      (error: unknown) => {
        this.#fail(id, new EngineError('internal', 'the native call failed', undefined, { cause: error }));
      },
    );
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
    for (const id of [...this.#generations.keys()]) {
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

  /** One message per step: sort its events by generation, hand each its share. */
  #dispatch(events: readonly BindingEvent[]): void {
    let start = 0;
    while (start < events.length) {
      const id = events[start]?.id ?? 0;
      let end = start + 1;
      while (end < events.length && events[end]?.id === id) end++;
      this.#deliver(id, events.slice(start, end));
      start = end;
    }
  }

  #deliver(id: number, events: readonly BindingEvent[]): void {
    const queue = this.#generations.get(id);
    if (queue === undefined) return;
    const out: GenerationEvent[] = [];
    for (const event of events) {
      if (event.type === 'failed') {
        queue.push(out);
        this.#fail(id, new EngineError(toCode(event.code), event.message ?? 'the generation failed'));
        return;
      }
      if (event.type === 'finished' && event.reason === 'aborted') {
        queue.push(out);
        this.#fail(id, new EngineError('cancelled', 'the generation was cancelled'));
        return;
      }
      out.push(toEvent(event));
    }
    const ended = out.at(-1)?.type === 'finished';
    queue.push(out);
    if (ended) this.#forget(id);
  }

  #fail(id: number, error: EngineError): void {
    const queue = this.#generations.get(id);
    this.#forget(id);
    queue?.fail(error);
  }

  #forget(id: number): void {
    this.#generations.delete(id);
    if (this.#generations.size === 0) {
      clearInterval(this.#keepAlive);
      this.#keepAlive = undefined;
    }
  }
}

function toBinding(request: GenerateRequest): Parameters<NativeEngine['generate']>[2] {
  const { prompt, sampling, constraint, stop, stopTokenIds } = request;
  return {
    ...('ids' in prompt ? { ids: [...prompt.ids] } : { text: prompt.text, addSpecialTokens: prompt.addSpecialTokens }),
    maxTokens: request.maxTokens,
    stop: stop === undefined ? undefined : [...stop],
    stopTokenIds: stopTokenIds === undefined ? undefined : [...stopTokenIds],
    ignoreEos: request.ignoreEos,
    sampling: sampling === undefined ? undefined : toBindingSampling(sampling),
    constraint: constraint === undefined ? undefined : toBindingConstraint(constraint),
    logprobs: request.logprobs,
    promptLogprobs: request.promptLogprobs,
    cacheSalt: request.cacheSalt,
    credit: CREDIT,
  };
}

function toBindingSampling(sampling: SamplingOptions): BindingSampling {
  const { logitBias, badWords, suppressTokens, beginSuppressTokens, ...rest } = sampling;
  return {
    ...rest,
    logitBias:
      logitBias === undefined
        ? undefined
        : Object.entries(logitBias).map(([token, bias]) => ({ token: Number(token), bias })),
    badWords: badWords?.map((run) => [...run]),
    suppressTokens: suppressTokens === undefined ? undefined : [...suppressTokens],
    beginSuppressTokens: beginSuppressTokens === undefined ? undefined : [...beginSuppressTokens],
  };
}

function toBindingConstraint({ grammar, trigger }: Constraint): BindingConstraint {
  const triggers =
    trigger === undefined
      ? {}
      : { triggerTokenIds: [...(trigger.tokenIds ?? [])], triggerTexts: [...(trigger.texts ?? [])] };
  switch (grammar.type) {
    case 'json_object':
      return { type: grammar.type, ...triggers };
    case 'json_schema':
      // As text: the order of its properties is the order in which they are written.
      return { type: grammar.type, text: JSON.stringify(grammar.schema), ...triggers };
    case 'regex':
      return { type: grammar.type, text: grammar.pattern, ...triggers };
    case 'choice':
      return { type: grammar.type, choices: [...grammar.choices], ...triggers };
    case 'lark':
      return { type: grammar.type, text: grammar.grammar, ...triggers };
  }
}

function toEvent(event: BindingEvent): GenerationEvent {
  switch (event.type) {
    case 'started':
      return { type: 'started', promptTokens: event.promptTokens ?? 0, cachedTokens: event.cachedTokens ?? 0 };
    case 'prefill':
      return { type: 'prefill', computed: event.computed ?? 0 };
    case 'prompt':
      return { type: 'prompt', tokens: (event.tokens ?? []).map(toToken) };
    case 'delta': {
      const delta = { type: 'delta', pieces: event.pieces ?? [], nTokens: event.nTokens ?? 0 } as const;
      return event.tokens === undefined ? delta : { ...delta, tokens: event.tokens.map(toToken) };
    }
    case 'finished': {
      const finished = {
        type: 'finished',
        reason: event.reason as FinishReason,
        usage: {
          promptTokens: event.promptTokens ?? 0,
          cachedTokens: event.cachedTokens ?? 0,
          completionTokens: event.completionTokens ?? 0,
        },
        timings: {
          queued: event.queuedSeconds ?? 0,
          prefill: event.prefillSeconds ?? 0,
          decode: event.decodeSeconds ?? 0,
        },
      } as const;
      return event.stopString === undefined ? finished : { ...finished, stopString: event.stopString };
    }
    case 'failed':
      throw new EngineError(toCode(event.code), event.message ?? 'the generation failed');
  }
}

function toToken(token: BindingToken): TokenInfo {
  return token;
}

function toProgress(progress: BindingLoadProgress): LoadProgress {
  if (progress.stage === 'resolve') return { stage: 'resolve' };
  const { done, total } = progress;
  return progress.stage === 'download'
    ? { stage: 'download', file: progress.file ?? '', done, total }
    : { stage: 'weights', done, total };
}

function toLoadedModel(model: BindingLoadedModel): LoadedModel {
  const { chatTemplate, chatTemplates, generationConfig, ...rest } = model;
  return {
    ...rest,
    ...(chatTemplate === undefined ? {} : { chatTemplate }),
    ...(chatTemplates.length === 0
      ? {}
      : { chatTemplates: Object.fromEntries(chatTemplates.map(({ name, text }) => [name, text])) }),
    ...(generationConfig === undefined
      ? {}
      : { generationConfig: JSON.parse(generationConfig) as Record<string, unknown> }),
  };
}

function isError(reply: unknown): reply is BindingError {
  return typeof reply === 'object' && reply !== null && 'code' in reply && 'message' in reply;
}

function unwrap<T>(reply: T | BindingError): T {
  if (isError(reply)) throw toError(reply);
  return reply;
}

function toError(error: BindingError): EngineError {
  const { code, message, param, retryAfter } = error;
  return new EngineError(toCode(code), message, param, retryAfter === undefined ? {} : { retryAfter });
}

const CODES: ReadonlySet<string> = new Set<EngineErrorCode>([
  'model_not_found',
  'model_unsupported',
  'model_broken',
  'model_too_large',
  'gated',
  'hub_unreachable',
  'disk_full',
  'device_unavailable',
  'invalid_request',
  'context_length_exceeded',
  'queue_full',
  'cancelled',
  'timeout',
  'template_error',
  'closed',
  'internal',
]);

function toCode(code: string | undefined): EngineErrorCode {
  if (code === 'client_stalled') return 'timeout';
  // Nothing is left to choose, or a grammar has become too complex: the request asked for it.
  if (code === 'nothing_left' || code === 'constraint_failed') return 'invalid_request';
  return code !== undefined && CODES.has(code) ? (code as EngineErrorCode) : 'internal';
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) {
    throw new EngineError('cancelled', 'the load was cancelled', undefined, { cause: signal.reason });
  }
}
