/** `/v1/responses` as a WebSocket. */

import { expect } from 'chai';
import OpenAI from 'openai';
import { ResponsesWS } from 'openai/resources/responses/ws';

import { checkLegal, checkSchema } from './helpers/response-events.js';
import { Socket } from './helpers/response-socket.js';
import { content, finished, started } from './helpers/scripted-events.js';
import { ScriptedApp } from './helpers/scripted-app.js';
import { Gate, type ScriptedModelOptions } from './helpers/scripted-registry.js';

const ID = 'org/model';

const counts: ScriptedModelOptions = {
  id: ID,
  chat: ({ messages }) => [started, content(`n${messages.length}`), finished()],
};

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

  it('is pinged, and ended if it does not answer', async () => {
    const never = new Gate();
    await using app = await ScriptedApp.start(
      [{ id: ID, chat: () => [started, content('a'), { wait: never.opened }] }],
      { limits: { socketPingMs: 20 } },
    );
    using alive = await Socket.open(app);
    let pings = 0;
    const several = new Promise<void>((resolve) => {
      alive.ws.on('ping', () => {
        if (++pings === 5) resolve();
      });
    });
    // One whose machine went to sleep: no pong, no goodbye. What it asked for ends with it.
    using asleep = await Socket.open(app, '/v1/responses', { autoPong: false });
    asleep.send({ input: 'one' });
    await app.registry.until(() => app.registry.first.running === 1);
    expect(await asleep.closed).to.equal(1006);
    await app.registry.until(() => app.registry.first.running === 0 && app.registry.first.held === 0);
    await several;
    alive.send({ model: 'none', input: 'x' });
    expect((await alive.next()).error.code).to.equal('model_not_found');
  });

  it('is closed when idle, not while it works', async () => {
    const gate = new Gate();
    await using app = await ScriptedApp.start(
      [{ id: ID, chat: () => [started, content('a'), { wait: gate.opened }, finished()] }],
      { limits: { socketIdleMs: 40, socketPingMs: 10 } },
    );
    using idle = await Socket.open(app);
    using busy = await Socket.open(app);
    busy.send({ input: 'one' });
    expect(await idle.closed).to.equal(1001);
    gate.open();
    checkLegal(await busy.events());
    expect(await busy.closed).to.equal(1001);
  });

  it('takes frames up to the size of a body, of text, of bounded lists', async () => {
    await using app = await ScriptedApp.start([counts], { limits: { maxBodyBytes: 4_000, maxMessages: 3 } });
    using socket = await Socket.open(app);
    socket.ws.send(Buffer.from('{}'));
    expect((await socket.next()).error.message).to.include('frames must be text');
    socket.send({ input: Array.from({ length: 4 }, () => ({ role: 'user', content: 'x' })) });
    expect((await socket.next()).error).to.include({ param: 'input', code: 'invalid_value' });
    socket.send({ input: 'x'.repeat(3_000) });
    checkLegal(await socket.events());
    socket.send({ input: 'x'.repeat(4_000) });
    expect(await socket.closed).to.equal(1009);
    using broken = await Socket.open(app);
    broken.ws.send(Buffer.from([0x7b, 0xff, 0xfe]), { binary: false });
    expect(await broken.closed).to.equal(1007);
  });

  it('is ended for a client that sends and never reads', async () => {
    const never = new Gate();
    await using app = await ScriptedApp.start([{ id: ID, chat: () => [started, { wait: never.opened }] }]);
    using socket = await Socket.open(app);
    socket.send({ input: 'one' });
    await app.registry.until(() => app.registry.first.running === 1);
    socket.ws.pause();
    const { first } = app.registry;
    // Each is answered, at greater length: the answers fill what the system holds, then what we do.
    while (first.held > 0) {
      for (let i = 0; i < 2_000; i++) socket.ws.send('{}', () => undefined);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(first.cancelled).to.equal(1);
  });

  it('has conversations', async () => {
    await using app = await ScriptedApp.start([counts]);
    using socket = await Socket.open(app);
    const { id } = (await app.post('/v1/conversations', {})).json;
    for (const [at, store] of [true, false].entries()) {
      socket.send({ input: 'x', conversation: id, store });
      const response = checkLegal(await socket.events());
      expect((response.output[0] as any).content[0].text).to.equal(`n${1 + 2 * at}`);
    }
    expect((await app.call({ path: `/v1/conversations/${id}/items` })).json.data).to.have.length(4);
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
    using socket = await Socket.open(keyed, '/v1/responses', { headers: { authorization: 'Bearer k' } });
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
