/** MCP behind HTTP: a scripted model, servers in this process, the events and the wire. */

import { expect } from 'chai';
import OpenAI from 'openai';

import type { ChatEvent, ChatRequest } from '../ts/chat/types.js';
import type { McpServices } from '../ts/http/mcp.js';
import { McpPool } from '../ts/mcp/client-pool.js';
import type { McpServer } from '../ts/mcp/tool.js';
import type { ResponseEvent } from '../ts/protocol/response-events.js';
import { asChat, call, checkLegal, checkSchema, collapsed } from './helpers/response-events.js';
import { content, finished, started } from './helpers/scripted-events.js';
import { parseEvents, dataOf, ScriptedApp } from './helpers/scripted-app.js';
import { ADD, adds, calculator, mcpTool, told, toolServer, waitingCalculator } from './helpers/scripted-mcp.js';
import { Gate } from './helpers/scripted-registry.js';

const ID = 'org/model';
const RESPONSES = '/v1/responses';
const CHAT = '/v1/chat/completions';

const added: unknown[] = [];
const calc = calculator(added);
const gone: McpServer = {
  label: 'gone',
  trusted: true,
  reach: { type: 'stdio', command: 'no-such-command-anywhere', args: [], env: {} },
};

describe('MCP over HTTP', () => {
  let pool: McpPool;
  beforeEach(() => {
    pool = new McpPool();
    added.length = 0;
  });
  afterEach(() => pool.close());

  const open = (
    chat: (request: ChatRequest) => ChatEvent[] = adds,
    servers: readonly McpServer[] = [calc],
    more: Partial<McpServices> = {},
  ) =>
    ScriptedApp.start([{ id: ID, chat }], {
      mcp: { pool, servers: new Map(servers.map((one) => [one.label, one])), ...more },
    });
  const ask = (more: object = {}) => ({ model: ID, input: '1+2?', tools: [mcpTool('calc')], ...more });
  const eventsOf = async (app: ScriptedApp, body: object): Promise<ResponseEvent[]> => {
    const all = await app.stream(RESPONSES, body);
    expect(all.at(-1)).to.equal('[DONE]');
    const events = all.slice(0, -1) as ResponseEvent[];
    checkSchema(events);
    return events;
  };

  describe('in a response', () => {
    it('lists, calls and answers in one stream', async () => {
      await using app = await open();
      const events = await eventsOf(app, ask());
      const response = checkLegal(events);
      expect(collapsed(events)).to.deep.equal([
        ...['created', 'in_progress', 'output_item.added', 'mcp_list_tools.in_progress', 'mcp_list_tools.completed'],
        ...['output_item.done', 'output_item.added', 'mcp_call.in_progress', 'mcp_call_arguments.delta'],
        ...['mcp_call_arguments.done', 'mcp_call.completed', 'output_item.done', 'output_item.added'],
        ...['content_part.added', 'output_text.delta', 'output_text.done', 'content_part.done', 'output_item.done'],
        'completed',
      ]);
      const [list, made, message] = response.output as any[];
      expect(list).to.deep.include({ type: 'mcp_list_tools', server_label: 'calc' });
      expect(list.tools.map(({ name }: any) => name)).to.deep.equal(['add']);
      expect(made).to.deep.include({ type: 'mcp_call', name: 'add', arguments: '{"a":1,"b":2}', status: 'completed' });
      expect([made.output, made.approval_request_id, message.content[0].text]).to.deep.equal(['3', null, 'it is 3']);
      expect(response.usage!.input_tokens).to.equal(10);
    });

    it('is taken by the client’s accumulator, and goes on without listing again', async () => {
      await using app = await open();
      const client = new OpenAI({ baseURL: `${app.url}/v1`, apiKey: 'k', maxRetries: 0 });
      const first = await client.responses.stream(ask() as any).finalResponse();
      expect(first.output_text).to.equal('it is 3');
      const body = { ...ask(), input: 'and again?', previous_response_id: first.id };
      const second = await client.responses.stream(body as any).finalResponse();
      expect(second.output.map(({ type }) => type)).to.deep.equal(['mcp_call', 'message']);
      expect(told(app.registry.first.chatRequests.at(-2)!)).to.deep.equal([
        'user: 1+2?',
        'assistant calls add',
        'tool: 3',
        'assistant: it is 3',
        'user: and again?',
      ]);
    });

    it('neither shows nor stores what authenticates to a server', async () => {
      await using app = await open();
      const own = mcpTool('own', { server_url: 'https://127.0.0.1/x?key=s3cret', authorization: 's3cret' });
      const { status, text, json } = await app.post(RESPONSES, ask({ tools: [own] }));
      expect(status).to.equal(200);
      expect(text).not.to.include('s3cret');
      expect(json.tools[0].server_url).to.equal('https://127.0.0.1/x');
      // Loopback is closed to requests.
      expect(json.output[0].error).to.include("server 'own'");
    });

    it('keeps equal names of two servers apart', async () => {
      const other = toolServer('other', { add: () => 'many' });
      await using app = await open(
        ({ messages, tools }) =>
          messages.at(-1)!.role === 'tool'
            ? [started, content('done'), finished()]
            : asChat([started, ...tools!.flatMap(({ name }, at) => call(at, name, ['{"a":1,"b":2}'])), finished()]),
        [calc, other],
      );
      const { json } = await app.post(RESPONSES, ask({ tools: [mcpTool('calc'), mcpTool('other')] }));
      const calls = json.output.filter(({ type }: any) => type === 'mcp_call');
      expect(calls.map((made: any) => [made.server_label, made.name, made.output])).to.deep.equal([
        ['calc', 'add', '3'],
        ['other', 'add', 'many'],
      ]);
      expect(app.registry.first.chatRequests[0]!.tools!.map(({ name }) => name)).to.deep.equal([
        'calc__add',
        'other__add',
      ]);
    });

    it('goes on without a server that cannot be listed', async () => {
      await using app = await open(adds, [gone, calc]);
      const events = await eventsOf(app, ask({ tools: [mcpTool('gone'), mcpTool('calc')] }));
      const response = checkLegal(events);
      expect(collapsed(events)).to.include('mcp_list_tools.failed');
      const [failed] = response.output as any[];
      expect(failed).to.deep.include({ server_label: 'gone', tools: [] });
      expect(failed.error).to.include('its command was not found');
      expect([response.status, response.output.length]).to.deep.equal(['completed', 4]);
    });

    it('tells the model of a call that fails', async () => {
      const broken = toolServer('calc', {
        add: () => {
          throw new Error('no numbers today');
        },
      });
      await using app = await open(adds, [broken]);
      const events = await eventsOf(app, ask());
      const [, made, message] = checkLegal(events).output as any[];
      expect(collapsed(events)).to.include('mcp_call.failed');
      expect([made.status, made.output]).to.deep.equal(['failed', null]);
      expect(made.error.content[0].text).to.equal('no numbers today');
      expect(message.content[0].text).to.equal('it is Error: no numbers today');
    });

    it('tells the model, and nobody else, of a tool that there is not', async () => {
      await using app = await open(({ messages }) =>
        messages.at(-1)!.role === 'tool'
          ? [started, content('sorry'), finished()]
          : asChat([started, ...call(0, 'sub', ['{}']), finished()]),
      );
      const response = checkLegal(await eventsOf(app, ask()));
      expect(response.output.map(({ type }) => type)).to.deep.equal(['mcp_list_tools', 'message']);
      expect(told(app.registry.first.chatRequests[1]!).at(-1)).to.equal('tool: There is no tool named "sub".');
    });

    it('leaves functions to the client, and keeps to the choice', async () => {
      const own = { type: 'function', name: 'mine', parameters: { type: 'object' } };
      await using app = await open(({ messages }) =>
        messages.at(-1)!.role === 'tool'
          ? [started, content('done'), finished()]
          : asChat([started, ...ADD, ...call(1, 'mine', ['{}']), finished()]),
      );
      const body = ask({
        tools: [mcpTool('calc'), own],
        tool_choice: { type: 'mcp', server_label: 'calc', name: 'add' },
      });
      const { json } = await app.post(RESPONSES, body);
      expect(json.output.map(({ type, status }: any) => [type, status])).to.deep.equal([
        ['mcp_list_tools', undefined],
        ['mcp_call', 'completed'],
        ['function_call', 'completed'],
      ]);
      const [asked] = app.registry.first.chatRequests;
      expect(asked!.toolChoice).to.deep.equal({ name: 'add' });
      const output = { type: 'function_call_output', call_id: json.output[2].call_id, output: 'yes' };
      const next = await app.post(
        RESPONSES,
        ask({ tools: [mcpTool('calc'), own], input: [output], previous_response_id: json.id }),
      );
      expect(next.json.output[0].content[0].text).to.equal('done');
    });

    it('runs no more calls than allowed, and ends after its turns', async () => {
      const always = () => asChat([started, ...ADD, finished()]);
      await using app = await open(always, [calc], { maxTurns: 4 });
      const { json } = await app.post(RESPONSES, ask({ max_tool_calls: 1 }));
      expect(json.status).to.equal('completed');
      expect(json.output.map(({ type, status }: any) => `${type} ${status}`)).to.deep.equal([
        'mcp_list_tools undefined',
        'mcp_call completed',
        'mcp_call failed',
        'mcp_call failed',
        'mcp_call failed',
      ]);
      expect(added).to.have.length(1);
      expect(app.registry.first.chatRequests.map(({ tools }) => tools?.length)).to.deep.equal([
        1,
        undefined,
        undefined,
        undefined,
      ]);
    });

    it('leaves a call incomplete that is cut off', async () => {
      await using app = await open(() => asChat([started, ...call(0, 'add', ['{"a":1'], false), finished('length')]));
      const response = checkLegal(await eventsOf(app, ask()));
      expect([response.status, (response.output[1] as any).status]).to.deep.equal(['incomplete', 'incomplete']);
      expect(added).to.deep.equal([]);
    });

    it('stops the tool when the client leaves', async () => {
      const began = new Gate();
      const stopped = new Gate();
      const slow = waitingCalculator(began.open, stopped.open);
      await using app = await open(adds, [slow]);
      const leave = new AbortController();
      const answer = fetch(`${app.url}${RESPONSES}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(ask({ stream: true })),
        signal: leave.signal,
      })
        .then((response) => response.text())
        .catch((error: unknown) => error);
      await began.opened;
      leave.abort();
      await stopped.opened;
      expect(await answer).to.have.property('name', 'AbortError');
    });

    it('is counted with the tools that it would offer, and runs nothing for it', async () => {
      const two = toolServer('calc', { add: () => '3', sub: () => '1' });
      await using app = await open(adds, [two, gone]);
      const count = async (body: object): Promise<number> =>
        (await app.post(`${RESPONSES}/input_tokens`, body)).json.input_tokens;
      const bare = await count(ask({ tools: [] }));
      expect(await count(ask())).to.equal(bare + 2);
      expect(await count(ask({ tools: [mcpTool('calc', { allowed_tools: ['add'] })] }))).to.equal(bare + 1);
      expect(await count(ask({ tools: [mcpTool('gone')] }))).to.equal(bare);
      expect(app.registry.first.chatRequests).to.deep.equal([]);
      expect((await app.post(`${RESPONSES}/input_tokens`, ask({ tools: [mcpTool('what')] }))).status).to.equal(400);
    });

    it('refuses servers that there are not', async () => {
      await using app = await open(adds, [calc], { allowUrls: false });
      const unknown = await app.post(RESPONSES, ask({ tools: [mcpTool('what')] }));
      expect([unknown.status, unknown.json.error.param]).to.deep.equal([400, 'tools[0].server_label']);
      const address = await app.post(RESPONSES, ask({ tools: [mcpTool('x', { server_url: 'https://example.com/' })] }));
      expect([address.status, address.json.error.param]).to.deep.equal([400, 'tools[0].server_url']);
    });
  });

  describe('in a chat completion', () => {
    const chat = (more: object = {}) => ({
      model: ID,
      messages: [{ role: 'user', content: '1+2?' }],
      tools: [mcpTool('calc')],
      ...more,
    });
    const lists = {
      mcp_list_tools: [{ index: 0, server_label: 'calc', tools: ['add'] }],
      mcp_calls: [
        {
          index: 0,
          type: 'mcp_call',
          server_label: 'calc',
          name: 'add',
          arguments: '{"a":1,"b":2}',
          status: 'completed',
          output: '3',
        },
      ],
    };

    it('shows what was run beside the answer', async () => {
      await using app = await open();
      const { status, json } = await app.post(CHAT, chat());
      expect(status).to.equal(200);
      const [choice] = json.choices;
      const { mcp_list_tools, mcp_calls, content: text, tool_calls } = choice.message;
      const [{ id, ...made }] = mcp_calls;
      expect(id).to.match(/^mcp_/);
      expect({ mcp_list_tools, mcp_calls: [made] }).to.deep.equal(lists);
      expect([text, tool_calls, choice.finish_reason]).to.deep.equal(['it is 3', undefined, 'stop']);
      expect(json.usage.total_tokens).to.equal(16);
    });

    it('streams it, and the client takes it', async () => {
      await using app = await open();
      const { text } = await app.post(CHAT, chat({ stream: true, stream_options: { include_usage: true } }));
      const chunks = dataOf(parseEvents([Buffer.from(text)])).slice(0, -1) as any[];
      const deltas = chunks.flatMap(({ choices }) => choices.map(({ delta }: any) => delta));
      const [{ mcp_calls: first }] = deltas.filter(({ mcp_calls }) => mcp_calls !== undefined);
      expect(deltas).to.deep.equal([
        { role: 'assistant', content: '' },
        { mcp_list_tools: lists.mcp_list_tools },
        {
          mcp_calls: [
            { index: 0, id: first[0].id, type: 'mcp_call', server_label: 'calc', name: 'add', arguments: '' },
          ],
        },
        { mcp_calls: [{ index: 0, arguments: '{"a":1,' }] },
        { mcp_calls: [{ index: 0, arguments: '"b":2}' }] },
        { mcp_calls: [{ index: 0, status: 'completed', output: '3' }] },
        { content: 'it is 3' },
        {},
      ]);
      expect(chunks.at(-1).usage.total_tokens).to.equal(16);

      const client = new OpenAI({ baseURL: `${app.url}/v1`, apiKey: 'k', maxRetries: 0 });
      const final = await client.chat.completions.stream(chat() as any).finalChatCompletion();
      expect(final.choices[0]!.message.content).to.equal('it is 3');
    });

    it('hands calls of functions to the client', async () => {
      const own = { type: 'function', function: { name: 'mine' } };
      await using app = await open(() => asChat([started, ...call(0, 'mine', ['{}']), finished()]));
      const { json } = await app.post(CHAT, chat({ tools: [mcpTool('calc'), own], tool_choice: 'required' }));
      const [{ message, finish_reason: reason }] = json.choices;
      expect([message.tool_calls[0].function.name, message.mcp_calls, reason]).to.deep.equal([
        'mine',
        undefined,
        'tool_calls',
      ]);
      expect(app.registry.first.chatRequests[0]!.toolChoice).to.equal('required');
    });

    it('refuses what would have to ask, and servers that there are not', async () => {
      await using app = await open();
      const asking = await app.post(CHAT, chat({ tools: [{ type: 'mcp', server_label: 'calc' }] }));
      expect([asking.status, asking.json.error.param]).to.deep.equal([400, 'tools[0].require_approval']);
      expect(asking.json.error.message).to.include('cannot ask for an approval');
      const unknown = await app.post(CHAT, chat({ tools: [mcpTool('what')] }));
      expect([unknown.status, unknown.json.error.param]).to.deep.equal([400, 'tools.server_label']);
      await using closed = await ScriptedApp.start([{ id: ID, chat: adds }]);
      const none = await closed.post(CHAT, chat());
      expect([none.status, none.json.error.message]).to.deep.equal([
        400,
        "this value of 'tools' is not supported: no MCP tools are run here",
      ]);
    });
  });
});
