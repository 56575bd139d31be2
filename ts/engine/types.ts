/** The engine as the rest of the TypeScript sees it: prompt text, token ids or audio in, events out. */

import type { Transcription, TranscriptionRequest } from './speech.js';

export type Device = 'auto' | 'cpu' | 'cuda' | 'metal';
export type Dtype = 'auto' | 'f32' | 'f16' | 'bf16';
export const QUANTIZATIONS = ['q8_0', 'q4_0', 'q4_k'] as const;
export type Quantization = (typeof QUANTIZATIONS)[number];
export const KV_CACHE_TYPES = ['f16', 'q8_0'] as const;
export type KvCacheType = (typeof KV_CACHE_TYPES)[number];

export interface LoadOptions {
  /** A local folder, a local .gguf or ggml .bin, `repo`, `repo@revision` or `repo:FILE`. */
  readonly model: string;
  /** `model` names a model of the hub even where a local path of that name exists. @default false */
  readonly hubOnly?: boolean;
  /** @default 'auto' */
  readonly device?: Device;
  /** 'auto' on the CPU: weights as they are stored; 'f32' there is exact and slower. @default 'auto' */
  readonly dtype?: Dtype;
  /**
   * Quantises weights in bf16, f16 and f32 at load, on the CPU; not together with `dtype`. What is quantised already, norms
   * and biases stay as they are. Unset: the weights are used as they are stored.
   */
  readonly quantization?: Quantization;
  /** Longest sequence in tokens. Default: the model's own, cut to what memory holds. */
  readonly maxModelLen?: number;
  /** Sequences that run at once. @default 16 */
  readonly maxNumSeqs?: number;
  /** Requests that may wait beyond those that run; more is `queue_full`. @default 64 */
  readonly maxQueue?: number;
  /** Tokens computed per step, over all sequences. @default 512 */
  readonly maxBatchTokens?: number;
  /** Bytes for the KV cache. Default: from free memory and what maxNumSeqs × context could use. */
  readonly kvCacheMemory?: number;
  /**
   * How packed weights on the CPU keep keys and values: 'q8_0' takes little more than half the memory, so that deep contexts
   * are read faster, and loses a little accuracy. Refused where they are kept otherwise. @default 'f16'
   */
  readonly kvCacheType?: KvCacheType;
  /** Compute threads. Default: from quota and affinity. */
  readonly threads?: number;
  /** Reuse cached prefixes. @default true */
  readonly prefixCache?: boolean;
  /** Draft tokens where steps have rows to spare; answers stay the same. @default true */
  readonly speculation?: boolean;
  /** Never fetch from the hub. @default false */
  readonly noDownload?: boolean;
  /** Seed of requests that bring none. Unset: a fresh one each. */
  readonly defaultSeed?: number;
}

/** A complete, loadable model of the Hugging Face cache. */
export interface CachedModel {
  /** `repo`, `repo@revision` or `repo:FILE`. */
  readonly id: string;
  readonly path: string;
  readonly bytes: number;
  /** Unix seconds. */
  readonly modified: number;
}

export type LoadProgress =
  | { readonly stage: 'resolve' }
  /** Bytes over all files of the download. */
  | { readonly stage: 'download'; readonly file: string; readonly done: number; readonly total: number }
  /** Share of the weights read, 0..1. */
  | { readonly stage: 'weights'; readonly done: number; readonly total: number };

/** What was loaded, for printing and for the layers above. Sizes in bytes, lengths in tokens. */
export interface LoadedModel {
  /** Handle for the other calls; unique per load. */
  readonly handle: number;
  /** Canonical name: repo, repo@revision, repo:FILE or a base name. */
  readonly id: string;
  /** What it answers: chats and completions, or transcriptions. */
  readonly kind: 'text' | 'speech';
  readonly family: string;
  /** Of a speech model: what it hears, as ISO codes; empty where it knows English only. */
  readonly languages?: readonly string[];
  /** "Q4_1 + Q8_0 (GGUF)", "BF16 (safetensors)", "BF16 (safetensors) as Q4_K x210 + Q8_0". */
  readonly weightFormat: string;
  readonly parameters: number;
  readonly weightBytes: number;
  /** Bytes of weights that one token of an answer reads. */
  readonly bytesPerToken: number;
  /** 8-bit multiplications and additions of one token of a prompt, where it is computed in them. */
  readonly operationsPerPromptToken?: number;
  /** What a token of an answer took when the load measured it, at a context of a few positions. */
  readonly answerTokenSeconds?: number;
  /** The same for one of the 128 tokens in a chunk of a prompt. */
  readonly promptTokenSeconds?: number;
  readonly vocabSize: number;
  /** What the model was made for. */
  readonly contextLength: number;
  /** What is served. */
  readonly maxModelLen: number;
  readonly maxNumSeqs: number;
  readonly maxBatchTokens: number;
  readonly kvBytes: number;
  /** Of a text model, how keys and values are kept: "f16", "q8_0", "q8_0, f16 in 5 of 24 layers". */
  readonly kvCacheType?: string;
  readonly kvBlocks: number;
  readonly blockSize: number;
  readonly device: string;
  /** "packed": weights as they are stored, with integer activations; or the tensors' type. */
  readonly dtype: string;
  /** The CPU kernels' instruction set, or "candle". */
  readonly cpuLevel: string;
  readonly threads: number;
  readonly loadSeconds: number;
  /** Things the operator should read: "no CUDA driver: using the CPU", "context cut from 131072 to 8192". */
  readonly warnings: readonly string[];
  /** The chat template's source, if the model has one; named ones (tool_use, …) by name. */
  readonly chatTemplate?: string;
  readonly chatTemplates?: Readonly<Record<string, string>>;
  /** bos_token, eos_token, pad_token, unk_token and others that templates may name. */
  readonly specialTokens: Readonly<Record<string, string>>;
  readonly endTokenIds: readonly number[];
  /** The checkpoint's generation_config.json, as it is. */
  readonly generationConfig?: Readonly<Record<string, unknown>>;
}

