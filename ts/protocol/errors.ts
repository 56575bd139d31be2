/** The one error that goes over the wire, and its envelope. */

export type ApiErrorType =
  | 'invalid_request_error'
  | 'authentication_error'
  | 'permission_error'
  | 'not_found_error'
  | 'rate_limit_error'
  | 'server_error';

export interface ErrorBody {
  readonly message: string;
  readonly type: ApiErrorType;
  /** The request's field, as a path: `messages[2].content[0].text`. */
  readonly param: string | null;
  readonly code: string | null;
}

export interface ErrorEnvelope {
  readonly error: ErrorBody;
}

export interface ApiErrorOptions {
  readonly status: number;
  readonly type: ApiErrorType;
  readonly code?: string | null;
  readonly param?: string | null;
  readonly message: string;
  /** Further response headers: Retry-After, Allow, x-should-retry, … */
  readonly headers?: Readonly<Record<string, string>>;
  readonly cause?: unknown;
}

export class ApiError extends Error {
  override readonly name = 'ApiError';
  readonly status: number;
  readonly type: ApiErrorType;
  readonly code: string | null;
  readonly param: string | null;
  readonly headers: Readonly<Record<string, string>>;

  constructor(options: ApiErrorOptions) {
    super(options.message, options.cause === undefined ? undefined : { cause: options.cause });
    this.status = options.status;
    this.type = options.type;
    this.code = options.code ?? null;
    this.param = options.param ?? null;
    this.headers = options.headers ?? {};
  }

  toEnvelope(): ErrorEnvelope {
    return { error: { message: this.message, type: this.type, param: this.param, code: this.code } };
  }
}

function badRequest(code: string, param: string | undefined, message: string): ApiError {
  return new ApiError({ status: 400, type: 'invalid_request_error', code, param: param ?? null, message });
}

export function missingParameter(path: string, hint?: string): ApiError {
  const rest = hint === undefined ? '' : `: ${hint}`;
  return badRequest('missing_required_parameter', path, `missing required parameter '${path}'${rest}`);
}

/** @param expected "an integer", "a string or an array of text parts" */
export function invalidType(path: string, expected: string, value: unknown): ApiError {
  const subject = path === '' ? 'the body' : `'${path}'`;
  return badRequest(
    'invalid_type',
    path === '' ? undefined : path,
    `${subject} must be ${expected}, got ${kindOf(value)}`,
  );
}

/** @param problem goes after the path: "must be at most 2, got 3" */
export function invalidValue(path: string, problem: string): ApiError {
  return badRequest('invalid_value', path, `'${path}' ${problem}`);
}

export function unsupportedParameter(path: string, reason: string): ApiError {
  return badRequest('unsupported_parameter', path, `'${path}' is not supported: ${reason}`);
}

export function unsupportedValue(path: string, reason: string): ApiError {
  return badRequest('unsupported_value', path, `this value of '${path}' is not supported: ${reason}`);
}

/** @param path ends in a name that the client chose: an error does not send back all of it */
export function unknownParameter(path: string): ApiError {
  const shown = path.length > 100 ? `${path.slice(0, 100)}…` : path;
  return badRequest('unknown_parameter', shown, `unknown parameter '${shown}'`);
}

export function kindOf(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'an array';
  switch (typeof value) {
    case 'object':
      return 'an object';
    case 'string':
      return 'a string';
    case 'boolean':
      return 'a boolean';
    case 'number':
      return Number.isInteger(value) ? 'an integer' : 'a number';
    default:
      return 'nothing';
  }
}
