/** An `Engine` whose answers are written by the test: no addon, no weights, and nothing happens by the clock. */

import { GenerationQueue } from '../../ts/engine/generation.js';
import type { Transcription, TranscriptionEvent, TranscriptionRequest } from '../../ts/engine/speech.js';
import { TranscriptionQueue } from '../../ts/engine/transcription.js';
import { segment } from './scripted-events.js';
import {
  EngineError,
  type CachedModel,
  type Engine,
  type GenerateRequest,
  type Generation,
  type GenerationEvent,
  type LoadedModel,
  type LoadOptions,
  type LoadProgress,
  type MachineReport,
  type ModelStats,
} from '../../ts/engine/types.js';

/** Batches of events for one request, as the engine would send them step by step. May throw EngineError. */
export type Script = (
  request: GenerateRequest,
) => Iterable<readonly GenerationEvent[]> | AsyncIterable<readonly GenerationEvent[]>;

/** The same for a transcription. */
export type SpeechScript = (
  request: TranscriptionRequest,
) => Iterable<readonly TranscriptionEvent[]> | AsyncIterable<readonly TranscriptionEvent[]>;

export interface ScriptedEngineOptions {
  /** Default: every request is answered with `say('Hello there!')`. */
  readonly script?: Script;
  /** Default: every recording says 'Hello there!'. */
  readonly speech?: SpeechScript;
  /** Called by `load` before it answers; may throw EngineError, or wait (for a promise the test holds). */
  readonly onLoad?: (
    options: LoadOptions,
    onProgress: (progress: LoadProgress) => void,
    signal?: AbortSignal,
  ) => void | Promise<void>;
  /** What a load answers, beside the handle. */
  readonly model?: Partial<LoadedModel> | ((options: LoadOptions) => Partial<LoadedModel>);
  readonly cached?: readonly CachedModel[];
  /** What a measurement answers. */
  readonly machine?: Partial<MachineReport>;
  /** Tokens ahead of the reader. */
  readonly credit?: number;
}

/** `<|im_start|>`-style template that shows every role, and asks for nothing but text. */
export const CHATML =
  "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

export const END_TOKEN = 2;

/** The steps of an answer: one token per word (with the space before it), one step per token, then the end. */
export function* say(
  text: string,
  options: {
    readonly promptTokens?: number;
    readonly cachedTokens?: number;
    readonly reason?: 'stop' | 'length';
    readonly request?: GenerateRequest;
  } = {},
): Generator<readonly GenerationEvent[], void> {
  const { promptTokens = 5, cachedTokens = 0, reason = 'stop', request } = options;
  yield [{ type: 'started', promptTokens, cachedTokens }];
  const words = (text.match(/\s*\S+\s*$|\s*\S+/g) ?? []).slice(0, request?.maxTokens ?? Number.POSITIVE_INFINITY);
  for (const [index, word] of words.entries()) {
    const token = { id: 100 + index, text: word, bytes: [...Buffer.from(word)] };
    const tokens =
      request?.logprobs === undefined
        ? undefined
        : [{ ...token, logprob: -0.5, top: [{ ...token, logprob: -0.5 }].slice(0, request.logprobs) }];
    yield [{ type: 'delta', pieces: [{ text: word }], nTokens: 1, ...(tokens === undefined ? {} : { tokens }) }];
  }
  const cut = request?.maxTokens !== undefined && words.length >= request.maxTokens;
  yield [
    {
      type: 'finished',
      reason: cut ? 'length' : reason,
      usage: { promptTokens, cachedTokens, completionTokens: words.length },
      timings: { queued: 0.001, prefill: 0.01, decode: 0.1 },
    },
  ];
}

/** The steps of a transcription: a segment of two seconds for each text, each with the space before it. */
export function* hear(texts: readonly string[]): Generator<readonly TranscriptionEvent[], void> {
  const duration = texts.length * 2;
  yield [{ type: 'started', duration }];
  yield [{ type: 'language', code: 'en', name: 'english', probability: 0.9 }];
  for (const [index, text] of texts.entries()) {
    yield [
      { type: 'segment', segment: segment(index, ` ${text}`) },
      { type: 'progress', seconds: (index + 1) * 2 },
    ];
  }
  yield [{ type: 'finished', usage: { audioTokens: duration * 50, textTokens: texts.length * 3 } }];
}

export class ScriptedEngine implements Engine {
  readonly requests: GenerateRequest[] = [];
  readonly transcriptions: TranscriptionRequest[] = [];
  readonly loads: LoadOptions[] = [];
  readonly unloaded: number[] = [];
  /** Generations that were cancelled before their end. */
  cancelled = 0;
  /** Generations whose script has not ended. */
  running = 0;
  closed = false;
  #nextHandle = 1;

  constructor(private readonly options: ScriptedEngineOptions = {}) {}