export interface SamplingOptions {
  /** 0 is greedy. Unset: the model's generation_config.json, else greedy. */
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly minP?: number;
  /** Keep what is typically surprising until its probability reaches this; 1 keeps all. */
  readonly typicalP?: number;
  /** Keep tokens of at least this probability; 0 keeps all. */
  readonly epsilonCutoff?: number;
  /** As epsilonCutoff, but lower where the distribution is flat. */
  readonly etaCutoff?: number;
  /** Over prompt and answer; 1 is none. */
  readonly repetitionPenalty?: number;
  /** Over the answer; 0 is none. */
  readonly presencePenalty?: number;
  /** Over the answer, times how often; 0 is none. */
  readonly frequencyPenalty?: number;
  /** What is added to the logits of tokens, by id. Replaces the checkpoint's sequence_bias. */
  readonly logitBias?: Readonly<Record<number, number>>;
  /** No run of this many tokens comes twice in prompt and answer; 0 is no limit. */
  readonly noRepeatNgramSize?: number;
  /** Runs of tokens that must not come. */
  readonly badWords?: readonly (readonly number[])[];
  readonly suppressTokens?: readonly number[];
  /** Not as the answer's first token. */
  readonly beginSuppressTokens?: readonly number[];
  /** Tokens of the answer before it may end. */
  readonly minTokens?: number;
  /** The same seed, request and build give the same answer, whatever else runs. */
  readonly seed?: number;
}

/** What generated text must match. */
export type Grammar =
  | { readonly type: 'json_object' }
  | { readonly type: 'json_schema'; readonly schema: Readonly<Record<string, unknown>> | boolean }
  | { readonly type: 'regex'; readonly pattern: string }
  | { readonly type: 'choice'; readonly choices: readonly string[] }
  /** llguidance's Lark dialect: `<|special|>` names special tokens, `%json {…}` embeds a schema. */
  | { readonly type: 'lark'; readonly grammar: string };

/**
 * A grammar that the answer matches. It ends where nothing can follow; the model may end it where it is complete. By a
 * schema JSON is written on one line, its properties in the schema's order. Where the grammar leaves only tokens that other
 * options forbid, they are allowed.
 */
export interface Constraint {
  readonly grammar: Grammar;
  /**
   * The answer is free until one of these tokens or texts has come; what follows it matches the grammar until that is
   * complete, then the answer is free again until the next. A special token is never part of a text.
   */
  readonly trigger?: { readonly tokenIds?: readonly number[]; readonly texts?: readonly string[] };
}

export interface GenerateRequest {
  /** Handle of a loaded model. */
  readonly model: number;
  readonly prompt: { readonly text: string; readonly addSpecialTokens: boolean } | { readonly ids: readonly number[] };
  /** Unset: the rest of the context. */
  readonly maxTokens?: number;
  readonly stop?: readonly string[];
  /** Tokens that end the answer as the model's own end tokens do; they are marks, not text. Up to 256. */
  readonly stopTokenIds?: readonly number[];
  /** The model's own end tokens do not end the answer. */
  readonly ignoreEos?: boolean;
  readonly sampling?: SamplingOptions;
  /** What the answer must match: from its beginning, or from a trigger on. */
  readonly constraint?: Constraint;
  /** Number of alternatives (0..20) to report for each generated token; unset: no log-probabilities. */
  readonly logprobs?: number;
  /** The same for the prompt's tokens. */
  readonly promptLogprobs?: number;
  /** Prefix blocks are shared only between equal salts. */
  readonly cacheSalt?: string;
}

