/** The whole loop: real weights call tools of the test server of MCP's authors, over stdio and over HTTP. */

import { expect } from 'chai';
import OpenAI from 'openai';

import { createApp } from '../ts/http/app.js';
import { closeServer, createHttpServer, listen } from '../ts/http/server.js';
import { McpPool } from '../ts/mcp/client-pool.js';
import { parseMcpConfig } from '../ts/mcp/config.js';
import type { ResponseEvent } from '../ts/protocol/response-events.js';
import { EVERYTHING, spawnEverything } from './helpers/mcp-servers.js';
import { startRealServer } from './helpers/real-server.js';
import { watchServer } from './helpers/schemas/watch.js';
import { checkLegal, collapsed } from './helpers/response-events.js';

const QUESTION = 'Please add 12 and 30 with the get-sum tool.';
const ALLOWED = { allowed_tools: ['get-sum'], require_approval: 'never' };

// This model would call a tool again and again: in its second turn the tools are withheld.
describe('MCP with real weights', function () {
  this.timeout(600_000);

  it('calls tools over stdio and HTTP, and answers with what they say', async () => {
    const everything = await spawnEverything('streamableHttp');
    const real = await startRealServer('qwen2.5-coder-0.5b-instruct-q4_k_m', { maxModelLen: 2048 });
    const pool = new McpPool({ allowLoopback: true });
    const config = { mcpServers: { everything: { command: process.execPath, args: [EVERYTHING, 'stdio'] } } };
    const { servers } = parseMcpConfig(JSON.stringify(config), {});
    const server = createHttpServer(createApp({ registry: real.registry, mcp: { pool, servers, maxTurns: 2 } }));
    const watch = watchServer(server);
    const { port } = await listen(server, { host: '127.0.0.1', port: 0 });
    try {
      const client = new OpenAI({ baseURL: `http://127.0.0.1:${port}/v1`, apiKey: 'k', maxRetries: 0 });
      const [listed] = await real.registry.list();
      const tools = {
        stdio: { type: 'mcp', server_label: 'everything', ...ALLOWED },
        http: { type: 'mcp', server_label: 'remote', server_url: everything.url.href, ...ALLOWED },
      };
      for (const [transport, tool] of Object.entries(tools)) {
        const body = { model: listed!.id, input: QUESTION, tools: [tool], temperature: 0, max_output_tokens: 200 };
        const stream = client.responses.stream(body as any);
        const events: ResponseEvent[] = [];
        for await (const event of stream) events.push(event as unknown as ResponseEvent);
        const response = checkLegal(events);
        expect(collapsed(events), transport).to.include('mcp_call.completed');
        const made = response.output.find(({ type }) => type === 'mcp_call');
        expect(made, transport).to.deep.include({ output: 'The sum of 12 and 30 is 42.', status: 'completed' });
        expect((await stream.finalResponse()).output_text, transport).to.match(/42/);
      }
      const asked = { model: listed!.id, input: QUESTION, tools: [tools.stdio] } as any;
      const counted = await client.responses.inputTokens.count(asked);
      const cut = await client.responses.create({ ...asked, max_output_tokens: 1 });
      expect(cut.usage!.input_tokens).to.equal(counted.input_tokens);
      const completion = await client.chat.completions.create({
        model: listed!.id,
        messages: [{ role: 'user', content: QUESTION }],
        tools: [tools.stdio as any],
        temperature: 0,
        max_tokens: 200,
      });
      const { message } = completion.choices[0]!;
      expect(message).to.have.nested.property('mcp_calls[0].status', 'completed');
      expect(message.content).to.match(/42/);
      watch.verify();
    } finally {
      await closeServer(server);
      await pool.close();
      await real.close();
      await everything.close();
    }
  });
});
