/** The embeddable API: a model inside a program. */

import { createLocalModel } from '../chat/local-model.js';
import type {
  ChatMessage,
  ChatRequest,
  FinishReason,
  ResponseFormat,
  ToolCall,
  ToolCallEvent,
  ToolChoice,
  ToolDefinition,
} from '../chat/types.js';
import {
  EngineError,
  type Engine,
  type FinishReason as EngineFinishReason,
  type LoadedModel,
  type LoadOptions,
  type LoadProgress,
  type ModelStats,
  type SamplingOptions,
  type Timings,
  type TokenInfo,
  type Usage,
} from '../engine/types.js';
import { isToolCallEvent, ToolCallFold } from '../chat/tool-call-fold.js';
import { AnswerStream } from './answer-stream.js';
import { requireKind } from './model-kind.js';
import { createRegistry } from './registry.js';
import { transcribe, type TranscribeOptions, type TranscriptStream } from './transcribe.js';
import type { ModelLease, ModelRegistry, ServedModel } from './types.js';

/**
 * What `createEngine` takes: where the model is, how to load it.
 *
 * @example
 * { model: 'HuggingFaceTB/SmolLM2-135M-Instruct', threads: 4, onProgress: (p) => console.log(p.stage) }
 */
export interface CreateEngineOptions extends LoadOptions {
  /** Called while files are found, fetched and read. */
  readonly onProgress?: (progress: LoadProgress) => void;
  /** Aborting stops the load. */
  readonly signal?: AbortSignal;
}

/** What every call that generates may be given. */
export interface GenerationOptions extends SamplingOptions {
  /** Most tokens to generate. Default: the rest of the context. */
  readonly maxTokens?: number;
  /** The answer ends before the first of these texts. */
  readonly stop?: readonly string[];
  /** The answer ends at the first of these tokens, as at the model's own end tokens. */
  readonly stopTokenIds?: readonly number[];
  /** Go on past the model's end token. @default false */
  readonly ignoreEos?: boolean;
  /** Number of alternatives (0..20) to report for each token; unset: no log-probabilities. */
  readonly logprobs?: number;
  /** Prompts share cached prefixes only between equal salts. */
  readonly cacheSalt?: string;
}

/** A conversation to be answered. */
export interface ChatOptions extends GenerationOptions {
  readonly messages: readonly ChatMessage[];
  readonly tools?: readonly ToolDefinition[];
  /** Whether and which tools may or must be called. Default: `auto` if there are tools. */
  readonly toolChoice?: ToolChoice;
  /** The answer may hold more than one call. @default true */
  readonly parallelToolCalls?: boolean;
  /** The form of the whole answer. */
  readonly responseFormat?: ResponseFormat;
  /** Extra variables for the chat template (`enable_thinking`, …). */
  readonly templateVariables?: Readonly<Record<string, unknown>>;
  /** End the prompt with the assistant's turn opened. @default true */
  readonly addGenerationPrompt?: boolean;
  /** The last message, an assistant's, is continued. @default false */
  readonly continueFinalMessage?: boolean;
}

/** A text to be continued. */
export interface CompletionOptions extends GenerationOptions {
  /** Text, or token ids that are taken as they are. */
  readonly prompt: string | readonly number[];
  /** Put the tokenizer's special tokens (a beginning-of-text token, say) around a prompt text. @default true */
  readonly addSpecialTokens?: boolean;
}

/** A piece of text of an answer, in the order it is generated. */
export interface AnswerPart {
  readonly type: 'content' | 'reasoning';
  readonly text: string;
  /** With log-probabilities, if they were asked for. */
  readonly tokens?: readonly TokenInfo[];
}

/**
 * A piece of a tool call: its name, then its arguments as they are written, then that it is whole. The text is empty, so
 * that texts of parts can be put together whatever they are.
 */
export type ToolCallPart = ToolCallEvent & { readonly text: '' };

export type ChatPart = AnswerPart | ToolCallPart;

/** A whole answer. */
export interface ChatResult {
  readonly text: string;
  /** Empty if the model did not think aloud. */
  readonly reasoning: string;
  /** Those that are whole: their arguments are JSON. */
  readonly toolCalls: readonly ToolCall[];
  readonly finishReason: FinishReason;
  readonly usage: Usage;
  /** Seconds. */
  readonly timings: Timings;
}

/** A whole completion. */
export interface CompletionResult {
  readonly text: string;
  readonly finishReason: EngineFinishReason;
  readonly usage: Usage;
  /** Seconds. */
  readonly timings: Timings;
}

/** Parts by `for await`, the whole by `await`. */
export type ChatStream = AnswerStream<ChatPart, ChatResult>;
/** Parts by `for await`, the whole by `await`. */
export type CompletionStream = AnswerStream<AnswerPart, CompletionResult>;

/** Options of single calls. */
export interface CallOptions {
  /** Aborting ends the call with an EngineError `cancelled`. */
  readonly signal?: AbortSignal;
}

