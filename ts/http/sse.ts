/** Server-sent events: one frame per write, at the client's pace, never silent for long. */

import { once } from 'node:events';

import type { ErrorEnvelope } from '../protocol/errors.js';
import type { RequestContext } from './context.js';
import { ClientGoneError } from './errors.js';

const KEEP_ALIVE = ': keep-alive\n\n';

/**
 * An event stream that answers a request. Headers go out with the first frame or when the first keep-alive is due: a
 * failure before that can still be a proper error response.
 */
export class SseStream implements Disposable {
  private readonly timer: NodeJS.Timeout;

  constructor(private readonly context: RequestContext) {
    this.timer = setTimeout(() => this.keepAlive(), context.services.limits.keepAliveMs);
  }

  /** Whether the status is out. */
  get started(): boolean {
    return this.context.res.headersSent;
  }

  /**
   * @param event its name, where the stream's events have names
   * @returns undefined if the client is ready for more, as it mostly is: no promise for every token. Otherwise resolves
   * when it is, or rejects with ClientGoneError.
   * @throws ClientGoneError
   */
  send(data: unknown, event?: string): Promise<void> | undefined {
    const line = event === undefined ? '' : `event: ${event}\n`;
    return this.write(`${line}data: ${JSON.stringify(data)}\n\n`);
  }

  /** Ends the stream as OpenAI does. */
  async end(): Promise<void> {
    await this.write('data: [DONE]\n\n');
    this.context.res.end();
  }

  /** Ends a stream that has started with an error event. */
  fail(error: ErrorEnvelope): void {
    this.context.res.end(`data: ${JSON.stringify(error)}\n\n`);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.timer);
  }

  private write(frame: string): Promise<void> | undefined {
    const { res, signal } = this.context;
    if (signal.aborted || res.destroyed) throw new ClientGoneError();
    this.begin();
    this.timer.refresh();
    return res.write(frame) ? undefined : this.drained();
  }

  private async drained(): Promise<void> {
    const { res, signal } = this.context;
    // The signal aborts when the connection closes, so this ends either way.
    await once(res, 'drain', { signal }).catch((error: unknown) => {
      throw signal.aborted ? new ClientGoneError() : error;
    });
  }

  private begin(): void {
    if (this.started) return;
    this.context.res.writeHead(200, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache',
      'x-accel-buffering': 'no',
      'openai-processing-ms': String(this.context.elapsedMs),
    });
  }

  private keepAlive(): void {
    const { res } = this.context;
    if (res.destroyed || res.writableEnded) return;
    this.timer.refresh();
    // Bytes that wait for the client show life enough.
    if (res.writableNeedDrain) return;
    this.begin();
    res.write(KEEP_ALIVE);
  }
}
