/** An orderly end: answers under way are finished, new requests are sent elsewhere. */

import type { ServerResponse } from 'node:http';

import { ApiError } from '../protocol/errors.js';

/** Seconds after which a successor may answer. */
const RETRY_AFTER = 5;

/** Counts the requests under way, and lets someone wait for the last one. */
export class Drain {
  private running = 0;
  private begun = false;
  private idle: () => void = () => undefined;

  /** Whether new requests are refused. */
  get draining(): boolean {
    return this.begun;
  }

  /** Requests whose answers are not out, and what runs in the background. */
  get requests(): number {
    return this.running;
  }

  /** Counts a request until its connection is done with it. */
  enter(res: ServerResponse): void {
    res.once('close', this.hold());
  }

  /** Counts work without a connection of its own until the returned function is called, once. */
  hold(): () => void {
    this.running += 1;
    return () => {
      this.running -= 1;
      if (this.running === 0) this.idle();
    };
  }

  /**
   * Refuses new requests from now on. Resolves when the last answer is out, at the latest after `timeoutMs`.
   * @returns how many requests were left
   */
  async begin(timeoutMs: number): Promise<number> {
    this.begun = true;
    if (this.running === 0) return 0;
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      this.idle = resolve;
      timer = setTimeout(resolve, timeoutMs);
    });
    clearTimeout(timer);
    return this.running;
  }
}

/** The connection closes, so that the next try finds another server. */
export function drainingError(): ApiError {
  return new ApiError({
    status: 503,
    type: 'server_error',
    code: 'draining',
    message: 'the server is shutting down and takes no new requests',
    headers: { 'retry-after': String(RETRY_AFTER), connection: 'close' },
  });
}
