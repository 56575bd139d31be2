/** A WebSocket of `/v1/responses`. */

import { type ClientOptions, WebSocket } from 'ws';

import type { ResponseEvent } from '../../ts/protocol/response-events.js';
import type { ScriptedApp } from './scripted-app.js';

/** A connection whose frames can be awaited one by one. */
export class Socket implements Disposable {
  private readonly frames: any[] = [];
  private wake: () => void = () => undefined;
  readonly closed: Promise<number>;

  private constructor(readonly ws: WebSocket) {
    ws.on('message', (data: Buffer) => {
      this.frames.push(JSON.parse(data.toString('utf8')));
      this.wake();
    });
    this.closed = new Promise((resolve) => ws.once('close', resolve));
  }

  static async open(
    app: Pick<ScriptedApp, 'url'>,
    path = '/v1/responses',
    options: ClientOptions = {},
  ): Promise<Socket> {
    const ws = new WebSocket(`${app.url.replace('http', 'ws')}${path}`, options);
    const socket = new Socket(ws);
    await new Promise((resolve, reject) => ws.once('open', resolve).once('error', reject));
    return socket;
  }

  send(body: object): void {
    this.ws.send(JSON.stringify({ type: 'response.create', model: 'org/model', ...body }));
  }

  async next(): Promise<any> {
    while (this.frames.length === 0) await new Promise<void>((resolve) => (this.wake = resolve));
    return this.frames.shift();
  }

  /** To the end of a response. */
  async events(): Promise<ResponseEvent[]> {
    const all: ResponseEvent[] = [];
    for (;;) {
      const event = (await this.next()) as ResponseEvent;
      all.push(event);
      if (/^(response\.(completed|incomplete|failed)|error)$/.test(event.type)) return all;
    }
  }

  [Symbol.dispose](): void {
    this.ws.terminate();
  }
}
