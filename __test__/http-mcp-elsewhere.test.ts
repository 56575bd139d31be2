/** MCP where no request waits for it: in the background, over a WebSocket; and tools that take their time. */

import { expect } from 'chai';
import OpenAI from 'openai';

import { McpPool, type McpPoolOptions } from '../ts/mcp/client-pool.js';
import type { McpServer } from '../ts/mcp/tool.js';
import type { ResponseEvent } from '../ts/protocol/response-events.js';
import { checkLegal, checkSchema, collapsed } from './helpers/response-events.js';
import { Socket } from './helpers/response-socket.js';
import { dataOf, parseEvents, ScriptedApp } from './helpers/scripted-app.js';
import { adds, calculator, mcpTool, toolServer, waitingCalculator } from './helpers/scripted-mcp.js';
import { Gate } from './helpers/scripted-registry.js';

const ID = 'org/model';
const RESPONSES = '/v1/responses';

const added: unknown[] = [];
const calc = calculator(added);

const WHOLE = [
  ...['output_item.added', 'mcp_list_tools.in_progress', 'mcp_list_tools.completed', 'output_item.done'],
  ...['output_item.added', 'mcp_call.in_progress', 'mcp_call_arguments.delta', 'mcp_call_arguments.done'],
  ...['mcp_call.completed', 'output_item.done', 'output_item.added', 'content_part.added', 'output_text.delta'],
  ...['output_text.done', 'content_part.done', 'output_item.done', 'completed'],
];

