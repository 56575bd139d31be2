import { expect } from 'chai';
import OpenAI from 'openai';

import { ChatMcpDeltas } from '../ts/mcp/chat-deltas.js';
import type { ToolLoopEvent } from '../ts/mcp/loop-events.js';
import { listen } from './helpers/mcp-servers.js';

const events: ToolLoopEvent[] = [
  { type: 'list_tools_started', serverLabel: 'math' },
  { type: 'list_tools_finished', serverLabel: 'math', tools: [{ name: 'add', inputSchema: { type: 'object' } }] },
  {
    type: 'list_tools_failed',
    serverLabel: 'gone',
    error: { type: 'http_error', code: 404, message: "server 'gone' answered with HTTP 404" },
  },
  { type: 'turn_started', turn: 0 },
  { type: 'mcp_call_started', id: 'mcp_1', serverLabel: 'math', name: 'add' },
  { type: 'mcp_call_arguments_delta', id: 'mcp_1', delta: '{"a":' },
  { type: 'mcp_call_arguments_delta', id: 'mcp_1', delta: '1}' },
  { type: 'mcp_call_arguments', id: 'mcp_1', arguments: '{"a":1}' },
  { type: 'mcp_call_started', id: 'mcp_2', serverLabel: 'math', name: 'add' },
  { type: 'mcp_call_arguments', id: 'mcp_2', arguments: '' },
  { type: 'mcp_call_completed', id: 'mcp_1', output: '1' },
  {
    type: 'mcp_call_failed',
    id: 'mcp_2',
    error: { type: 'mcp_tool_execution_error', content: [{ type: 'text', text: 'no' }] },
  },
];

const error = { type: 'mcp_tool_execution_error', content: [{ type: 'text', text: 'no' }] };

describe('what the server ran, in a chat completion', () => {
  it('comes in deltas like those of tool_calls', () => {
    const deltas = new ChatMcpDeltas();
    expect(events.map((event) => deltas.take(event)).filter((delta) => delta !== undefined)).to.deep.equal([
      { mcp_list_tools: [{ index: 0, server_label: 'math', tools: ['add'] }] },
      {
        mcp_list_tools: [
          {
            index: 1,
            server_label: 'gone',
            tools: [],
            error: { type: 'http_error', code: 404, message: "server 'gone' answered with HTTP 404" },
          },
        ],
      },
      { mcp_calls: [{ index: 0, id: 'mcp_1', type: 'mcp_call', server_label: 'math', name: 'add', arguments: '' }] },
      { mcp_calls: [{ index: 0, arguments: '{"a":' }] },
      { mcp_calls: [{ index: 0, arguments: '1}' }] },
      { mcp_calls: [{ index: 1, id: 'mcp_2', type: 'mcp_call', server_label: 'math', name: 'add', arguments: '' }] },
      { mcp_calls: [{ index: 0, status: 'completed', output: '1' }] },
      { mcp_calls: [{ index: 1, status: 'failed', error }] },
    ]);
    const call = { type: 'mcp_call', server_label: 'math', name: 'add' };
    expect(deltas.message.mcp_calls).to.deep.equal([
      { index: 0, id: 'mcp_1', ...call, arguments: '{"a":1}', status: 'completed', output: '1' },
      { index: 1, id: 'mcp_2', ...call, arguments: '', status: 'failed', error },
    ]);
    expect(new ChatMcpDeltas().message).to.deep.equal({});
  });

  it("does not disturb OpenAI's client", async () => {
    const deltas = new ChatMcpDeltas();
    const chunk = (delta: object, finish_reason: string | null = null): string =>
      `data: ${JSON.stringify({
        id: 'chatcmpl-1',
        object: 'chat.completion.chunk',
        created: 1,
        model: 'm',
        choices: [{ index: 0, delta, logprobs: null, finish_reason }],
      })}\n\n`;
    const { url, close } = await listen((_request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write(chunk({ role: 'assistant', content: '' }));
      for (const event of events) {
        const delta = deltas.take(event);
        if (delta !== undefined) response.write(chunk(delta));
      }
      response.write(chunk({ content: 'It is 1.' }));
      response.end(`${chunk({}, 'stop')}data: [DONE]\n\n`);
    });
    try {
      const client = new OpenAI({ baseURL: url.origin, apiKey: 'none', maxRetries: 0 });
      const stream = client.chat.completions.stream({ model: 'm', messages: [{ role: 'user', content: 'a' }] });
      const message = await stream.finalMessage();
      expect(message.content).to.equal('It is 1.');
      expect(message.tool_calls ?? []).to.deep.equal([]);
    } finally {
      await close();
    }
  });
});
