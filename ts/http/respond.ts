/** Answers that are not streams. */

import type { IncomingMessage, ServerResponse } from 'node:http';

import type { ApiError } from '../protocol/errors.js';
import type { RequestContext } from './context.js';
import { ClientGoneError, isUnexpected, toApiError } from './errors.js';

export type Headers = Readonly<Record<string, string>>;

const OPENAI_VERSION = '2020-10-01';

/** The headers of every answer. */
export function identify(res: ServerResponse, requestId: string): void {
  res.setHeader('x-request-id', requestId);
  res.setHeader('openai-version', OPENAI_VERSION);
}

/** What an answer needs of its request. */
type Asked = Pick<RequestContext, 'res' | 'elapsedMs'>;

export function sendJson(context: Asked, status: number, body: unknown, headers: Headers = {}): void {
  sendText(context, status, JSON.stringify(body), { 'content-type': 'application/json', ...headers });
}

/** @param headers with the content type */
export function sendText(context: Asked, status: number, text: string, headers: Headers): void {
  const bytes = Buffer.from(text);
  context.res.writeHead(status, {
    'openai-processing-ms': String(context.elapsedMs),
    'content-length': String(bytes.length),
    ...headers,
  });
  context.res.end(bytes);
}

export function sendEmpty(context: Asked, status: number, headers: Headers): void {
  context.res.writeHead(status, { 'openai-processing-ms': String(context.elapsedMs), ...headers });
  context.res.end();
}

/** Answers with an error in OpenAI's envelope. Once bytes of another answer are out, only the connection can say it. */
export function sendError(context: RequestContext, error: unknown): void {
  if (error instanceof ClientGoneError || context.signal.aborted) return;
  const apiError = reportError(context, error);
  if (context.res.headersSent) {
    context.res.destroy();
    return;
  }
  discardBody(context.req, context.services.limits.maxBodyBytes);
  sendJson(context, apiError.status, apiError.toEnvelope(), apiError.headers);
}

/** What is sent for an error; what is not sent goes to the log. */
export function reportError(context: RequestContext, error: unknown): ApiError {
  if (isUnexpected(error)) {
    const detail = error instanceof Error ? (error.stack ?? error.message) : String(error);
    context.services.logger.error(`${context.id} ${detail}`);
  }
  const apiError = toApiError(error, { requestId: context.id, promptParam: context.promptParam });
  context.failure = apiError.code ?? undefined;
  return apiError;
}

/**
 * Lets the client finish its upload, within bounds: one that is cut off while it writes sees a broken connection
 * instead of the answer.
 */
function discardBody(req: IncomingMessage, maxBytes: number): void {
  if (req.complete) return;
  let discarded = 0;
  req.on('data', (chunk: Buffer) => {
    discarded += chunk.length;
    if (discarded > maxBytes) req.socket.destroy();
  });
}
