/** `/v1/conversations`, and responses that belong to one. */

import { expect } from 'chai';
import OpenAI from 'openai';

import type { ChatMessage } from '../ts/chat/types.js';
import { createMemoryStore } from '../ts/responses/memory-store.js';
import { content, finished, started } from './helpers/scripted-events.js';
import { type Answer, ScriptedApp } from './helpers/scripted-app.js';
import { checkLegal, checkSchema } from './helpers/response-events.js';
import { Gate, type ScriptedModelOptions } from './helpers/scripted-registry.js';

const ID = 'org/model';
const PATH = '/v1/conversations';
const RESPONSES = '/v1/responses';

const counts: ScriptedModelOptions = {
  id: ID,
  chat: ({ messages }) => [started, content(`n${messages.length}`), finished()],
};

const user = (text: string) => ({ role: 'user', content: text }) as const;

function told(app: ScriptedApp): string[] {
  return app.registry.first.chatRequests
    .at(-1)!
    .messages.map((m: ChatMessage) => `${m.role} ${typeof m.content === 'string' ? m.content : ''}`);
}

describe('/v1/conversations', () => {
  const clientOf = (app: ScriptedApp, apiKey = 'k') =>
    new OpenAI({ baseURL: `${app.url}/v1`, apiKey, maxRetries: 0 }).conversations;
  const refused = async (promise: Promise<unknown>): Promise<number | undefined> =>
    promise.then(
      () => undefined,
      (error: unknown) => (error as { status?: number }).status,
    );

  it('is made, looked at, changed and deleted by the openai client', async () => {
    await using app = await ScriptedApp.start([counts]);
    const client = clientOf(app);
    const empty = await client.create();
    expect(empty).to.deep.include({ object: 'conversation', metadata: {} });
    const made = await client.create({
      metadata: { a: '1' },
      items: [user('one'), { role: 'assistant', content: 'two' }],
    });
    expect(made.id).to.match(/^conv_[0-9a-f]{48}$/);
    expect(made.created_at).to.be.closeTo(Date.now() / 1000, 60);
    expect(await client.retrieve(made.id)).to.deep.equal(made);
    expect(await client.update(made.id, { metadata: { b: '2' } })).to.deep.equal({ ...made, metadata: { b: '2' } });
    expect((await client.retrieve(made.id)).metadata).to.deep.equal({ b: '2' });
    expect(await client.delete(made.id)).to.deep.equal({ id: made.id, object: 'conversation.deleted', deleted: true });
    expect(await refused(client.retrieve(made.id))).to.equal(404);
    expect(await refused(client.delete(made.id))).to.equal(404);
    expect(await refused(client.items.list(made.id))).to.equal(404);
  });

  it('holds items that can be listed in pages, read, added and deleted', async () => {
    await using app = await ScriptedApp.start([counts]);
    const client = clientOf(app);
    const { id } = await client.create({ items: [user('m0')] });
    const added = await client.items.create(id, { items: [1, 2, 3, 4].map((at) => user(`m${at}`)) });
    expect([added.object, added.data.length, added.has_more]).to.deep.equal(['list', 4, false]);
    expect([added.first_id, added.last_id]).to.deep.equal([added.data[0]!.id, added.data[3]!.id]);
    const texts: string[] = [];
    for await (const item of client.items.list(id, { limit: 2, order: 'asc' }))
      texts.push((item as any).content[0].text);
    expect(texts).to.deep.equal(['m0', 'm1', 'm2', 'm3', 'm4']);
    const newest = await client.items.list(id, { limit: 1 });
    expect([(newest.data[0] as any).content[0].text, newest.has_more]).to.deep.equal(['m4', true]);
    expect(await client.items.retrieve(added.data[1]!.id!, { conversation_id: id })).to.deep.equal(added.data[1]);
    expect((await client.items.delete(added.data[1]!.id!, { conversation_id: id })).id).to.equal(id);
    expect(await refused(client.items.retrieve(added.data[1]!.id!, { conversation_id: id }))).to.equal(404);
    expect(await refused(client.items.delete(added.data[1]!.id!, { conversation_id: id }))).to.equal(404);
    await app.post(RESPONSES, { model: ID, input: 'go', conversation: id });
    expect(told(app)).to.deep.equal(['user m0', 'user m1', 'user m3', 'user m4', 'user go']);
  });

  it('refuses what is wrong, by name', async () => {
    await using app = await ScriptedApp.start([counts]);
    const made = (await app.post(PATH, { items: [{ ...user('one'), id: 'msg_one' }] })).json;
    const many = Array.from({ length: 21 }, () => user('x'));
    const wrong: [string, object, string | null, string][] = [
      [PATH, { items: many }, 'items', 'invalid_value'],
      [PATH, { items: 'x' }, 'items', 'invalid_type'],
      [PATH, { items: [{ type: 'nothing' }] }, 'items[0].type', 'invalid_value'],
      [PATH, { items: [{ type: 'item_reference', id: 'msg_none' }] }, 'items[0].id', 'invalid_value'],
      [PATH, { metadata: { k: 1 } }, 'metadata.k', 'invalid_type'],
      [PATH, [], null, 'invalid_type'],
      [`${PATH}/${made.id}`, {}, 'metadata', 'missing_required_parameter'],
      [`${PATH}/${made.id}/items`, {}, 'items', 'missing_required_parameter'],
      [`${PATH}/${made.id}/items`, { items: [] }, 'items', 'invalid_value'],
      [`${PATH}/${made.id}/items`, { items: [{ ...user('two'), id: 'msg_one' }] }, 'items[0].id', 'invalid_value'],
      [
        `${PATH}/${made.id}/items`,
        { items: [1, 2].map(() => ({ ...user('two'), id: 'msg_two' })) },
        'items[1].id',
        'invalid_value',
      ],
      [
        RESPONSES,
        { model: ID, input: [{ ...user('x'), id: 'msg_one' }], conversation: made.id },
        'input[0].id',
        'invalid_value',
      ],
      [RESPONSES, { model: ID, input: 'x', conversation: 7 }, 'conversation', 'invalid_type'],
      [RESPONSES, { model: ID, input: 'x', conversation: {} }, 'conversation.id', 'missing_required_parameter'],
      [
        RESPONSES,
        { model: ID, input: 'x', conversation: made.id, previous_response_id: 'resp_x' },
        'conversation',
        'mutually_exclusive_parameters',
      ],
    ];
    for (const [path, body, param, code] of wrong) {
      const { status, json } = await app.post(path, body);
      expect([status, json.error.param, json.error.code], JSON.stringify(body)).to.deep.equal([400, param, code]);
    }
    for (const query of ['limit=0', 'limit=101', 'limit=x', 'order=up', 'after=msg_none']) {
      expect((await app.call({ path: `${PATH}/${made.id}/items?${query}` })).status, query).to.equal(400);
    }
    const absent = await app.post(RESPONSES, { model: ID, input: 'x', conversation: 'conv_none' });
    expect([absent.status, absent.json.error.param]).to.deep.equal([404, 'conversation']);
    expect((await app.post(`${PATH}/conv_none/items`, { items: [user('x')] })).status).to.equal(404);
    expect((await app.post(`${PATH}/conv_none`, { metadata: {} })).status).to.equal(404);
  });

  it('is not there where nothing is stored', async () => {
    await using app = await ScriptedApp.start([counts], { responses: false });
    expect((await app.post(PATH, {})).status).to.equal(404);
    const asked = await app.post(RESPONSES, { model: ID, input: 'x', conversation: 'conv_1' });
    expect([asked.status, asked.json.error.code]).to.deep.equal([400, 'unsupported_parameter']);
  });

  it('is its key’s own, as responses are: for others it is absent', async () => {
    await using app = await ScriptedApp.start([counts], { apiKeys: ['mine', 'theirs'] });
    const as = (key: string) => {
      const headers = { authorization: `Bearer ${key}` };
      return {
        get: (path: string) => app.call({ path, headers }),
        delete: (path: string) => app.call({ method: 'DELETE', path, headers }),
        post: (path: string, body: object) => app.post(path, body, headers),
      };
    };
    const [me, you] = [as('mine'), as('theirs')];
    const talk = (await me.post(PATH, { items: [{ ...user('a secret'), id: 'msg_secret' }] })).json.id;
    const plain = (await me.post(RESPONSES, { model: ID, input: 'hi' })).json.id;
    const later = (await me.post(RESPONSES, { model: ID, input: 'hi', background: true })).json.id;
    const ask = { model: ID, input: 'x' };
    const attempts: Promise<Answer>[] = [
      ...[plain, later].flatMap((id: string) => [
        you.get(`${RESPONSES}/${id}`),
        you.get(`${RESPONSES}/${id}?stream=true`),
        you.get(`${RESPONSES}/${id}/input_items`),
        you.post(`${RESPONSES}/${id}/cancel`, {}),
        you.delete(`${RESPONSES}/${id}`),
      ]),
      you.get(`${PATH}/${talk}`),
      you.get(`${PATH}/${talk}/items`),
      you.get(`${PATH}/${talk}/items/msg_secret`),
      you.post(`${PATH}/${talk}`, { metadata: {} }),
      you.post(`${PATH}/${talk}/items`, { items: [user('forged')] }),
      you.delete(`${PATH}/${talk}/items/msg_secret`),
      you.delete(`${PATH}/${talk}`),
      you.post(RESPONSES, { ...ask, conversation: talk }),
      you.post(`${RESPONSES}/input_tokens`, { ...ask, conversation: talk }),
    ];
    for (const { status, text } of await Promise.all(attempts)) {
      expect(status, text).to.equal(404);
      expect(text).not.to.include('secret');
    }
    for (const body of [
      { ...ask, previous_response_id: plain },
      { ...ask, input: [{ type: 'item_reference', id: 'msg_secret' }] },
    ]) {
      const theirs = await you.post(RESPONSES, body);
      const none = JSON.stringify(body).replace(plain, 'resp_0').replace('msg_secret', 'msg_0');
      expect(theirs.status).to.equal(400);
      // The very answer that an id gets which never was.
      const absent = await you.post(RESPONSES, JSON.parse(none) as object);
      expect(theirs.text.replace(plain, 'resp_0')).to.equal(absent.text);
    }
    expect((await me.get(`${PATH}/${talk}/items`)).json.data).to.have.length(1);
    expect((await me.get(`${RESPONSES}/${plain}`)).status).to.equal(200);
    expect((await me.get(`${RESPONSES}/${later}`)).json.status).not.to.equal('cancelled');
  });
});

