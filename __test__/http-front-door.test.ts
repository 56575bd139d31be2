/** A server that listens before its app is there. */

import { once } from 'node:events';
import { request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import { connect } from 'node:net';

import { expect } from 'chai';

import { createAccessCheck } from '../ts/http/access.js';
import { createApp } from '../ts/http/app.js';
import { Drain } from '../ts/http/drain.js';
import { FrontDoor } from '../ts/http/front-door.js';
import { closeServer, listen } from '../ts/http/server.js';
import { Socket } from './helpers/response-socket.js';
import { content, finished, started } from './helpers/scripted-events.js';
import { ScriptedRegistry, type ScriptedModelOptions } from './helpers/scripted-registry.js';

const MODEL: ScriptedModelOptions = { id: 'org/one', chat: () => [started, content('hello'), finished()] };

interface Answer {
  readonly status: number | undefined;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}

class Entrance implements AsyncDisposable {
  readonly drain = new Drain();
  readonly door: FrontDoor;
  port = 0;

  private constructor(private readonly registry: ScriptedRegistry) {
    const checkAccess = createAccessCheck({ allowedHosts: [], allowedOrigins: [] });
    this.door = new FrontDoor({ registry, drain: this.drain, warnOnce: () => undefined, checkAccess });
  }

  static async start(model: ScriptedModelOptions = MODEL): Promise<Entrance> {
    const entrance = new Entrance(new ScriptedRegistry([model], 'org/one'));
    entrance.port = (await listen(entrance.door.server, { host: '127.0.0.1', port: 0 })).port;
    return entrance;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  open(): void {
    this.door.open(createApp({ registry: this.registry, drain: this.drain }));
  }

  ask(path: string, headers: Readonly<Record<string, string>> = {}, method = 'GET', body?: string): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const options = { host: '127.0.0.1', port: this.port, method, path, headers, agent: false };
      const req = httpRequest(options, (res) => {
        let text = '';
        res.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
        res.on('end', () => resolve({ status: res.statusCode, headers: res.headers, text }));
      });
      req.on('error', reject).end(body);
    });
  }

  /** A request that has come in, and its answer, which has not. */
  async held(...request: Parameters<Entrance['ask']>): Promise<{ readonly answer: Promise<Answer> }> {
    const came = once(this.door.server, 'request');
    const answer = this.ask(...request);
    await came;
    return { answer };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.door.server.listening) await closeServer(this.door.server);
  }
}

describe('a server whose app is still being loaded', () => {
  it('says how it is, as it does later', async () => {
    for (const state of ['loading', 'ready'] as const) {
      await using entrance = await Entrance.start({ ...MODEL, state });
      const probe = () => entrance.ask('/health?from=balancer', { 'x-request-id': 'probe-1' });
      const early = await probe();
      expect(early.status).to.equal(200);
      expect(JSON.parse(early.text)).to.deep.equal({
        status: 'ok',
        models: state === 'ready' ? ['org/one'] : [],
        loading: state === 'loading' ? ['org/one'] : [],
      });
      entrance.open();
      const late = await probe();
      expect(early.text).to.equal(late.text);
      const lasting = ({ headers }: Answer) => ({ ...headers, date: '', 'openai-processing-ms': '' });
      expect(lasting(early)).to.deep.equal(lasting(late));
    }
  });

  it('says that it ends', async () => {
    await using entrance = await Entrance.start();
    await entrance.drain.begin(0);
    const { status, text } = await entrance.ask('/health');
    expect([status, JSON.parse(text).status]).to.deep.equal([503, 'draining']);
  });

  it('lets everything else wait, and answers it when the app is there', async () => {
    await using entrance = await Entrance.start();
    const body = JSON.stringify({ messages: [{ role: 'user', content: 'hi' }] });
    const chat = await entrance.held('/v1/chat/completions', { 'content-type': 'application/json' }, 'POST', body);
    const models = await entrance.held('/v1/models');
    const head = await entrance.held('/health', {}, 'HEAD');
    entrance.open();
    expect(JSON.parse((await chat.answer).text).choices[0].message.content).to.equal('hello');
    expect(JSON.parse((await models.answer).text).data[0].id).to.equal('org/one');
    expect(await head.answer).to.include({ status: 200, text: '' });
    expect((await entrance.ask('/v1/models')).status).to.equal(200);
  });

  it('leaves to the app whom it refuses, and what a browser is told', async () => {
    await using entrance = await Entrance.start();
    const stranger = await entrance.held('/health', { host: 'evil.example' });
    const page = await entrance.held('/health', { origin: 'https://evil.example' });
    const own = await entrance.held('/health', { origin: 'http://localhost:3000' });
    entrance.open();
    expect((await stranger.answer).status).to.equal(403);
    expect((await page.answer).status).to.equal(403);
    expect((await own.answer).status).to.equal(200);
  });

  it('forgets who has gone', async () => {
    await using entrance = await Entrance.start();
    const came = once(entrance.door.server, 'request');
    const client = connect(entrance.port, '127.0.0.1');
    client.write('GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n');
    const [req] = (await came) as [{ socket: NodeJS.EventEmitter }];
    client.destroy();
    await once(req.socket, 'close');
    entrance.open();
    expect(entrance.drain.requests).to.equal(0);
    expect((await entrance.ask('/health')).status).to.equal(200);
  });

  it('lets WebSockets wait too', async () => {
    await using entrance = await Entrance.start();
    const came = once(entrance.door.server, 'upgrade');
    const opening = Socket.open(entrance);
    await came;
    entrance.open();
    using socket = await opening;
    socket.send({ model: 'org/one', input: 'hi', store: false });
    expect(await socket.next()).to.include({ type: 'response.created' });
  });

  it('closes though WebSockets wait', async () => {
    await using entrance = await Entrance.start();
    const came = once(entrance.door.server, 'upgrade');
    const client = connect(entrance.port, '127.0.0.1');
    client.write('GET /v1/responses HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n');
    await came;
    const left = once(client, 'close');
    client.resume();
    entrance.door.close();
    await closeServer(entrance.door.server);
    await left;
  });
});
