/** Approvals of MCP calls: asked for, answered once, told of. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { expect } from 'chai';

import { McpPool } from '../ts/mcp/client-pool.js';
import type { ResponseEvent } from '../ts/protocol/response-events.js';
import { openSqliteStore } from '../ts/responses/sqlite-store.js';
import { checkLegal, checkSchema, collapsed } from './helpers/response-events.js';
import { ScriptedApp } from './helpers/scripted-app.js';
import { adds, calculator, mcpTool, told } from './helpers/scripted-mcp.js';

const ID = 'org/model';
const RESPONSES = '/v1/responses';

const added: unknown[] = [];
const calc = calculator(added);

describe('approvals of MCP calls', () => {
  let pool: McpPool;
  beforeEach(() => {
    pool = new McpPool();
    added.length = 0;
  });
  afterEach(() => pool.close());

  const open = (options: Parameters<typeof ScriptedApp.start>[1] = {}) =>
    ScriptedApp.start([{ id: ID, chat: adds }], { mcp: { pool, servers: new Map([['calc', calc]]) }, ...options });
  const eventsOf = async (app: ScriptedApp, request: object): Promise<ResponseEvent[]> => {
    const events = (await app.stream(RESPONSES, request)).slice(0, -1) as ResponseEvent[];
    checkSchema(events);
    return events;
  };
  const asking = { model: ID, input: '1+2?', tools: [mcpTool('calc', { require_approval: 'always' })] };
  const answerTo = (response: any, approve: boolean, more: object = {}) => ({
    ...asking,
    previous_response_id: response.id,
    input: [{ type: 'mcp_approval_response', approval_request_id: response.output[1].id, approve, ...more }],
  });

  it('end the response, and lead to the call in the next', async () => {
    await using app = await open();
    const events = await eventsOf(app, asking);
    const asked = checkLegal(events);
    expect(collapsed(events).slice(-3)).to.deep.equal(['output_item.added', 'output_item.done', 'completed']);
    expect(asked.output[1]).to.deep.include({
      type: 'mcp_approval_request',
      name: 'add',
      arguments: '{"a":1,"b":2}',
    });
    expect(added).to.deep.equal([]);

    const next = await eventsOf(app, answerTo(asked, true));
    const done = checkLegal(next);
    expect(collapsed(next).slice(0, 8)).to.deep.equal([
      ...['created', 'in_progress', 'output_item.added', 'mcp_call.in_progress', 'mcp_call_arguments.delta'],
      ...['mcp_call_arguments.done', 'mcp_call.completed', 'output_item.done'],
    ]);
    const [made, message] = done.output as any[];
    expect(made.approval_request_id).to.equal(asked.output[1]!.id);
    expect([made.output, message.content[0].text]).to.deep.equal(['3', 'it is 3']);
    expect(told(app.registry.first.chatRequests.at(-1)!)).to.deep.equal([
      'user: 1+2?',
      'assistant calls add',
      'tool: 3',
    ]);
  });

  it('are answered once: the same answer again, or another one, is a 400', async () => {
    await using app = await open();
    const { json: asked } = await app.post(RESPONSES, asking);
    const refused = async (body: object): Promise<void> => {
      const { status, json } = await app.post(RESPONSES, body);
      expect([status, json.error.code, json.error.param]).to.deep.equal([400, 'approval_already_answered', 'input']);
    };
    // Side by side as well.
    const both = await Promise.all([1, 2].map(() => app.post(RESPONSES, answerTo(asked, true))));
    expect(both.map(({ status }) => status).sort()).to.deep.equal([200, 400]);
    const { json: done } = both.find(({ status }) => status === 200)!;
    await refused(answerTo(asked, true));
    await refused({ ...answerTo(asked, true), stream: true });
    await refused({ ...answerTo(asked, true), background: true });
    await refused(answerTo(asked, false));
    await refused({ ...answerTo(asked, true), previous_response_id: done.id });
    expect(added).to.have.length(1);

    const { json: other } = await app.post(RESPONSES, asking);
    expect((await app.post(RESPONSES, answerTo(other, false))).status).to.equal(200);
    await refused(answerTo(other, true));
    expect(added).to.have.length(1);
  });

  it('are given back if nothing came of the answer', async () => {
    await using app = await open();
    const { json: asked } = await app.post(RESPONSES, asking);
    const elsewhere = await app.post(RESPONSES, { ...answerTo(asked, true), model: 'none' });
    expect(elsewhere.status).to.equal(404);
    const wrong = await app.post(RESPONSES, { ...answerTo(asked, true), tools: [mcpTool('what')] });
    expect(wrong.status).to.equal(400);
    expect((await app.post(RESPONSES, answerTo(asked, true))).status).to.equal(200);
    expect(added).to.have.length(1);
  });

  it('are answered once by clients that keep the conversation themselves, who may tell of it ever after', async () => {
    await using app = await open();
    const first = (await app.post(RESPONSES, { ...asking, store: false })).json;
    const history: any[] = [{ role: 'user', content: '1+2?' }, ...first.output];
    const answer = { type: 'mcp_approval_response', approval_request_id: first.output[1].id, approve: true };
    const ask = (input: any[]) => app.post(RESPONSES, { ...asking, store: false, input });
    const done = (await ask([...history, answer])).json;
    expect(done.output.at(-1).content[0].text).to.equal('it is 3');
    expect((await ask([...history, answer])).json.error.code).to.equal('approval_already_answered');
    const next = await ask([...history, answer, ...done.output, { role: 'user', content: 'thanks' }]);
    expect(next.status).to.equal(200);
    // One that loses the call on the way.
    const lost = [...history, answer, done.output.at(-1), { role: 'user', content: 'thanks' }];
    expect((await ask(lost)).status).to.equal(200);
    expect(told(app.registry.first.chatRequests.at(-1)!)).to.include(
      'tool: This call was allowed before. It is not run again, and its result is not known.',
    );
    expect(added).to.have.length(1);
  });

  it('are answered once in a conversation', async () => {
    await using app = await open();
    const { id } = (await app.post('/v1/conversations', {})).json;
    const talking = { ...asking, conversation: id };
    const { json: asked } = await app.post(RESPONSES, talking);
    const input = [{ type: 'mcp_approval_response', approval_request_id: asked.output[1].id, approve: true }];
    const done = await app.post(RESPONSES, { ...talking, input });
    expect(done.json.output[0]).to.deep.include({ type: 'mcp_call', output: '3' });
    const again = await app.post(RESPONSES, { ...talking, input });
    expect([again.status, again.json.error.code]).to.deep.equal([400, 'approval_already_answered']);
    expect(added).to.have.length(1);
  });

  it('are counted as not answered, and stay open', async () => {
    await using app = await open();
    const { json: asked } = await app.post(RESPONSES, asking);
    const { status, json } = await app.post('/v1/responses/input_tokens', answerTo(asked, true));
    expect(status).to.equal(200);
    expect(json.input_tokens).to.be.greaterThan(0);
    expect(added).to.deep.equal([]);
    expect((await app.post(RESPONSES, answerTo(asked, true))).status).to.equal(200);
  });

  it('that are denied are told to the model', async () => {
    await using app = await open();
    const { json } = await app.post(RESPONSES, asking);
    const next = await app.post(RESPONSES, answerTo(json, false, { reason: 'too dear' }));
    expect(next.json.output.map(({ type }: any) => type)).to.deep.equal(['message']);
    expect(told(app.registry.first.chatRequests.at(-1)!).at(-1)).to.match(/^tool: The user did not allow.*too dear$/);
    expect(added).to.deep.equal([]);
  });

  it('that were never answered are told as well', async () => {
    await using app = await open();
    const { json } = await app.post(RESPONSES, asking);
    await app.post(RESPONSES, { ...asking, previous_response_id: json.id, input: 'never mind' });
    expect(told(app.registry.first.chatRequests[1]!).slice(1)).to.deep.equal([
      'assistant calls add',
      'tool: The user has not answered whether this call may be run; it was not run.',
      'user: never mind',
    ]);
  });

  it('that nobody asked for are a 400', async () => {
    await using app = await open();
    const input = [{ type: 'mcp_approval_response', approval_request_id: 'mcpr_x', approve: true }];
    for (const body of [
      { ...asking, input },
      { model: ID, input },
    ]) {
      const { status, json } = await app.post(RESPONSES, body);
      expect([status, json.error.param]).to.deep.equal([400, 'input']);
      expect(json.error.message).to.include('mcpr_x');
    }
  });

  it('run nothing of a server that the request does not name', async () => {
    await using app = await open();
    const { json } = await app.post(RESPONSES, asking);
    const next = await app.post(RESPONSES, { ...answerTo(json, true), tools: [] });
    expect(next.json.output[0]).to.deep.include({ type: 'mcp_call', status: 'failed' });
    expect(added).to.deep.equal([]);
  });

  it('are answered once over a restart, and apart by key', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'tsserve-approvals-'));
    const file = path.join(folder, 'responses.db');
    try {
      let asked: any;
      for (const round of [0, 1, 2]) {
        const responses = openSqliteStore(file);
        await using app = await open({ responses, apiKeys: ['mine', 'theirs'] });
        const as = (key: string, body: object) => app.post(RESPONSES, body, { authorization: `Bearer ${key}` });
        if (round === 0) asked = (await as('mine', asking)).json;
        // Another key cannot use the answer up.
        expect((await as('theirs', answerTo(asked, true))).json.error.code).to.equal('previous_response_not_found');
        const { status, json } = await as('mine', answerTo(asked, true));
        if (round === 0) expect(status).to.equal(200);
        else expect([status, json.error.code]).to.deep.equal([400, 'approval_already_answered']);
        responses.close();
      }
      expect(added).to.have.length(1);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it('are answered once where nothing is stored', async () => {
    await using app = await open({ responses: false });
    const first = (await app.post(RESPONSES, asking)).json;
    const answer = { type: 'mcp_approval_response', approval_request_id: first.output[1].id, approve: true };
    const input = [{ role: 'user', content: '1+2?' }, ...first.output, answer];
    const both = await Promise.all([1, 2].map(() => app.post(RESPONSES, { ...asking, input })));
    expect(both.map(({ status }) => status).sort()).to.deep.equal([200, 400]);
    expect(added).to.have.length(1);
  });
});
