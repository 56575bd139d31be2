/** Whatever is thrown below → the one error that goes over the wire. */

import { EngineError, type EngineErrorCode } from '../engine/types.js';
import { ApiError, type ApiErrorType } from '../protocol/errors.js';

/** The client has closed its connection: nobody is left to answer. */
export class ClientGoneError extends Error {
  override readonly name = 'ClientGoneError';

  constructor() {
    super('the client closed the connection');
  }
}

/** What the log says of a request whose client went away; never sent. */
export const STATUS_CLIENT_GONE = 499;

/** Seconds after which a full queue is worth another try. */
const RETRY_AFTER_QUEUE_FULL = 1;

interface WireError {
  readonly status: number;
  readonly type: ApiErrorType;
  readonly code: string;
  /** Default: the engine's own, translated. */
  readonly param?: 'model' | 'messages' | 'file';
  /** Server errors that will come again: OpenAI's clients must not repeat them by themselves. */
  readonly retry?: 'never';
  readonly headers?: Readonly<Record<string, string>>;
}

/**
 * The engine's codes on the wire. Nothing is a 503: some clients repeat those without end. `internal`'s own message stays
 * in the log; all others are written for the caller.
 */
const ENGINE_ERRORS: Readonly<Record<EngineErrorCode, WireError>> = {
  model_not_found: { status: 404, type: 'not_found_error', code: 'model_not_found', param: 'model' },
  model_unsupported: { status: 422, type: 'invalid_request_error', code: 'model_unsupported', param: 'model' },
  model_broken: { status: 422, type: 'invalid_request_error', code: 'model_broken', param: 'model' },
  model_too_large: { status: 422, type: 'invalid_request_error', code: 'model_too_large', param: 'model' },
  gated: { status: 403, type: 'permission_error', code: 'model_gated', param: 'model' },
  hub_unreachable: { status: 502, type: 'server_error', code: 'hub_unreachable', param: 'model', retry: 'never' },
  disk_full: { status: 507, type: 'server_error', code: 'disk_full', retry: 'never' },
  device_unavailable: { status: 500, type: 'server_error', code: 'device_unavailable', retry: 'never' },
  invalid_request: { status: 400, type: 'invalid_request_error', code: 'invalid_value' },
  invalid_audio: { status: 400, type: 'invalid_request_error', code: 'invalid_audio', param: 'file' },
  context_length_exceeded: { status: 400, type: 'invalid_request_error', code: 'context_length_exceeded' },
  queue_full: {
    status: 429,
    type: 'rate_limit_error',
    code: 'rate_limit_exceeded',
    headers: { 'retry-after': String(RETRY_AFTER_QUEUE_FULL) },
  },
  cancelled: { status: 500, type: 'server_error', code: 'generation_cancelled' },
  timeout: { status: 504, type: 'server_error', code: 'timeout', retry: 'never' },
  template_error: { status: 400, type: 'invalid_request_error', code: 'template_error', param: 'messages' },
  closed: { status: 500, type: 'server_error', code: 'model_closed' },
  internal: { status: 500, type: 'server_error', code: 'internal_error' },
};

/** The engine's field names that read differently on the wire; the rest only change case. */
const PARAM_NAMES: Readonly<Record<string, string>> = {
  seed: 'seed',
  logprobs: 'top_logprobs',
  handle: 'model',
  constraint: 'response_format',
  audio: 'file',
  wordTimestamps: 'timestamp_granularities',
  chunking: 'chunking_strategy',
  carryPrompt: 'carry_initial_prompt',
  skipSilence: 'vad_filter',
};

export interface ErrorContext {
  /** `x-request-id`, for looking the error up in the log. */
  readonly requestId: string;
  /** The request's field that holds the prompt. */
  readonly promptParam?: string;
}

export function toApiError(error: unknown, context: ErrorContext): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof EngineError) return fromEngine(error, context);
  // The router refuses a path with broken percent encoding.
  if (error instanceof URIError) {
    return new ApiError({
      status: 400,
      type: 'invalid_request_error',
      code: 'invalid_url',
      message: 'the URL is not valid',
    });
  }
  return internalError(error, context);
}

/** Whether the operator has to hear of it in full. */
export function isUnexpected(error: unknown): boolean {
  return error instanceof EngineError
    ? error.code === 'internal'
    : !(error instanceof ApiError || error instanceof URIError);
}

function fromEngine(error: EngineError, context: ErrorContext): ApiError {
  if (error.code === 'internal') return internalError(error, context);
  const { status, type, code, param, retry, headers } = ENGINE_ERRORS[error.code];
  return new ApiError({
    status,
    type,
    code,
    param: param === 'messages' ? (context.promptParam ?? param) : (param ?? toWireParam(error, context)),
    message: error.message,
    headers: { ...headers, ...retryAfter(error), ...(retry === 'never' ? { 'x-should-retry': 'false' } : {}) },
    cause: error,
  });
}

/** The engine's own guess of when a place becomes free, in whole seconds. */
function retryAfter({ retryAfter: seconds }: EngineError): Record<string, string> {
  return seconds === undefined ? {} : { 'retry-after': String(Math.max(1, Math.ceil(seconds))) };
}

function internalError(cause: unknown, { requestId }: ErrorContext): ApiError {
  return new ApiError({
    status: 500,
    type: 'server_error',
    code: 'internal_error',
    message: `the server failed on this request; its log says more under ${requestId}`,
    headers: { 'x-should-retry': 'false' },
    cause,
  });
}

function toWireParam(error: EngineError, { promptParam }: ErrorContext): string | null {
  if (error.code === 'context_length_exceeded' || error.param === 'prompt') return promptParam ?? error.param ?? null;
  // Messages that were made of something else have no place in the request.
  if (promptParam === 'input' && error.param?.startsWith('messages') === true) return promptParam;
  if (error.param === undefined) return null;
  const name = error.param.replace(/^sampling\./, '');
  return PARAM_NAMES[name] ?? name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
