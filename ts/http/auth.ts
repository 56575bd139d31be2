/** API keys. */

import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';

import { ApiError } from '../protocol/errors.js';

/** Throws an ApiError 401 for a request that shows none of the keys. */
export type KeyCheck = (req: IncomingMessage) => void;

/**
 * @param keys any of them will do; none: no check
 * @throws TypeError for a blank key, which would look like protection
 */
export function createKeyCheck(keys: readonly string[]): KeyCheck {
  if (keys.some((key) => key.trim() === '')) throw new TypeError('an API key must not be blank');
  if (keys.length === 0) return () => undefined;
  const digests = keys.map(digest);
  return (req) => {
    const shown = shownKey(req);
    if (shown === undefined) throw unauthorized("an API key is needed: send it as 'Authorization: Bearer KEY'");
    const own = digest(shown);
    // Every key is compared, and by digest: neither its place nor its length shows in the time taken.
    let known = false;
    for (const candidate of digests) known = timingSafeEqual(own, candidate) || known;
    if (!known) throw unauthorized('the API key is not valid');
  };
}

/** Tells callers apart without holding their keys; undefined if none was shown. */
export function callerOf(req: IncomingMessage): string | undefined {
  const key = shownKey(req);
  return key === undefined ? undefined : digest(key).toString('hex');
}

function shownKey(req: IncomingMessage): string | undefined {
  const bearer = /^Bearer +(\S.*)$/i.exec(req.headers.authorization?.trim() ?? '')?.[1];
  const header = req.headers['x-api-key'];
  return bearer ?? (typeof header === 'string' && header !== '' ? header : undefined);
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

function unauthorized(message: string): ApiError {
  return new ApiError({
    status: 401,
    type: 'authentication_error',
    code: 'invalid_api_key',
    message,
    headers: { 'www-authenticate': 'Bearer' },
  });
}