  async load(
    options: LoadOptions,
    onProgress?: (progress: LoadProgress) => void,
    signal?: AbortSignal,
  ): Promise<LoadedModel> {
    this.loads.push(options);
    await this.options.onLoad?.(options, (progress) => onProgress?.(progress), signal);
    if (signal?.aborted === true) throw new EngineError('cancelled', 'the load was cancelled');
    const { model } = this.options;
    const facts = typeof model === 'function' ? model(options) : model;
    return scriptedModel({ id: options.model, ...facts, handle: this.#nextHandle++ });
  }

  async unload(handle: number): Promise<void> {
    this.unloaded.push(handle);
  }

  generate(request: GenerateRequest, signal?: AbortSignal): Generation {
    this.requests.push(request);
    const credit = this.options.credit ?? 64;
    const state = { credit, cancelled: false, wake: (): void => undefined };
    const queue = new GenerationQueue({
      credit,
      onGrant: (tokens) => {
        state.credit += tokens;
        state.wake();
      },
      onCancel: () => {
        this.cancelled += 1;
        state.cancelled = true;
        state.wake();
      },
      ...(signal === undefined ? {} : { signal }),
    });
    if (signal?.aborted !== true) void this.#run(request, queue, state);
    return queue;
  }

  async #run(
    request: GenerateRequest,
    queue: GenerationQueue,
    state: { credit: number; cancelled: boolean; wake: () => void },
  ): Promise<void> {
    this.running += 1;
    try {
      const script = this.options.script ?? ((asked) => say('Hello there!', { request: asked }));
      for await (const events of script(request)) {
        while (state.credit <= 0 && !state.cancelled) await new Promise<void>((resolve) => (state.wake = resolve));
        if (state.cancelled) return;
        for (const event of events) if (event.type === 'delta') state.credit -= event.nTokens;
        queue.push(events);
        // The engine's messages come from another thread: each in a turn of its own.
        await new Promise((resolve) => setImmediate(resolve));
      }
    } catch (error) {
      queue.fail(error instanceof EngineError ? error : new EngineError('internal', String(error)));
    } finally {
      this.running -= 1;
    }
  }

  transcribe(request: TranscriptionRequest, signal?: AbortSignal): Transcription {
    this.transcriptions.push(request);
    const state = { cancelled: false };
    const queue = new TranscriptionQueue({
      onCancel: () => {
        this.cancelled += 1;
        state.cancelled = true;
      },
      ...(signal === undefined ? {} : { signal }),
    });
    if (signal?.aborted !== true) void this.#hear(request, queue, state);
    return queue;
  }

  async #hear(
    request: TranscriptionRequest,
    queue: TranscriptionQueue,
    state: { readonly cancelled: boolean },
  ): Promise<void> {
    this.running += 1;
    try {
      const script = this.options.speech ?? (() => hear(['Hello there!']));
      for await (const events of script(request)) {
        if (state.cancelled) return;
        queue.push(events);
        await new Promise((resolve) => setImmediate(resolve));
      }
    } catch (error) {
      queue.fail(error instanceof EngineError ? error : new EngineError('internal', String(error)));
    } finally {
      this.running -= 1;
    }
  }

  /** One id per UTF-16 unit. */
  async tokenize(_handle: number, text: string, addSpecialTokens: boolean): Promise<number[]> {
    return [...(addSpecialTokens ? [1] : []), ...Array.from({ length: text.length }, (_, i) => text.charCodeAt(i))];
  }

  async detokenize(_handle: number, ids: readonly number[], skipSpecialTokens: boolean): Promise<string> {
    return String.fromCharCode(...ids.filter((id) => !skipSpecialTokens || id > 2));
  }

  stats(): ModelStats {
    const blocks = { freeBlocks: 100, totalBlocks: 100 };
    return { running: this.running, waiting: 0, ...blocks, draftedTokens: 0, acceptedTokens: 0 };
  }

  async listCached(): Promise<readonly CachedModel[]> {
    return this.options.cached ?? [];
  }

  async measureMachine(): Promise<MachineReport> {
    return scriptedMachine(this.options.machine);
  }

  async close(): Promise<void> {
    this.closed = true;
  }
}

/** Two cores of four, with figures that are easy to reckon with. */
export function scriptedMachine(machine: Partial<MachineReport> = {}): MachineReport {
  return {
    processor: 'Scripted CPU',
    cores: 4,
    threads: 2,
    level: 'avx2',
    levels: ['scalar', 'avx2'],
    bandwidth: 40e9,
    integerPeak: 1.5e12,
    memory: 16e9,
    freeMemory: 12e9,
    ...machine,
  };
}

export function scriptedModel(model: Partial<LoadedModel> = {}): LoadedModel {
  return {
    handle: 1,
    id: 'test/model',
    kind: 'text',
    family: 'llama',
    weightFormat: 'f32 (safetensors)',
    parameters: 1000,
    weightBytes: 4000,
    bytesPerToken: 4000,
    vocabSize: 512,
    contextLength: 2048,
    maxModelLen: 1024,
    maxNumSeqs: 16,
    maxBatchTokens: 512,
    kvBytes: 1 << 20,
    kvBlocks: 100,
    blockSize: 16,
    device: 'cpu',
    dtype: 'f32',
    cpuLevel: 'scalar',
    threads: 1,
    loadSeconds: 0.1,
    warnings: [],
    chatTemplate: CHATML,
    specialTokens: { bos_token: '<s>', eos_token: '<|im_end|>' },
    endTokenIds: [END_TOKEN],
    ...model,
  };
}