/**
 * Loads a model and returns what can be done with it. A script may simply end: nothing here keeps it alive. To free
 * the memory earlier, `close()` it or declare it with `await using`.
 *
 * Throws EngineError: `model_not_found`, `model_unsupported`, `model_broken`, `model_too_large`, `gated`,
 * `hub_unreachable`, `disk_full`, `device_unavailable`, `cancelled`.
 *
 * @example
 * const engine = await createEngine({ model: 'HuggingFaceTB/SmolLM2-135M-Instruct' });
 * const answer = await engine.chat({ messages: [{ role: 'user', content: 'Say hello.' }] });
 * console.log(answer.text, answer.usage);
 */
export async function createEngine(options: CreateEngineOptions): Promise<ModelEngine> {
  // Imported when it is needed: the types and errors of this package come without the native addon.
  const { createNativeEngine } = await import('../engine/native.js');
  return openModelEngine(createNativeEngine(), options);
}

/** `createEngine` over any engine, which it then owns. */
export async function openModelEngine(engine: Engine, options: CreateEngineOptions): Promise<ModelEngine> {
  const { onProgress, signal, ...pinned } = options;
  const models = createRegistry({ engine, pinned, defaults: {}, createLocalModel });
  try {
    const lease = await models.acquire(undefined, {
      ...(onProgress === undefined ? {} : { onProgress }),
      ...(signal === undefined ? {} : { signal }),
    });
    return new ModelEngine(engine, models, lease);
  } catch (error) {
    await models.close();
    await engine.close();
    throw error;
  }
}

/** A loaded model, made by `createEngine`. */
export class ModelEngine implements AsyncDisposable {
  /** For `createRouter` and `createServer`: serves this model over HTTP. */
  readonly models: ModelRegistry;
  readonly #engine: Engine;
  readonly #lease: ModelLease;
  #closing: Promise<void> | undefined;

  /** @internal Use `createEngine`. */
  constructor(engine: Engine, models: ModelRegistry, lease: ModelLease) {
    this.#engine = engine;
    this.models = models;
    this.#lease = lease;
  }

  /** What was loaded: name, sizes, context length, device. */
  get info(): LoadedModel {
    return this.#model.info;
  }