describe('MCP elsewhere', () => {
  let pool: McpPool;
  beforeEach(() => {
    added.length = 0;
  });
  afterEach(() => pool.close());

  const open = (
    server: McpServer = calc,
    limits: McpPoolOptions['limits'] = {},
    options: Parameters<typeof ScriptedApp.start>[1] = {},
  ) => {
    pool = new McpPool({ limits });
    return ScriptedApp.start([{ id: ID, chat: adds }], {
      mcp: { pool, servers: new Map([[server.label, server]]) },
      ...options,
    });
  };
  const ask = (more: object = {}) => ({ model: ID, input: '1+2?', tools: [mcpTool('calc')], ...more });
  const asking = ask({ tools: [mcpTool('calc', { require_approval: 'always' })] });
  const answerTo = (response: any) => ({
    ...asking,
    previous_response_id: response.id,
    input: [{ type: 'mcp_approval_response', approval_request_id: response.output[1].id, approve: true }],
  });

  describe('in the background', () => {
    const replay = async (app: ScriptedApp, id: string, after = ''): Promise<ResponseEvent[]> => {
      const { text } = await app.call({ path: `${RESPONSES}/${id}?stream=true${after}` });
      const events = dataOf(parseEvents([Buffer.from(text)]));
      expect(events.pop()).to.equal('[DONE]');
      return events as ResponseEvent[];
    };

    it('lists, calls and answers, for whoever comes', async () => {
      await using app = await open();
      const { json } = await app.post(RESPONSES, ask({ background: true }));
      expect(json.status).to.equal('queued');
      const events = await replay(app, json.id);
      checkSchema(events);
      const response = checkLegal(events);
      expect(collapsed(events)).to.deep.equal(['created', 'queued', 'in_progress', ...WHOLE]);
      const listed = events.findIndex(({ type }) => type === 'response.mcp_list_tools.completed');
      expect(await replay(app, json.id, `&starting_after=${listed}`)).to.deep.equal(events.slice(listed + 1));
      expect((response.output[1] as any).output).to.equal('3');
      const client = new OpenAI({ baseURL: `${app.url}/v1`, apiKey: 'k', maxRetries: 0 });
      expect((await client.responses.retrieve(json.id)).output_text).to.equal('it is 3');
      expect((await client.responses.stream({ response_id: json.id }).finalResponse()).output_text).to.equal('it is 3');
    });

    it('asks for an approval, and acts on one once', async () => {
      await using app = await open();
      const { json } = await app.post(RESPONSES, { ...asking, background: true });
      const asked = checkLegal(await replay(app, json.id));
      expect(asked.output.map(({ type }) => type)).to.deep.equal(['mcp_list_tools', 'mcp_approval_request']);
      const both = await Promise.all([1, 2].map(() => app.post(RESPONSES, { ...answerTo(asked), background: true })));
      expect(both.map(({ status }) => status).sort()).to.deep.equal([200, 400]);
      const taken = both.find(({ status }) => status === 200)!;
      const done = checkLegal(await replay(app, taken.json.id));
      expect(done.output.map(({ type }) => type)).to.deep.equal(['mcp_call', 'message']);
      expect(added).to.have.length(1);
    });

    it('tells the tool to stop when it is cancelled, and goes on without a client', async () => {
      const [began, stopped] = [new Gate(), new Gate()];
      await using app = await open(waitingCalculator(began.open, stopped.open));
      const leave = new AbortController();
      const answer = await fetch(`${app.url}${RESPONSES}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(ask({ background: true, stream: true })),
        signal: leave.signal,
      });
      const first = await answer.body!.getReader().read();
      const id = /"id":"(resp_\w+)"/.exec(new TextDecoder().decode(first.value))![1]!;
      await began.opened;
      leave.abort();
      const { json } = await app.call({ path: `${RESPONSES}/${id}` });
      expect([json.status, json.output[1].type]).to.deep.equal(['in_progress', 'mcp_call']);
      const cancelled = await app.call({ method: 'POST', path: `${RESPONSES}/${id}/cancel` });
      expect(cancelled.json.status).to.equal('cancelled');
      await stopped.opened;
      expect(checkLegal(await replay(app, id)).output[1]).to.deep.include({ type: 'mcp_call', status: 'incomplete' });
    });

    it('tells the tool to stop when the server does, and the response has failed', async () => {
      const [began, stopped] = [new Gate(), new Gate()];
      const app = await open(waitingCalculator(began.open, stopped.open));
      const { json } = await app.post(RESPONSES, ask({ background: true }));
      const followed = replay(app, json.id).catch(() => 'cut off with the server');
      await began.opened;
      await app[Symbol.asyncDispose]();
      await stopped.opened;
      expect(await followed).to.equal('cut off with the server');
    });
  });

  describe('over a WebSocket', () => {
    it('lists, calls and answers', async () => {
      await using app = await open();
      using socket = await Socket.open(app);
      socket.send(ask());
      const events = await socket.events();
      checkSchema(events);
      checkLegal(events);
      expect(collapsed(events)).to.deep.equal(['created', 'in_progress', ...WHOLE]);
    });

    it('asks for an approval that only the connection knows, and acts on it once', async () => {
      await using app = await open();
      using socket = await Socket.open(app);
      socket.send({ ...asking, store: false });
      const asked = checkLegal(await socket.events());
      socket.send({ ...answerTo(asked), store: false });
      expect(checkLegal(await socket.events()).output[0]).to.deep.include({ type: 'mcp_call', output: '3' });
      socket.send({ ...answerTo(asked), store: false });
      expect((await socket.next()).error.code).to.equal('approval_already_answered');
      expect(added).to.have.length(1);
    });

    it('tells the tool to stop when the connection goes', async () => {
      const [began, stopped] = [new Gate(), new Gate()];
      await using app = await open(waitingCalculator(began.open, stopped.open));
      const socket = await Socket.open(app);
      socket.send(ask());
      await began.opened;
      socket.ws.terminate();
      await stopped.opened;
      await app.registry.until(() => app.registry.first.held === 0);
    });
  });

  describe('with tools that take their time', () => {
    /** Ten steps, each well within the time of a call, all together well beyond it. */
    const slow = toolServer('calc', {
      add: async (_args, { progress }) => {
        for (let step = 1; step <= 10; step++) {
          await new Promise((resolve) => setTimeout(resolve, 40));
          await progress(step);
        }
        return '3';
      },
    });
    const silent = toolServer('calc', { add: () => new Promise(() => undefined) });
    const patience = { callMs: 200, progressMs: 1 };

    it('waits while they report progress, and keeps the stream alive without events nobody knows', async () => {
      await using app = await open(slow, patience, { limits: { keepAliveMs: 50 } });
      const { text } = await app.post(RESPONSES, ask({ stream: true }));
      const events = dataOf(parseEvents([Buffer.from(text)])).slice(0, -1) as ResponseEvent[];
      checkSchema(events);
      expect((checkLegal(events).output[1] as any).output).to.equal('3');
      expect(collapsed(events)).to.deep.equal(['created', 'in_progress', ...WHOLE]);
      const whileItRan = text.slice(text.indexOf('mcp_call_arguments.done'), text.indexOf('mcp_call.completed'));
      expect(whileItRan.split(': keep-alive').length).to.be.greaterThan(3);
      const client = new OpenAI({ baseURL: `${app.url}/v1`, apiKey: 'k', maxRetries: 0 });
      expect((await client.responses.stream(ask() as any).finalResponse()).output_text).to.equal('it is 3');
    });

    it('does not wait for one that is silent: the model is told', async () => {
      await using app = await open(silent, patience);
      const { json } = await app.post(RESPONSES, ask());
      expect([json.status, json.output[1].status]).to.deep.equal(['completed', 'failed']);
      expect(json.output[2].content[0].text).to.match(/^it is Error: .*(time|answer)/);
    });

    it('does the same in chat completions', async () => {
      await using app = await open(slow, patience, { limits: { keepAliveMs: 50 } });
      const body = { model: ID, messages: [{ role: 'user', content: '1+2?' }], tools: [mcpTool('calc')], stream: true };
      const { text } = await app.post('/v1/chat/completions', body);
      expect(text).to.include(': keep-alive').and.include('it is 3');
    });
  });
});
