/** A response's body as a stream with a bound on its bytes. */

import type { IncomingMessage } from 'node:http';
import { ReadableStream } from 'node:stream/web';

import { GuardedFetchError } from './errors.js';

/** What the body's end is told to, and what may end it early. */
export interface BodyOwner {
  readonly signal: AbortSignal;
  done(): void;
  reasonOf(error: unknown): unknown;
}

/**
 * An event stream may be endless; its reader holds one event at a time, so the bound counts from the last blank line on.
 * Every other body counts as a whole.
 */
export function boundedBody(
  message: IncomingMessage,
  host: string,
  maxBytes: number,
  owner: BodyOwner,
): ReadableStream<Uint8Array> {
  const perEvent = /^text\/event-stream\b/i.test(message.headers['content-type'] ?? '');
  let bytes = 0;
  let closed = false;

  return new ReadableStream<Uint8Array>({
    start(controller) {
      const fail = (error: unknown): void => {
        if (closed) return;
        closed = true;
        owner.done();
        message.destroy();
        controller.error(owner.reasonOf(error));
      };
      message.on('data', (chunk: Buffer) => {
        if (closed) return;
        const lastEnd = perEvent ? endOfLastEvent(chunk) : -1;
        bytes = lastEnd < 0 ? bytes + chunk.length : chunk.length - lastEnd;
        if (bytes > maxBytes) {
          fail(new GuardedFetchError('too_large', `the answer of ${host} is larger than ${maxBytes} bytes`));
          return;
        }
        controller.enqueue(new Uint8Array(chunk));
        if ((controller.desiredSize ?? 0) <= 0) message.pause();
      });
      message.on('end', () => {
        if (closed) return;
        closed = true;
        owner.done();
        controller.close();
      });
      message.on('error', (error) => fail(new GuardedFetchError('network', `${host} broke off`, { cause: error })));
      message.on('close', () => fail(new GuardedFetchError('network', `${host} broke off`)));
      message.pause();
    },
    pull() {
      message.resume();
    },
    cancel() {
      closed = true;
      owner.done();
      message.destroy();
    },
  });
}

/**
 * Where the last event of a chunk ends, or -1. Blank lines that two chunks share are missed: the bound then counts on
 * until the next one, which is only ever stricter.
 */
function endOfLastEvent(chunk: Buffer): number {
  return Math.max(
    ...['\n\n', '\r\n\r\n', '\r\r'].map((end) => {
      const at = chunk.lastIndexOf(end);
      return at < 0 ? -1 : at + end.length;
    }),
  );
}
