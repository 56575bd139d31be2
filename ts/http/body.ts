/** A request's body → a JSON value. */

import type { IncomingMessage } from 'node:http';

import { ApiError, invalidValue } from '../protocol/errors.js';
import { isObject } from '../protocol/fields.js';
import { parseJson } from '../protocol/json.js';
import type { RequestContext } from './context.js';
import { ClientGoneError } from './errors.js';
import type { HttpLimits } from './limits.js';

/** @throws ApiError 400, 413 or 415; ClientGoneError if the client left before its body was complete */
export async function readJson(context: RequestContext): Promise<unknown> {
  const { limits } = context.services;
  checkContentType(context.req);
  const body = parseJson(await readBytes(context.req, limits.maxBodyBytes), limits.maxJsonDepth);
  checkCounts(body, limits);
  return body;
}

/** The lists that every later step walks, whatever the endpoint. */
export function checkCounts(body: unknown, { maxMessages, maxTools }: HttpLimits): void {
  if (!isObject(body)) return;
  for (const [name, most] of Object.entries({ messages: maxMessages, input: maxMessages, tools: maxTools })) {
    const list = Object.hasOwn(body, name) ? body[name] : undefined;
    if (Array.isArray(list) && list.length > most) {
      throw invalidValue(name, `must hold at most ${most} items, got ${list.length}`);
    }
  }
}

function checkContentType(req: IncomingMessage): void {
  const [mediaType = '', ...parameters] = (req.headers['content-type'] ?? '').toLowerCase().split(';');
  if (mediaType.trim() !== 'application/json') {
    throw unsupportedMediaType(`the content type must be application/json, got ${JSON.stringify(mediaType.trim())}`);
  }
  for (const parameter of parameters) {
    const [name = '', value = ''] = parameter.split('=').map((part) => part.trim().replaceAll('"', ''));
    if (name === 'charset' && value !== 'utf-8' && value !== 'utf8') {
      throw unsupportedMediaType(`the charset must be utf-8, got ${JSON.stringify(value)}`);
    }
  }
  checkNotCompressed(req);
}

/** @throws ApiError 415 */
export function checkNotCompressed(req: IncomingMessage): void {
  const encoding = req.headers['content-encoding'] ?? 'identity';
  if (encoding.toLowerCase() !== 'identity') {
    throw unsupportedMediaType(`the body must not be compressed, got ${JSON.stringify(encoding)}`);
  }
}

export function unsupportedMediaType(message: string): ApiError {
  return new ApiError({ status: 415, type: 'invalid_request_error', code: 'unsupported_media_type', message });
}

/** @param what is too large, and the field it came in */
export function tooLarge(maxBytes: number, what = 'the body', param: string | null = null): ApiError {
  return new ApiError({
    status: 413,
    type: 'invalid_request_error',
    code: 'request_too_large',
    param,
    message: `${what} is larger than ${maxBytes} bytes`,
  });
}

function readBytes(req: IncomingMessage, maxBytes: number): Promise<Uint8Array> {
  if (Number(req.headers['content-length'] ?? 0) > maxBytes) return Promise.reject(tooLarge(maxBytes));
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let size = 0;
    const stop = (): void => {
      req.off('data', onData).off('end', onEnd).off('close', onClose);
    };
    const onData = (chunk: Buffer): void => {
      size += chunk.length;
      chunks.push(chunk);
      if (size <= maxBytes) return;
      stop();
      reject(tooLarge(maxBytes));
    };
    const onEnd = (): void => {
      stop();
      resolve(Buffer.concat(chunks));
    };
    const onClose = (): void => {
      stop();
      reject(new ClientGoneError());
    };
    req.on('data', onData).on('end', onEnd).on('close', onClose);
  });
}
