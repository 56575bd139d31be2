import { expect } from 'chai';

import { EngineError, type LoadProgress } from '../ts/engine/types.js';
import { dataOf, parseEvents, ScriptedApp } from './helpers/scripted-app.js';
import { Gate } from './helpers/scripted-registry.js';

const PATH = '/load_model';

async function events(app: ScriptedApp, body: object): Promise<unknown[]> {
  const answer = await app.post(PATH, body);
  expect(answer.status).to.equal(200);
  expect(answer.headers['content-type']).to.match(/^text\/event-stream/);
  return dataOf(parseEvents([Buffer.from(answer.text)]));
}

describe('POST /load_model', () => {
  const progress: readonly LoadProgress[] = [
    { stage: 'resolve' },
    { stage: 'download', file: 'a', done: 0, total: 1000 },
    { stage: 'download', file: 'a', done: 1000, total: 1000 },
    { stage: 'weights', done: 0.25, total: 1 },
    { stage: 'weights', done: 0.25, total: 1 },
    { stage: 'weights', done: 0.999, total: 1 },
  ];

  it('tells the stages in order, ends with ready and has no [DONE]', async () => {
    await using app = await ScriptedApp.start([{ id: 'org/one', state: 'available', progress }]);
    const all = (await events(app, { model: 'org/one' })) as any[];
    expect(all.slice(0, 2)).to.deep.equal([
      { status: 'loading', model: 'org/one', stage: 'processor' },
      { status: 'loading', model: 'org/one', stage: 'config' },
    ]);
    const middle = all.slice(2, -1);
    expect(middle.every(({ status, model }) => status === 'loading' && model === 'org/one')).to.equal(true);
    const stages = middle.map(({ stage }) => ['download', 'weights'].indexOf(stage as string));
    expect(stages).to.deep.equal([...stages].sort());
    const weights = middle.filter(({ stage }) => stage === 'weights').map((event) => event.progress);
    expect(weights.at(-1)).to.deep.equal({ current: 100, total: 100 });
    expect(all.at(-1)).to.deep.equal({ status: 'ready', model: 'org/one', cached: false });
  });

  it('tells a slow load as it goes, to all who wait for it', async () => {
    const gate = new Gate();
    await using app = await ScriptedApp.start([
      { id: 'org/one', state: 'loading', load: gate.opened, progress: [{ stage: 'weights', done: 1, total: 2 }] },
    ]);
    const both = [1, 2].map(() => events(app, { model: 'org/one' }));
    await app.registry.until(() => app.registry.asked.length === 2);
    gate.open();
    for (const all of await Promise.all(both)) {
      expect(all).to.deep.include({
        status: 'loading',
        model: 'org/one',
        stage: 'weights',
        progress: { current: 50, total: 100 },
      });
      expect(all.at(-1)).to.deep.equal({ status: 'ready', model: 'org/one', cached: false });
    }
    expect(app.registry.first.held).to.equal(0);
  });

  it('says at once that a model is loaded; without a name it is the one that is served', async () => {
    await using app = await ScriptedApp.start([{ id: 'org/one' }], { pinned: 'org/one' });
    const ready = [{ status: 'ready', model: 'org/one', cached: true }];
    expect(await events(app, { model: 'org/one' })).to.deep.equal(ready);
    expect(await events(app, {})).to.deep.equal(ready);
  });

  it('ends with what went wrong, as JSON that holds any message', async () => {
    const load = Promise.reject(new EngineError('model_unsupported', 'no "such"\narchitecture'));
    load.catch(() => undefined);
    await using app = await ScriptedApp.start([{ id: 'org/one', state: 'available', load }]);
    expect(await events(app, { model: 'org/one' })).to.deep.equal([
      { status: 'error', model: 'org/one', message: 'no "such"\narchitecture', code: 'model_unsupported' },
    ]);
    const [missing] = (await events(app, { model: 'org/none' })) as any[];
    expect(missing).to.include({ status: 'error', model: 'org/none', code: 'model_not_found' });
  });

  it('refuses a body that is none, as every route does', async () => {
    await using app = await ScriptedApp.start([{ id: 'org/one' }]);
    const unnamed = await app.post(PATH, {});
    expect([unnamed.status, unnamed.json.error.code]).to.deep.equal([400, 'missing_required_parameter']);
    expect((await app.post(PATH, { model: 7 })).json.error).to.include({ code: 'invalid_type', param: 'model' });
    expect((await app.post(PATH, '[')).status).to.equal(400);
  });

  it('stops waiting when its client goes away', async () => {
    await using app = await ScriptedApp.start([
      { id: 'org/one', state: 'available', load: new Promise(() => undefined) },
    ]);
    const abort = new AbortController();
    const gone = fetch(`${app.url}${PATH}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{"model":"org/one"}',
      signal: abort.signal,
    }).catch(() => undefined);
    await app.registry.until(() => app.registry.asked.length === 1);
    abort.abort();
    await gone;
    await app.registry.until(() => app.registry.loadsAbandoned === 1);
  });
});

describe('POST /reset', () => {
  it('unloads what nobody uses and says what', async () => {
    await using app = await ScriptedApp.start([{ id: 'org/one' }, { id: 'org/two' }]);
    const held = app.registry.first.hold();
    expect((await app.call({ method: 'POST', path: '/reset' })).json).to.deep.equal({
      status: 'ok',
      unloaded: ['org/two'],
    });
    held[Symbol.dispose]();
  });
});
