/** The native engine's shapes and ours: requests one way, events, models and errors the other. */

import type {
  BindingConstraint,
  BindingError,
  BindingEvent,
  BindingLoadedModel,
  BindingLoadProgress,
  BindingSampling,
  BindingToken,
  NativeEngine,
} from '../../index.js';
import {
  EngineError,
  type Constraint,
  type EngineErrorCode,
  type FinishReason,
  type GenerateRequest,
  type GenerationEvent,
  type LoadedModel,
  type LoadProgress,
  type SamplingOptions,
  type TokenInfo,
} from './types.js';

/** Tokens a generation may run ahead of its reader. */
export const CREDIT = 256;

export function toBinding(request: GenerateRequest): Parameters<NativeEngine['generate']>[2] {
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

export function toEvent(event: BindingEvent): GenerationEvent | undefined {
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
    default:
      // Of a transcription; `failed` has ended its request before it comes here.
      return undefined;
  }
}

function toToken(token: BindingToken): TokenInfo {
  return token;
}

export function toProgress(progress: BindingLoadProgress): LoadProgress {
  if (progress.stage === 'resolve') return { stage: 'resolve' };
  const { done, total } = progress;
  return progress.stage === 'download'
    ? { stage: 'download', file: progress.file ?? '', done, total }
    : { stage: 'weights', done, total };
}

export function toLoadedModel(model: BindingLoadedModel): LoadedModel {
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

/** The error that an event ends its request with, if it does. */
export function failureOf(event: BindingEvent): EngineError | undefined {
  if (event.type === 'failed')
    return new EngineError(toCode(event.code), event.message ?? 'the request failed', event.param);
  return event.type === 'finished' && event.reason === 'aborted'
    ? new EngineError('cancelled', 'the request was cancelled')
    : undefined;
}

export function toError(error: BindingError): EngineError {
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
  'invalid_audio',
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
