import { expect } from 'chai';

import { Drain } from '../ts/http/drain.js';
import { closeServer } from '../ts/http/server.js';
import { createMemoryStore } from '../ts/responses/memory-store.js';
import { content, finished, started } from './helpers/scripted-events.js';
import { ScriptedApp } from './helpers/scripted-app.js';
import { Gate } from './helpers/scripted-registry.js';

const CHAT = '/v1/chat/completions';
const ask = { model: 'org/one', messages: [{ role: 'user', content: 'hi' }] };

describe('an orderly end', () => {
  it('finishes what runs, refuses what is new, and says so', async () => {
    const gate = new Gate();
    const drain = new Drain();
    await using app = await ScriptedApp.start(
      [{ id: 'org/one', chat: () => [started, content('a'), { wait: gate.opened }, content('b'), finished()] }],
      { drain },
    );
    const streamed = app.stream(CHAT, ask);
    await app.registry.until(() => app.registry.first.played === 2);
    expect(drain.requests).to.equal(1);
    const ended = drain.begin(60_000);

    const refused = await app.post(CHAT, ask);
    expect(refused.status).to.equal(503);
    expect(refused.headers).to.include({ 'retry-after': '5', connection: 'close' });
    expect(refused.json.error).to.include({ type: 'server_error', code: 'draining' });
    const health = await app.call({ path: '/health' });
    expect([health.status, health.json.status]).to.deep.equal([503, 'draining']);
    expect((await app.call({ path: '/v1/models' })).status).to.equal(503);

    gate.open();
    expect((await streamed).at(-1)).to.equal('[DONE]');
    expect(await ended).to.equal(0);
    expect(app.registry.first.held).to.equal(0);
  });

  it('waits for responses in the background', async () => {
    const gate = new Gate();
    const drain = new Drain();
    await using app = await ScriptedApp.start(
      [{ id: 'org/one', chat: () => [started, content('a'), { wait: gate.opened }, finished()] }],
      { drain },
    );
    await app.post('/v1/responses', { model: 'org/one', input: 'hi', background: true });
    await app.registry.until(() => app.registry.first.played === 2);
    const ended = drain.begin(60_000);
    expect(drain.requests).to.be.greaterThan(0);
    gate.open();
    expect(await ended).to.equal(0);
    expect(app.registry.first.held).to.equal(0);
  });

  it('has a deadline', async () => {
    const drain = new Drain();
    await using app = await ScriptedApp.start(
      [{ id: 'org/one', chat: () => [started, content('a'), { wait: new Promise(() => undefined) }] }],
      { drain },
    );
    const cut = app.stream(CHAT, ask).catch(() => 'cut');
    await app.registry.until(() => app.registry.first.played === 2);
    expect(await drain.begin(1)).to.equal(1);
    app.server.closeAllConnections();
    expect(await cut).to.equal('cut');
    await app.registry.until(() => app.registry.first.held === 0);
  });

  it('fails what runs in the background past the deadline, queued or not', async () => {
    const drain = new Drain();
    const responses = createMemoryStore();
    const never = new Promise(() => undefined);
    const app = await ScriptedApp.start(
      [
        { id: 'org/one', chat: () => [started, content('a'), { wait: never }] },
        { id: 'org/two', load: never, chat: () => [started, finished()] },
      ],
      { drain, responses },
    );
    const ids: string[] = [];
    for (const model of ['org/one', 'org/two']) {
      ids.push((await app.post('/v1/responses', { model, input: 'hi', background: true })).json.id);
    }
    await app.registry.until(() => app.registry.first.played === 2);
    expect(await drain.begin(1)).to.equal(2);
    await closeServer(app.server);
    for (const id of ids) {
      const { response } = responses.of(undefined).get(id)!;
      expect([response.status, response.error!.message]).to.deep.equal([
        'failed',
        'the server stopped while the response was running',
      ]);
      expect(responses.of(undefined).events(id, -1, 100).at(-1)!.type).to.equal('response.failed');
    }
    expect([drain.requests, app.registry.first.held]).to.deep.equal([0, 0]);
  });

  it('is over at once when nothing runs', async () => {
    expect(await new Drain().begin(60_000)).to.equal(0);
  });
});
