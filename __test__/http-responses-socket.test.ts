/** `/v1/responses` as a WebSocket. */

import { expect } from 'chai';
import OpenAI from 'openai';
import { ResponsesWS } from 'openai/resources/responses/ws';
import { WebSocket } from 'ws';

import type { ResponseEvent } from '../ts/protocol/response-events.js';
import { checkLegal, checkSchema } from './helpers/response-events.js';
import { content, finished, started } from './helpers/scripted-events.js';
import { ScriptedApp } from './helpers/scripted-app.js';
import { Gate, type ScriptedModelOptions } from './helpers/scripted-registry.js';

const ID = 'org/model';

const counts: ScriptedModelOptions = {
  id: ID,
  chat: ({ messages }) => [started, content(`n${messages.length}`), finished()],
};

/** A connection whose frames can be awaited one by one. */
class Socket implements Disposable {
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

  static async open(app: ScriptedApp, path = '/v1/responses', headers = {}): Promise<Socket> {
    const ws = new WebSocket(`${app.url.replace('http', 'ws')}${path}`, { headers });
    const socket = new Socket(ws);
    await new Promise((resolve, reject) => ws.once('open', resolve).once('error', reject));
    return socket;
  }

  send(body: object): void {
    this.ws.send(JSON.stringify({ type: 'response.create', model: ID, ...body }));
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
      if (/completed|incomplete|failed|error/.test(event.type)) return all;
    }
  }

  [Symbol.dispose](): void {
    this.ws.terminate();
  }
}

describe('the WebSocket of /v1/responses', () => {
  it('sends the events of a stream, and continues what only the connection knows', async () => {
    await using app = await ScriptedApp.start([counts]);
    using socket = await Socket.open(app);
    socket.send({ input: 'one', store: false });
    const events = await socket.events();
    checkSchema(events);
    const first = checkLegal(events);
    expect((await app.call({ path: `/v1/responses/${first.id}` })).status).to.equal(404);
    socket.send({ input: 'two', store: false, previous_response_id: first.id });
    expect((checkLegal(await socket.events()).output[0] as any).content[0].text).to.equal('n3');
    using other = await Socket.open(app);
    other.send({ input: 'two', previous_response_id: first.id });
    expect(await other.next()).to.deep.include({ type: 'error', status: 400 });
  });

  it('serves the openai client', async () => {
    await using app = await ScriptedApp.start([counts]);
    const client = new OpenAI({ baseURL: `${app.url}/v1`, apiKey: 'k' });
    const ws = new ResponsesWS(client);
    const text = await new Promise((resolve, reject) => {
      ws.on('error', reject);
      ws.on('response.completed', (event) => resolve((event.response.output[0] as any).content[0].text));
      ws.socket.on('open', () => ws.send({ type: 'response.create', model: ID, input: 'hi' }));
    });
    expect(text).to.equal('n1');
    ws.close();
  });

  it('answers one at a time, and tells what is wrong without closing', async () => {
    const gate = new Gate();
    await using app = await ScriptedApp.start([
      { id: ID, chat: () => [started, content('a'), { wait: gate.opened }, finished()] },
    ]);
    using socket = await Socket.open(app);
    socket.send({ input: 'one' });
    await app.registry.until(() => app.registry.first.played === 2);
    socket.send({ input: 'two' });
    const seen: any[] = [];
    for (let frame = await socket.next(); ; frame = await socket.next()) {
      seen.push(frame);
      if (frame.type === 'error') break;
    }
    expect(seen.at(-1).error.code).to.equal('response_in_progress');
    gate.open();
    await socket.events();
    const wrong: [string, string][] = [
      ['{', 'invalid_json'],
      ['{"type":"response.steer"}', 'invalid_value'],
      [JSON.stringify({ type: 'response.create', model: 'none', input: 'x' }), 'model_not_found'],
      [JSON.stringify({ type: 'response.create', model: ID }), 'missing_required_parameter'],
      [JSON.stringify({ type: 'response.create', model: ID, input: 'x', background: true }), 'invalid_value'],
    ];
    for (const [frame, code] of wrong) {
      socket.ws.send(frame);
      const error = await socket.next();
      expect([error.type, error.error.code]).to.deep.equal(['error', code]);
    }
    socket.send({ input: 'again' });
    checkLegal(await socket.events());
  });

  it('stops the generation when the connection goes', async () => {
    const never = new Gate();
    await using app = await ScriptedApp.start([{ id: ID, chat: () => [started, { wait: never.opened }] }]);
    const socket = await Socket.open(app);
    socket.send({ input: 'one' });
    const model = app.registry.first;
    await app.registry.until(() => model.running === 1);
    socket.ws.terminate();
    await app.registry.until(() => model.running === 0 && model.held === 0);
  });

  it('asks for the key, the origin and the path, as every route does', async () => {
    await using keyed = await ScriptedApp.start([counts], { apiKeys: ['k'] });
    await using open = await ScriptedApp.start([counts]);
    const refusal = async (promise: Promise<unknown>): Promise<string> =>
      promise.then(
        () => 'open',
        (error: unknown) => String(error),
      );
    expect(await refusal(Socket.open(keyed))).to.include('401');
    expect(await refusal(Socket.open(open, '/v1/responses', { origin: 'https://evil.example' }))).to.include('403');
    expect(await refusal(Socket.open(open, '/v1/other'))).to.include('404');
    using socket = await Socket.open(keyed, '/v1/responses', { authorization: 'Bearer k' });
    socket.send({ input: 'one' });
    checkLegal(await socket.events());
  });

  it('is closed with the server', async () => {
    const app = await ScriptedApp.start([counts]);
    const socket = await Socket.open(app);
    await app[Symbol.asyncDispose]();
    expect(await socket.closed).to.be.oneOf([1001, 1006]);
  });
});
