/** MCP behind HTTP: a scripted model, servers in this process, the events and the wire. */

import { fromJsonSchema, McpServer as SdkServer } from '@modelcontextprotocol/server';
import { expect } from 'chai';
import OpenAI from 'openai';

import type { ChatEvent, ChatMessage, ChatRequest } from '../ts/chat/types.js';
import type { McpServices } from '../ts/http/mcp.js';
import { McpPool } from '../ts/mcp/client-pool.js';
import type { McpServer } from '../ts/mcp/tool.js';
import type { ResponseEvent } from '../ts/protocol/response-events.js';
import { inMemory } from './helpers/mcp-servers.js';
import { asChat, call, checkLegal, checkSchema, collapsed } from './helpers/response-events.js';
import { content, finished, started } from './helpers/scripted-events.js';
import { parseEvents, dataOf, ScriptedApp } from './helpers/scripted-app.js';
import { Gate } from './helpers/scripted-registry.js';

const ID = 'org/model';
const RESPONSES = '/v1/responses';
const CHAT = '/v1/chat/completions';

type Run = (args: Record<string, unknown>, signal: AbortSignal) => Promise<string> | string;

function server(label: string, tools: Record<string, Run>): McpServer {
  return inMemory(label, () => {
    const made = new SdkServer({ name: label, version: '1' });
    const inputSchema = fromJsonSchema<Record<string, unknown>>({ type: 'object' });
    for (const [name, run] of Object.entries(tools)) {
      made.registerTool(name, { inputSchema }, async (args, { mcpReq }) => ({
        content: [{ type: 'text', text: await run(args, mcpReq.signal) }],
      }));
    }
    return made;
  });
}

const added: unknown[] = [];
const calc = server('calc', {
  add: (args) => {
    added.push(args);
    return String(Number(args['a']) + Number(args['b']));
  },
});
const gone: McpServer = {
  label: 'gone',
  trusted: true,
  reach: { type: 'stdio', command: 'no-such-command-anywhere', args: [], env: {} },
};

const ADD = call(0, 'add', ['{"a":1,', '"b":2}']);

function textOf({ content: text }: Pick<ChatMessage, 'content'>): string {
  return typeof text === 'string' ? text : JSON.stringify(text);
}

/** Adds, then says what the tool said last. */
function adds({ messages }: ChatRequest): ChatEvent[] {
  const last = messages.at(-1)!;
  if (last.role === 'tool') return [started, content(`it is ${textOf(last)}`), finished()];
  return asChat([started, ...ADD, finished()]);
}

/** What the model was told, in short. */
function told({ messages }: ChatRequest): string[] {
  return messages.map(({ role, content: text, toolCalls }) =>
    toolCalls === undefined
      ? `${role}: ${textOf({ content: text })}`
      : `${role} calls ${toolCalls.map((made) => made.name).join(', ')}`,
  );
}

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
  const tool = (server_label: string, more: object = {}) => ({
    type: 'mcp',
    server_label,
    require_approval: 'never',
    ...more,
  });
  const ask = (more: object = {}) => ({ model: ID, input: '1+2?', tools: [tool('calc')], ...more });
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
      const own = tool('own', { server_url: 'https://127.0.0.1/x?key=s3cret', authorization: 's3cret' });
      const { status, text, json } = await app.post(RESPONSES, ask({ tools: [own] }));
      expect(status).to.equal(200);
      expect(text).not.to.include('s3cret');
      expect(json.tools[0].server_url).to.equal('https://127.0.0.1/x');
      // Loopback is closed to requests.
      expect(json.output[0].error).to.include("server 'own'");
    });

    it('keeps equal names of two servers apart', async () => {
      const other = server('other', { add: () => 'many' });
      await using app = await open(
        ({ messages, tools }) =>
          messages.at(-1)!.role === 'tool'
            ? [started, content('done'), finished()]
            : asChat([started, ...tools!.flatMap(({ name }, at) => call(at, name, ['{"a":1,"b":2}'])), finished()]),
        [calc, other],
      );
      const { json } = await app.post(RESPONSES, ask({ tools: [tool('calc'), tool('other')] }));
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
      const events = await eventsOf(app, ask({ tools: [tool('gone'), tool('calc')] }));
      const response = checkLegal(events);
      expect(collapsed(events)).to.include('mcp_list_tools.failed');
      const [failed] = response.output as any[];
      expect(failed).to.deep.include({ server_label: 'gone', tools: [] });
      expect(failed.error).to.include('its command was not found');
      expect([response.status, response.output.length]).to.deep.equal(['completed', 4]);
    });

    it('tells the model of a call that fails', async () => {
      const broken = server('calc', {
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
      const body = ask({ tools: [tool('calc'), own], tool_choice: { type: 'mcp', server_label: 'calc', name: 'add' } });
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
        ask({ tools: [tool('calc'), own], input: [output], previous_response_id: json.id }),
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
      const slow = server('calc', {
        add: (_args, signal) => {
          began.open();
          return new Promise((_resolve, reject) => {
            signal.addEventListener('abort', () => {
              stopped.open();
              reject(new Error('told to stop'));
            });
          });
        },
      });
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

    it('refuses servers that there are not', async () => {
      await using app = await open(adds, [calc], { allowUrls: false });
      const unknown = await app.post(RESPONSES, ask({ tools: [tool('what')] }));
      expect([unknown.status, unknown.json.error.param]).to.deep.equal([400, 'tools[0].server_label']);
      const address = await app.post(RESPONSES, ask({ tools: [tool('x', { server_url: 'https://example.com/' })] }));
      expect([address.status, address.json.error.param]).to.deep.equal([400, 'tools[0].server_url']);
    });
  });

  describe('approvals', () => {
    const asking = ask({ tools: [tool('calc', { require_approval: 'always' })] });
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
      const wrong = await app.post(RESPONSES, { ...answerTo(asked, true), tools: [tool('what')] });
      expect(wrong.status).to.equal(400);
      expect((await app.post(RESPONSES, answerTo(asked, true))).status).to.equal(200);
      expect(added).to.have.length(1);
    });

    it('are answered once by clients that keep the conversation themselves, who may tell of it ever after', async () => {
      await using app = await open(adds, [calc]);
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
  });

  describe('in a chat completion', () => {
    const chat = (more: object = {}) => ({
      model: ID,
      messages: [{ role: 'user', content: '1+2?' }],
      tools: [tool('calc')],
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
      const { json } = await app.post(CHAT, chat({ tools: [tool('calc'), own], tool_choice: 'required' }));
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
      const unknown = await app.post(CHAT, chat({ tools: [tool('what')] }));
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