  /**
   * Answers a conversation.
   *
   * @example
   * for await (const part of engine.chat({ messages, temperature: 0.7 }, { signal: AbortSignal.timeout(10_000) })) {
   *   process.stdout.write(part.text);
   * }
   */
  chat(options: ChatOptions, { signal }: CallOptions = {}): ChatStream {
    return new AnswerStream(() => this.#answer(options, signal));
  }

  /**
   * Continues a text, without the chat template.
   *
   * @example
   * const { text } = await engine.complete({ prompt: 'The capital of France is', maxTokens: 8 });
   */
  complete(options: CompletionOptions, { signal }: CallOptions = {}): CompletionStream {
    return new AnswerStream(() => this.#completion(options, signal));
  }

  /**
   * Writes down what is said in a recording, by a speech model.
   *
   * @example
   * for await (const part of engine.transcribe({ path: 'talk.mp3' })) process.stdout.write(part.text);
   * const { text, segments } = await engine.transcribe({ bytes, task: 'translate' });
   */
  transcribe(options: TranscribeOptions, { signal }: CallOptions = {}): TranscriptStream {
    return new AnswerStream(() => transcribe(this.#engine, this.info, options, signal));
  }

  /**
   * The token ids of a text.
   *
   * @example
   * const ids = await engine.tokenize('Hello', { addSpecialTokens: true });
   */
  async tokenize(
    text: string,
    { addSpecialTokens = false }: { readonly addSpecialTokens?: boolean } = {},
  ): Promise<number[]> {
    return this.#engine.tokenize(this.info.handle, text, addSpecialTokens);
  }

  /**
   * The text of token ids.
   *
   * @example
   * const text = await engine.detokenize(ids, { skipSpecialTokens: true });
   */
  async detokenize(
    ids: readonly number[],
    { skipSpecialTokens = false }: { readonly skipSpecialTokens?: boolean } = {},
  ): Promise<string> {
    return this.#engine.detokenize(this.info.handle, ids, skipSpecialTokens);
  }

  /**
   * How many tokens a text is, or a conversation with all that its chat template adds.
   *
   * @example
   * const used = await engine.countTokens({ messages });
   */
  async countTokens(input: string | ChatOptions): Promise<number> {
    const text = typeof input === 'string' ? input : await this.applyChatTemplate(input);
    return (await this.tokenize(text)).length;
  }

  /**
   * The prompt that `chat` would send for a conversation. Throws EngineError `template_error`.
   *
   * @example
   * const prompt = await engine.applyChatTemplate({ messages: [{ role: 'user', content: 'Hi' }] });
   */
  async applyChatTemplate(options: ChatOptions): Promise<string> {
    return this.#model.applyChatTemplate(toChatRequest(options));
  }

  /** Requests running and waiting, free blocks of the KV cache. */
  stats(): ModelStats {
    return this.#engine.stats(this.info.handle);
  }

  /** Cancels what runs and frees everything; later calls fail with `closed`. May be called twice. */
  close(): Promise<void> {
    this.#closing ??= (async () => {
      this.#lease[Symbol.dispose]();
      await this.models.close();
      await this.#engine.close();
    })();
    return this.#closing;
  }

  /**
   * @example
   * await using engine = await createEngine({ model });
   */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  get #model(): ServedModel {
    return this.#lease.model;
  }

  async *#answer(
    options: ChatOptions,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<ChatPart, ChatResult, undefined> {
    requireKind(this.info, 'text');
    const text = { content: '', reasoning: '' };
    const calls = new ToolCallFold();
    for await (const event of this.#model.chat.chat(toChatRequest(options), signal)) {
      if (event.type === 'content' || event.type === 'reasoning') {
        text[event.type] += event.text;
        yield event;
      } else if (isToolCallEvent(event)) {
        calls.push(event);
        yield { ...event, text: '' };
      } else if (event.type === 'finished') {
        const { reason, usage, timings } = event;
        const { content, reasoning } = text;
        return { text: content, reasoning, toolCalls: calls.whole, finishReason: reason, usage, timings };
      }
    }
    throw incomplete();
  }

  async *#completion(
    options: CompletionOptions,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<AnswerPart, CompletionResult, undefined> {
    requireKind(this.info, 'text');
    const { prompt, addSpecialTokens = true } = options;
    const request = {
      model: this.info.handle,
      prompt: typeof prompt === 'string' ? { text: prompt, addSpecialTokens } : { ids: prompt },
      ...generationFields(options),
    };
    let text = '';
    for await (const event of this.#engine.generate(request, signal)) {
      if (event.type === 'delta') {
        const delta = event.pieces.map((piece) => (piece.special === undefined ? piece.text : '')).join('');
        text += delta;
        if (delta !== '' || event.tokens) {
          yield { type: 'content', text: delta, ...(event.tokens === undefined ? {} : { tokens: event.tokens }) };
        }
      } else if (event.type === 'finished') {
        return { text, finishReason: event.reason, usage: event.usage, timings: event.timings };
      }
    }
    throw incomplete();
  }
}

function toChatRequest(options: ChatOptions): ChatRequest {
  const { messages, tools, toolChoice, parallelToolCalls, responseFormat } = options;
  const { templateVariables, addGenerationPrompt, continueFinalMessage } = options;
  return {
    messages,
    ...(tools === undefined ? {} : { tools }),
    ...(toolChoice === undefined ? {} : { toolChoice }),
    ...(parallelToolCalls === undefined ? {} : { parallelToolCalls }),
    ...(responseFormat === undefined ? {} : { responseFormat }),
    ...(templateVariables === undefined ? {} : { templateVariables }),
    ...(addGenerationPrompt === undefined ? {} : { addGenerationPrompt }),
    ...(continueFinalMessage === undefined ? {} : { continueFinalMessage }),
    ...generationFields(options),
  };
}

/** Every key of SamplingOptions. */
const SAMPLING_OPTIONS = Object.keys({
  temperature: true,
  topK: true,
  topP: true,
  minP: true,
  typicalP: true,
  epsilonCutoff: true,
  etaCutoff: true,
  repetitionPenalty: true,
  presencePenalty: true,
  frequencyPenalty: true,
  logitBias: true,
  noRepeatNgramSize: true,
  badWords: true,
  suppressTokens: true,
  beginSuppressTokens: true,
  minTokens: true,
  seed: true,
} satisfies Record<keyof SamplingOptions, true>) as (keyof SamplingOptions)[];

/** The fields that chat and plain generation share, in the engine's shape; what is unset stays unset. */
function generationFields(options: GenerationOptions): Omit<ChatRequest, 'messages'> {
  const { maxTokens, stop, stopTokenIds, ignoreEos, logprobs, cacheSalt } = options;
  const given = SAMPLING_OPTIONS.flatMap((name) =>
    options[name] === undefined ? [] : [[name, options[name]] as const],
  );
  const sampling: SamplingOptions = Object.fromEntries(given);
  return {
    ...(Object.keys(sampling).length === 0 ? {} : { sampling }),
    ...(maxTokens === undefined ? {} : { maxTokens }),
    ...(stop === undefined ? {} : { stop }),
    ...(stopTokenIds === undefined ? {} : { stopTokenIds }),
    ...(ignoreEos === undefined ? {} : { ignoreEos }),
    ...(logprobs === undefined ? {} : { logprobs }),
    ...(cacheSalt === undefined ? {} : { cacheSalt }),
  };
}

function incomplete(): Error {
  return new EngineError('internal', 'the generation ended without a finish');
}