describe('a response in a conversation', () => {
  const itemsOf = async (app: ScriptedApp, id: string): Promise<string[]> => {
    const { json } = await app.call({ path: `${PATH}/${id}/items?order=asc` });
    return json.data.map(({ role, content: [part] }: any) => `${role} ${part?.text ?? ''}`);
  };
  const begin = async (app: ScriptedApp): Promise<string> => (await app.post(PATH, { items: [user('hello')] })).json.id;

  it('reads it and adds to it: streamed, whole, in the background, not stored', async () => {
    await using app = await ScriptedApp.start([counts]);
    const id = await begin(app);
    const events = (await app.stream(RESPONSES, { model: ID, input: 'a', conversation: { id } })) as any[];
    expect(events.pop()).to.equal('[DONE]');
    checkSchema(events);
    expect(checkLegal(events).conversation).to.deep.equal({ id });
    const whole = await app.post(RESPONSES, { model: ID, input: 'b', conversation: id, store: false });
    expect((await app.call({ path: `${RESPONSES}/${whole.json.id}` })).status).to.equal(404);
    const { json } = await app.post(RESPONSES, { model: ID, input: 'c', conversation: id, background: true });
    await app.call({ path: `${RESPONSES}/${json.id}?stream=true` });
    expect(await itemsOf(app, id)).to.deep.equal([
      ...['user hello', 'user a', 'assistant n2', 'user b', 'assistant n4', 'user c', 'assistant n6'],
    ]);
    expect(told(app)).to.deep.equal((await itemsOf(app, id)).slice(0, -1));
    const counted = await app.post(`${RESPONSES}/input_tokens`, { model: ID, input: 'd e f', conversation: id });
    const bare = await app.post(`${RESPONSES}/input_tokens`, { model: ID, input: 'd e f' });
    expect(counted.json.input_tokens).to.be.greaterThan(bare.json.input_tokens);
    // The input alone may be what the conversation already says.
    expect((await app.post(RESPONSES, { model: ID, conversation: id })).status).to.equal(200);
  });

  it('adds nothing if it fails or is cancelled, and what there is if it was cut off', async () => {
    const never = new Gate();
    await using app = await ScriptedApp.start([
      {
        id: ID,
        chat: ({ messages }) => {
          const text = messages.at(-1)!.content;
          if (text === 'fail') return [started, content('x'), { fail: new Error('boom') }];
          if (text === 'wait') return [started, content('x'), { wait: never.opened }];
          return [started, content('half'), finished('length')];
        },
      },
    ]);
    const id = await begin(app);
    expect((await app.post(RESPONSES, { model: ID, input: 'fail', conversation: id })).status).to.equal(500);
    const { json } = await app.post(RESPONSES, { model: ID, input: 'wait', conversation: id, background: true });
    await app.call({ method: 'POST', path: `${RESPONSES}/${json.id}/cancel` });
    expect(await itemsOf(app, id)).to.deep.equal(['user hello']);
    const cut = await app.post(RESPONSES, { model: ID, input: 'cut', conversation: id });
    expect(cut.json.status).to.equal('incomplete');
    expect(await itemsOf(app, id)).to.deep.equal(['user hello', 'user cut', 'assistant half']);
  });

  it('has it to itself until its end', async () => {
    const gate = new Gate();
    await using app = await ScriptedApp.start([
      { id: ID, chat: () => [started, content('a'), { wait: gate.opened }, finished()] },
    ]);
    const id = await begin(app);
    const first = app.post(RESPONSES, { model: ID, input: 'one', conversation: id });
    await app.registry.until(() => app.registry.first.played === 2);
    const second = await app.post(RESPONSES, { model: ID, input: 'two', conversation: id });
    expect([second.status, second.json.error.code]).to.deep.equal([400, 'conversation_locked']);
    // A conversation of its own is nobody's business.
    const other = app.post(RESPONSES, { model: ID, input: 'x', conversation: await begin(app) });
    gate.open();
    expect([(await first).status, (await other).status]).to.deep.equal([200, 200]);
    for (let i = 0; i < 3; i++) {
      const { events } = {
        events: (await app.stream(RESPONSES, { model: ID, input: 'x', conversation: id })) as any[],
      };
      expect(events.at(-2).type).to.equal('response.completed');
    }
  });

  it('frees it when its client leaves, and when it is refused', async () => {
    const never = new Gate();
    await using app = await ScriptedApp.start([
      {
        id: ID,
        chat: ({ messages }) => (messages.length === 2 ? [started, { wait: never.opened }] : [started, finished()]),
      },
    ]);
    const id = await begin(app);
    const leave = new AbortController();
    const answer = fetch(`${app.url}${RESPONSES}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: ID, input: 'one', conversation: id }),
      signal: leave.signal,
    }).catch((error: unknown) => error);
    await app.registry.until(() => app.registry.first.running === 1);
    leave.abort();
    expect(await answer).to.have.property('name', 'AbortError');
    await app.registry.until(() => app.registry.first.held === 0);
    for (const body of [{ model: 'none' }, { tools: [{ type: 'mcp', server_label: 'x' }] }]) {
      expect((await app.post(RESPONSES, { model: ID, input: 'x', conversation: id, ...body })).status).to.be.oneOf([
        400, 404,
      ]);
    }
    const input = [user('two'), user('three')];
    expect((await app.post(RESPONSES, { model: ID, input, conversation: id })).status).to.equal(200);
  });

  it('is continued by its conversation, not by its id alone', async () => {
    await using app = await ScriptedApp.start([counts], { responses: createMemoryStore() });
    const id = await begin(app);
    const { json } = await app.post(RESPONSES, { model: ID, input: 'a', conversation: id });
    const next = await app.post(RESPONSES, { model: ID, input: 'b', previous_response_id: json.id });
    expect([next.status, next.json.error.param]).to.deep.equal([400, 'previous_response_id']);
    expect(next.json.error.message).to.include(id);
  });
});
