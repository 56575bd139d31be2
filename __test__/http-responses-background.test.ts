/** Responses in the background, replay, cancellation, and what is left after a restart. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { expect } from 'chai';
import OpenAI from 'openai';

import type { ResponseEvent } from '../ts/protocol/response-events.js';
import { createMemoryStore } from '../ts/responses/memory-store.js';
import { openSqliteStore } from '../ts/responses/sqlite-store.js';
import type { ResponseStore } from '../ts/responses/store.js';
import { checkLegal, checkSchema, typesOf } from './helpers/response-events.js';
import { content, finished, started } from './helpers/scripted-events.js';
import { dataOf, parseEvents, ScriptedApp } from './helpers/scripted-app.js';
import { Gate } from './helpers/scripted-registry.js';

const ID = 'org/model';
const PATH = '/v1/responses';

async function replay(app: ScriptedApp, id: string, after?: number): Promise<ResponseEvent[]> {
  const query = after === undefined ? '' : `&starting_after=${after}`;
  const { text } = await app.call({ path: `${PATH}/${id}?stream=true${query}` });
  const events = dataOf(parseEvents([Buffer.from(text)]));
  expect(events.pop()).to.equal('[DONE]');
  return events as ResponseEvent[];
}

describe('background responses', () => {
  it('are queued at once, can be looked at meanwhile, and fetched at the end', async () => {
    const gate = new Gate();
    await using app = await ScriptedApp.start([
      { id: ID, chat: () => [started, content('a'), { wait: gate.opened }, content('b'), finished()] },
    ]);
    const client = new OpenAI({ baseURL: `${app.url}/v1`, apiKey: 'k', maxRetries: 0 });
    const queued = await client.responses.create({ model: ID, input: 'hi', background: true });
    expect([queued.status, queued.output]).to.deep.equal(['queued', []]);
    const model = app.registry.first;
    await app.registry.until(() => model.played === 2);
    const meanwhile = await client.responses.retrieve(queued.id);
    expect(['in_progress', 'queued']).to.include(meanwhile.status);
    const chained = await app.post(PATH, { model: ID, input: 'x', previous_response_id: queued.id });
    expect(chained.status).to.equal(400);

    gate.open();
    const events = await replay(app, queued.id);
    checkSchema(events);
    const response = checkLegal(events);
    expect(typesOf(events).slice(0, 3)).to.deep.equal(['created', 'queued', 'in_progress']);
    expect((await app.call({ path: `${PATH}/${queued.id}` })).json).to.deep.equal(response);
    expect(await replay(app, queued.id, 4)).to.deep.equal(events.slice(5));
    expect(await replay(app, queued.id, 1000)).to.deep.equal([]);
    expect((await app.call({ path: `${PATH}/${queued.id}?stream=true&starting_after=x` })).status).to.equal(400);
  });

  it('stream on while nobody listens', async () => {
    const gate = new Gate();
    await using app = await ScriptedApp.start([
      { id: ID, chat: () => [started, content('a'), { wait: gate.opened }, content('b'), finished()] },
    ]);
    const client = new OpenAI({ baseURL: `${app.url}/v1`, apiKey: 'k', maxRetries: 0 });
    const stream = await client.responses.create({ model: ID, input: 'hi', background: true, stream: true });
    let id = '';
    let last = -1;
    for await (const event of stream) {
      if (event.type === 'response.created') ({ id } = event.response);
      last = event.sequence_number;
      if (event.type === 'response.output_text.delta') break;
    }
    gate.open();
    const resumed = await client.responses.retrieve(id, { stream: true, starting_after: last });
    const types: string[] = [];
    for await (const event of resumed) types.push(event.type);
    expect(types[0]).to.equal('response.output_text.delta');
    expect(types.at(-1)).to.equal('response.completed');
    expect(app.registry.first.cancelled).to.equal(0);
    const helped = client.responses.stream({ response_id: id });
    expect((await helped.finalResponse()).output_text).to.equal('ab');
  });

  it('are cancelled once and for all', async () => {
    const never = new Gate();
    await using app = await ScriptedApp.start([
      { id: ID, chat: () => [started, content('a'), { wait: never.opened }] },
    ]);
    const { json } = await app.post(PATH, { model: ID, input: 'hi', background: true });
    const model = app.registry.first;
    await app.registry.until(() => model.played === 2);
    const listening = replay(app, json.id);
    for (let i = 0; i < 2; i++) {
      const cancelled = await app.call({ method: 'POST', path: `${PATH}/${json.id}/cancel` });
      expect([cancelled.status, cancelled.json.status]).to.deep.equal([200, 'cancelled']);
    }
    const response = checkLegal(await listening);
    expect(response.status).to.equal('cancelled');
    await app.registry.until(() => model.running === 0 && model.held === 0);
    const sync = await app.call({ method: 'POST', path: `${PATH}/resp_no/cancel` });
    expect(sync.status).to.equal(404);
  });

  it('that are deleted stop, and stay gone', async () => {
    const never = new Gate();
    await using app = await ScriptedApp.start([
      { id: ID, chat: () => [started, content('a'), { wait: never.opened }] },
    ]);
    const { json } = await app.post(PATH, { model: ID, input: 'hi', background: true });
    const model = app.registry.first;
    await app.registry.until(() => model.played === 2);
    expect((await app.call({ method: 'DELETE', path: `${PATH}/${json.id}` })).json.deleted).to.be.true;
    await app.registry.until(() => model.running === 0 && model.held === 0);
    expect((await app.call({ path: `${PATH}/${json.id}` })).status).to.equal(404);
  });

  it('fail in their own stream, and refuse what cannot be', async () => {
    await using app = await ScriptedApp.start([
      { id: ID, chat: () => [{ fail: new Error('boom') }] },
      { id: 'broken', load: Promise.reject(new Error('no weights')) },
    ]);
    for (const model of [ID, 'broken']) {
      const { json } = await app.post(PATH, { model, input: 'hi', background: true });
      const response = checkLegal(await replay(app, json.id));
      expect([response.status, response.error!.code]).to.deep.equal(['failed', 'server_error']);
      expect(response.error!.message).not.to.match(/boom|no weights/);
    }
    expect((await app.post(PATH, { model: 'none', input: 'hi', background: true })).status).to.equal(404);
    expect(
      (await app.post(PATH, { model: ID, input: 'hi', background: true, store: false })).json.error.param,
    ).to.equal('background');
  });
});

describe('a store that breaks', () => {
  it('fails the request that was to be kept, and the server goes on', async () => {
    const store = createMemoryStore();
    let broken = false;
    const responses: ResponseStore = {
      ...store,
      of: (caller) => ({
        ...store.of(caller),
        put: (stored) => {
          if (broken) throw new Error('the disk is full');
          store.of(caller).put(stored);
        },
      }),
    };
    const gate = new Gate();
    await using app = await ScriptedApp.start(
      [{ id: ID, chat: () => [started, content('a'), { wait: gate.opened }, finished()] }],
      { responses },
    );
    const { json } = await app.post(PATH, { model: ID, input: 'hi', background: true });
    broken = true;
    gate.open();
    expect((await app.post(PATH, { model: ID, input: 'hi' })).status).to.equal(500);
    const streamed = (await app.stream(PATH, { model: ID, input: 'hi' })) as any[];
    expect(streamed.at(-1).error.code).to.equal('internal_error');
    expect((await app.post(PATH, { model: ID, input: 'hi', store: false })).status).to.equal(200);
    await replay(app, json.id);
    expect(app.log.some((line) => line.includes(`the end of ${json.id} is not stored`))).to.be.true;
  });
});

describe('an orderly stop', () => {
  let folder: string;
  before(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'tsserve-restart-'));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  it('leaves chains whole, and fails what it interrupts before it is over', async () => {
    const file = path.join(folder, 'responses.db');
    const never = new Gate();
    const model = {
      id: ID,
      chat: ({ messages }: { messages: readonly { content: unknown }[] }) =>
        messages.at(-1)!.content === 'wait'
          ? [started, content('x'), { wait: never.opened }]
          : [started, content(`n${messages.length}`), finished()],
    };
    const before = openSqliteStore(file);
    let first: any;
    let running: any;
    {
      await using app = await ScriptedApp.start([model], { responses: before });
      first = (await app.post(PATH, { model: ID, input: 'one' })).json;
      running = (await app.post(PATH, { model: ID, input: 'wait', background: true })).json;
      await app.registry.until(() => app.registry.first.played === 5);
    }
    expect(before.unfinished()).to.deep.equal([]);
    expect(before.of(undefined).get(running.id)!.response.status).to.equal('failed');
    before.close();
    const after = openSqliteStore(file);
    await using app = await ScriptedApp.start([model], { responses: after });
    const second = await app.post(PATH, { model: ID, input: 'two', previous_response_id: first.id });
    expect(second.json.output[0].content[0].text).to.equal('n3');
    const cut = checkLegal(await replay(app, running.id));
    expect([cut.status, cut.error!.message]).to.deep.equal([
      'failed',
      'the server stopped while the response was running',
    ]);
    checkSchema(await replay(app, running.id));
    expect((cut.output[0] as any).content[0].text).to.equal('x');
    after.close();
  });
});