export interface TokenInfo {
  readonly id: number;
  /** The token's own text; U+FFFD where it is part of a character. */
  readonly text: string;
  /** The token's bytes. */
  readonly bytes: readonly number[];
  /** Natural logarithm under the model's own distribution, before penalties, constraints and filters; absent for the first prompt token. */
  readonly logprob?: number;
  /** Best first. */
  readonly top?: readonly {
    readonly id: number;
    readonly text: string;
    readonly bytes: readonly number[];
    readonly logprob: number;
  }[];
}

/** A run of text, or one special token: a mark with its id, never guessed from text. */
export type TextPiece = { readonly text: string; readonly special?: number };

export type FinishReason = 'stop' | 'length';

export interface Usage {
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly completionTokens: number;
}

/** Seconds. */
export interface Timings {
  readonly queued: number;
  readonly prefill: number;
  readonly decode: number;
}

export type GenerationEvent =
  | { readonly type: 'started'; readonly promptTokens: number; readonly cachedTokens: number }
  | { readonly type: 'prefill'; readonly computed: number }
  /** The prompt's tokens with their log-probabilities, from the first on; may come in parts. */
  | { readonly type: 'prompt'; readonly tokens: readonly TokenInfo[] }
  /** Whole characters only; `tokens` only if log-probabilities were asked for. `nTokens` were generated for this delta. */
  | {
      readonly type: 'delta';
      readonly pieces: readonly TextPiece[];
      readonly tokens?: readonly TokenInfo[];
      readonly nTokens: number;
    }
  | {
      readonly type: 'finished';
      readonly reason: FinishReason;
      readonly stopString?: string;
      readonly usage: Usage;
      readonly timings: Timings;
    };

/** One generation. Iterate it once; leaving the loop cancels it. Failures are thrown as EngineError. */
export interface Generation extends AsyncIterable<GenerationEvent> {
  cancel(): void;
}

export interface ModelStats {
  readonly running: number;
  readonly waiting: number;
  readonly freeBlocks: number;
  readonly totalBlocks: number;
  /** Tokens drafted and verified since the load, and those of them that are in answers. */
  readonly draftedTokens: number;
  readonly acceptedTokens: number;
}

/** What the CPU can do. Sizes in bytes, speeds per second. */
export interface MachineReport {
  readonly processor: string;
  /** Cores of the machine. */
  readonly cores: number;
  /** Those that affinity and quota leave to this process: the default number of compute threads. */
  readonly threads: number;
  /** CPU time that the container may use, in cores; unset without a limit. */
  readonly quota?: number;
  /** The instruction set that kernels use. */
  readonly level: string;
  /** All that the machine has, slowest first. */
  readonly levels: readonly string[];
  /** Bytes read from memory by all threads. */
  readonly bandwidth: number;
  /** 8-bit multiplications and additions of all threads, each counted as one. */
  readonly integerPeak: number;
  readonly memory: number;
  readonly freeMemory: number;
}

export interface Engine {
  load(options: LoadOptions, onProgress?: (progress: LoadProgress) => void, signal?: AbortSignal): Promise<LoadedModel>;
  unload(handle: number): Promise<void>;
  /** Of a model of kind `text`. */
  generate(request: GenerateRequest, signal?: AbortSignal): Generation;
  /** By a model of kind `speech`. */
  transcribe(request: TranscriptionRequest, signal?: AbortSignal): Transcription;
  tokenize(handle: number, text: string, addSpecialTokens: boolean): Promise<number[]>;
  detokenize(handle: number, ids: readonly number[], skipSpecialTokens: boolean): Promise<string>;
  stats(handle: number): ModelStats;
  /** The models of the Hugging Face cache that could be loaded. */
  listCached(): Promise<readonly CachedModel[]>;
  /** Measures the CPU for about a second. */
  measureMachine(): Promise<MachineReport>;
  /** Cancels what runs, frees everything; later calls fail with `closed`. */
  close(): Promise<void>;
}

/** Local error codes; never sent as they are (ts/http maps them by one table). */
export type EngineErrorCode =
  | 'model_not_found'
  | 'model_unsupported'
  | 'model_broken'
  | 'model_too_large'
  | 'gated'
  | 'hub_unreachable'
  | 'disk_full'
  | 'device_unavailable'
  | 'invalid_request'
  /** The audio cannot be read. */
  | 'invalid_audio'
  | 'context_length_exceeded'
  | 'queue_full'
  | 'cancelled'
  | 'timeout'
  | 'template_error'
  | 'closed'
  | 'internal';

export interface EngineErrorOptions extends ErrorOptions {
  readonly retryAfter?: number;
}

export class EngineError extends Error {
  override readonly name = 'EngineError';
  readonly code: EngineErrorCode;
  /** The request's field the error is about, in the engine's names. */
  readonly param: string | undefined;
  /** Seconds after which the same call may succeed (`queue_full`). */
  readonly retryAfter: number | undefined;

  constructor(code: EngineErrorCode, message: string, param?: string, options?: EngineErrorOptions) {
    super(message, options);
    this.code = code;
    this.param = param;
    this.retryAfter = options?.retryAfter;
  }
}
