/**
 * Event streams that end without the answer they were opened for.
 *
 * The SDK waits on such a call until its timeout: the stream may have been closed, broken off, or been cut by a bound. Here
 * the call's end is written into the stream instead, as the JSON-RPC error that the server did not send. Streams with event
 * ids are left alone: those the SDK resumes.
 */

import { ReadableStream } from 'node:stream/web';

import { GuardedFetchError } from '../net/errors.js';
import type { GuardedFetch } from '../net/guarded-fetch.js';
import { CONNECTION_FAILED } from './errors.js';

const EVENT_ID = /(?:^|[\n\r])id:/;

export function endedAnswers(fetch: GuardedFetch): GuardedFetch {
  return async (url, init) => {
    const response = await fetch(url, init);
    const id = requestId(init);
    const isStream = /^text\/event-stream\b/i.test(response.headers.get('content-type') ?? '');
    if (id === undefined || !isStream || response.body === null) return response;
    const { status, statusText, headers } = response;
    const body = withEnd(response.body as ReadableStream<Uint8Array>, id);
    const whole = new Response(body, { status, statusText, headers });
    Object.defineProperties(whole, { url: { value: response.url }, redirected: { value: response.redirected } });
    return whole;
  };
}

/** The id of the one request that a body holds; undefined for notifications. */
function requestId({ method, body }: RequestInit = {}): string | number | undefined {
  if (method !== 'POST' || typeof body !== 'string') return undefined;
  const { id } = JSON.parse(body) as { readonly id?: string | number };
  return id;
}

function withEnd(source: ReadableStream<Uint8Array>, id: string | number): ReadableStream<Uint8Array> {
  const reader = source.getReader();
  let resumable = false;
  const ending = (message: string): Uint8Array => {
    const answer = { jsonrpc: '2.0', id, error: { code: CONNECTION_FAILED, message } };
    // The blank line ends an event that was broken off. After an answer, a second one is ignored.
    return Buffer.from(`\n\ndata: ${JSON.stringify(answer)}\n\n`);
  };
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const { done, value } = await reader.read();
        if (!done) {
          resumable ||= EVENT_ID.test(Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('latin1'));
          controller.enqueue(value);
          return;
        }
        if (!resumable) controller.enqueue(ending('the server ended its answer before the result'));
        controller.close();
      } catch (error) {
        const cut = error instanceof GuardedFetchError && error.code === 'too_large';
        if (resumable && !cut) {
          controller.error(error);
          return;
        }
        const message = error instanceof GuardedFetchError ? error.message : 'the answer broke off';
        controller.enqueue(ending(message));
        controller.close();
      }
    },
    async cancel(reason) {
      await reader.cancel(reason);
    },
  });
}
