/** The seam where tools are run on the server: a loop of the test's own, driven over HTTP. */

import { expect } from 'chai';

import { EngineError } from '../ts/engine/types.js';
import type { ResponseEvent } from '../ts/protocol/response-events.js';
import type { LoopContext, ResponseLoop } from '../ts/responses/run.js';
import { asChat, call, checkLegal, checkSchema, collapsed } from './helpers/response-events.js';
import { content, finished, started } from './helpers/scripted-events.js';
import { ScriptedApp } from './helpers/scripted-app.js';
import type { ScriptedModelOptions } from './helpers/scripted-registry.js';

const ID = 'org/model';
const PATH = '/v1/responses';
const TOOLS = [{ type: 'mcp', server_label: 'calc', server_url: 'https://example.com/mcp', authorization: 'secret' }];

/** Runs `add` on the server; everything else is the client's. */
class AddLoop implements ResponseLoop {
  disposed = 0;

  async offer({ request }: Parameters<ResponseLoop['offer']>[0]) {
    return request;
  }

  async *begin({ machine, request }: LoopContext) {
    const tool = { name: 'add', input_schema: { type: 'object' } };
    yield* machine.listedTools('calc', [tool]);
    return { ...request, tools: [{ name: 'add', parameters: tool.input_schema }] };
  }

  route(name: string) {
    return name === 'add' ? ({ kind: 'mcp', serverLabel: 'calc', name } as const) : ({ kind: 'function' } as const);
  }

  async *next(turn: Parameters<ResponseLoop['next']>[0], { machine, request }: LoopContext) {
    const calls = turn.calls.filter(({ route }) => route.kind === 'mcp');
    if (calls.length === 0) return undefined;
    for (const { itemId } of calls) yield* machine.mcpAnswered(itemId, { output: '3' });
    const toolCalls = calls.map(({ callId: id, name, arguments: args }) => ({ id, name, arguments: args }));
    return {
      ...request,
      messages: [
        ...request.messages,
        { role: 'assistant' as const, content: turn.content, toolCalls },
        ...toolCalls.map(({ id }) => ({ role: 'tool' as const, toolCallId: id, content: '3' })),
      ],
    };
  }

  async [Symbol.asyncDispose]() {
    this.disposed++;
  }
}

const calls: ScriptedModelOptions = {
  id: ID,
  chat: ({ messages }) =>
    messages.at(-1)?.role === 'tool'
      ? [started, content('it is 3'), finished()]
      : asChat([started, ...call(0, 'add', ['{"a":1,', '"b":2}']), finished()]),
};

describe('a response with a loop', () => {
  it('takes several turns in one stream', async () => {
    const loop = new AddLoop();
    await using app = await ScriptedApp.start([calls], { responseLoop: () => loop });
    const all = await app.stream(PATH, { model: ID, input: '1+2?', tools: TOOLS });
    const events = all.slice(0, -1) as ResponseEvent[];
    checkSchema(events);
    const response = checkLegal(events);
    expect(collapsed(events)).to.deep.equal([
      ...['created', 'in_progress', 'output_item.added', 'mcp_list_tools.in_progress', 'mcp_list_tools.completed'],
      ...['output_item.done', 'output_item.added', 'mcp_call.in_progress', 'mcp_call_arguments.delta'],
      ...['mcp_call_arguments.done', 'mcp_call.completed', 'output_item.done', 'output_item.added'],
      ...['content_part.added', 'output_text.delta', 'output_text.done', 'content_part.done', 'output_item.done'],
      'completed',
    ]);
    expect(JSON.stringify(all)).not.to.include('secret');
    expect(response.usage!.input_tokens).to.equal(10);
    expect(loop.disposed).to.equal(1);
    const next = await app.post(PATH, { model: ID, input: 'and?', previous_response_id: response.id });
    expect(next.status).to.equal(200);
    const { messages } = app.registry.first.chatRequests.at(-2)!;
    expect(messages.map(({ role }) => role)).to.deep.equal(['user', 'assistant', 'tool', 'assistant', 'user']);
  });

  it('fails the response with what it throws, and is disposed', async () => {
    class Broken extends AddLoop {
      // eslint-disable-next-line require-yield -- It has no event to tell.
      override async *next(): AsyncGenerator<ResponseEvent, never> {
        throw new EngineError('timeout', 'the tool took too long');
      }
    }
    const loop = new Broken();
    await using app = await ScriptedApp.start([calls], { responseLoop: () => loop });
    const events = (await app.stream(PATH, { model: ID, input: '1+2?', tools: TOOLS })).slice(0, -1) as ResponseEvent[];
    const response = checkLegal(events);
    expect([response.status, response.error!.message]).to.deep.equal(['failed', 'the tool took too long']);
    expect((response.output.at(-1) as any).status).to.equal('incomplete');
    expect(loop.disposed).to.equal(1);
  });

  it('without one MCP tools are refused', async () => {
    await using app = await ScriptedApp.start([calls]);
    const { status, json } = await app.post(PATH, { model: ID, input: 'x', tools: TOOLS });
    expect([status, json.error.param]).to.deep.equal([400, 'tools[0].type']);
  });
});
