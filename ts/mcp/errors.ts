/** What can go wrong with a server, as the wire's `error` of an `mcp_call` says it. */

import { GuardedFetchError } from '../net/errors.js';
import type { McpCallError } from '../protocol/response-items.js';
import { loadedSdk, type Sdk } from './sdk.js';

/** JSON-RPC codes of failures on this side: the customary ones of MCP's SDKs. */
export const CONNECTION_FAILED = -32000;
const TIMED_OUT = -32001;

/** Characters of a message that a server wrote. */
const MAX_MESSAGE = 1000;

/** A failure with what the wire says of it. Its message is safe to send: without secrets, addresses and paths. */
export class McpError extends Error {
  override readonly name = 'McpError';

  constructor(
    readonly wire: McpCallError,
    options?: ErrorOptions,
  ) {
    super(errorText(wire), options);
  }
}

export function connectionFailed(message: string, cause?: unknown): McpError {
  return new McpError({ type: 'mcp_protocol_error', code: CONNECTION_FAILED, message }, { cause });
}

export function timedOut(message: string): McpError {
  return new McpError({ type: 'mcp_protocol_error', code: TIMED_OUT, message });
}

export function executionError(text: string): McpCallError {
  return { type: 'mcp_tool_execution_error', content: [{ type: 'text', text }] };
}

/** The failure in one text: what the model is told. */
export function errorText(error: McpCallError): string {
  return error.type === 'mcp_tool_execution_error' ? error.content.map(({ text }) => text).join('\n') : error.message;
}

/**
 * Whatever the SDK or the guarded fetch threw, as an McpError. Texts of the HTTP layer are not passed on: the SDK puts the
 * server's whole answer into them, and a server may echo the token it was sent. JSON-RPC messages are, cut and cleaned.
 */
export function toMcpError(error: unknown, label: string, clean: (text: string) => string): McpError {
  if (error instanceof McpError) return error;
  const status = httpStatus(error);
  if (status !== undefined) return new McpError(httpError(status, label), { cause: error });
  const refused = findCause(error, (cause) => cause instanceof GuardedFetchError);
  if (refused !== undefined) return connectionFailed(`server '${label}': ${refused.message}`, error);
  const sdk = loadedSdk();
  if (sdk !== undefined && error instanceof sdk.ProtocolError) {
    const message = clean(cut(error.message));
    return new McpError({ type: 'mcp_protocol_error', code: error.code, message }, { cause: error });
  }
  if (sdk !== undefined && error instanceof sdk.SdkError) {
    if (error.code === sdk.SdkErrorCode.RequestTimeout) return timedOut(`server '${label}' did not answer in time`);
    const reason = sdkMessages(sdk)[error.code] ?? 'it broke the protocol';
    return connectionFailed(`server '${label}': ${reason}`, error);
  }
  if (error instanceof Error && 'code' in error && error.code === 'ENOENT')
    return connectionFailed(`server '${label}' cannot be started: its command was not found`, error);
  return connectionFailed(`server '${label}': the connection failed`, error);
}

function sdkMessages({ SdkErrorCode }: Sdk): Partial<Record<string, string>> {
  return {
    [SdkErrorCode.ConnectionClosed]: 'it closed the connection',
    [SdkErrorCode.NotConnected]: 'it closed the connection',
    [SdkErrorCode.SendFailed]: 'it takes no messages',
    [SdkErrorCode.InvalidResult]: 'its answer is not what MCP prescribes',
    [SdkErrorCode.ListPaginationExceeded]: 'its list of tools has no end',
    [SdkErrorCode.ClientHttpUnexpectedContent]: 'its answer is neither JSON nor an event stream',
    [SdkErrorCode.EraNegotiationFailed]: 'no common protocol version was found',
    [SdkErrorCode.UnsupportedResultType]: 'the tool asks questions that nobody here can answer',
  };
}

/** The status that an HTTP server refused with, if that is what happened. */
export function httpStatus(error: unknown): number | undefined {
  const sdk = loadedSdk();
  if (sdk === undefined) return undefined;
  if (error instanceof sdk.SdkHttpError) return error.status;
  if (error instanceof sdk.UnauthorizedError) return 401;
  if (error instanceof sdk.SseError) return error.code;
  if (error instanceof sdk.OAuthError) return 401;
  return undefined;
}

function httpError(code: number, label: string): McpCallError {
  const redirect = code >= 300 && code < 400 ? ', a redirect to somewhere else, which is not followed' : '';
  return { type: 'http_error', code, message: `server '${label}' answered with HTTP ${code}${redirect}` };
}

function findCause(error: unknown, is: (cause: Error) => boolean): Error | undefined {
  let cause = error;
  for (let depth = 0; depth < 8 && cause instanceof Error; depth++) {
    if (is(cause)) return cause;
    cause = cause.cause ?? ('event' in cause && typeof cause.event === 'object' ? cause.event : undefined);
  }
  return undefined;
}

function cut(text: string): string {
  return text.length > MAX_MESSAGE ? `${text.slice(0, MAX_MESSAGE)}…` : text;
}
