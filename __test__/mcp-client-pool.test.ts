import {
  createMcpHandler,
  fromJsonSchema,
  McpServer as SdkServer,
  type ToolCallback,
} from '@modelcontextprotocol/server';
import { expect } from 'chai';

import { EngineError } from '../ts/engine/types.js';
import { McpPool, type McpPoolOptions } from '../ts/mcp/client-pool.js';
import { McpError } from '../ts/mcp/errors.js';
import type { McpServer } from '../ts/mcp/tool.js';
import { Gate } from './helpers/scripted-registry.js';
import { answerWith, httpMcp, type HttpMcp, inMemory, listen, overHttp } from './helpers/mcp-servers.js';
import { rejection } from './helpers/rejection.js';

const anyArguments = fromJsonSchema<Record<string, unknown>>({ type: 'object' });

type Handler = ToolCallback<typeof anyArguments>;

/** A server with these tools. */
function serverOf(tools: Record<string, Handler>): () => SdkServer {
  return () => {
    const server = new SdkServer({ name: 'test', version: '1' });
    for (const [name, handler] of Object.entries(tools))
      server.registerTool(name, { description: `Does ${name}`, inputSchema: anyArguments }, handler);
    return server;
  };
}

const echo = serverOf({
  echo: (args) => ({ content: [{ type: 'text', text: JSON.stringify(args) }] }),
});

describe('MCP client pool', () => {
  const closers: (() => Promise<void>)[] = [];
  const logged: string[] = [];

  afterEach(async () => {
    for (const close of closers.splice(0).reverse()) await close();
    logged.length = 0;
  });

  function newPool(options: McpPoolOptions = {}): McpPool {
    const pool = new McpPool({ allowLoopback: true, log: (line) => logged.push(line), ...options });
    closers.push(() => pool.close());
    return pool;
  }

  async function serve(make: () => SdkServer): Promise<HttpMcp> {
    const server = await httpMcp(make);
    closers.push(() => server.close());
    return server;
  }

  it('lists and calls over one connection, and ends the session when it is closed', async () => {
    const http = await serve(echo);
    const pool = newPool();
    const server = overHttp('a', http.url);
    const [tool, ...others] = await pool.listTools(server);
    expect(tool).to.deep.include({ name: 'echo', description: 'Does echo' });
    expect(others).to.deep.equal([]);
    const outcomes = await Promise.all([1, 2, 3].map((x) => pool.callTool(server, 'echo', { x })));
    expect(outcomes).to.deep.equal([1, 2, 3].map((x) => ({ ok: true, output: `{"x":${x}}` })));
    expect(http.sessions.size).to.equal(1);
    await pool.close();
    expect(http.sessions.size).to.equal(0);
    expect(http.requests.filter(({ rpc }) => rpc === 'initialize')).to.have.length(1);
    expect(await rejection(pool.listTools(server), McpError)).to.have.property(
      'message',
      'the server is shutting down',
    );
  });

  for (const legacy of ['reject', 'stateless'] as const) {
    it(`speaks the revision without sessions (${legacy === 'reject' ? 'only' : 'or the older ones'})`, async () => {
      const stopped = new Gate();
      const make = serverOf({
        echo: (args) => ({ content: [{ type: 'text', text: JSON.stringify(args) }] }),
        wait: async (_args, ctx) => {
          await new Promise<void>((resolve) => ctx.mcpReq.signal.addEventListener('abort', () => resolve()));
          stopped.open();
          return { content: [] };
        },
      });
      const handler = createMcpHandler(make, { legacy });
      const { url, close } = await listen((request, response) => void answerWith(handler.fetch, request, response));
      closers.push(close);
      const pool = newPool();
      const server = overHttp('a', url);
      expect(await pool.listTools(server)).to.have.length(2);
      expect(await pool.callTool(server, 'echo', { x: 1 })).to.deep.equal({ ok: true, output: '{"x":1}' });
      const controller = new AbortController();
      const call = pool.callTool(server, 'wait', {}, { signal: controller.signal });
      await pool.callTool(server, 'echo', {});
      controller.abort();
      expect(await rejection(call, EngineError)).to.have.property('code', 'cancelled');
      await stopped.opened;
    });
  }

  it('lists again only when the list has aged', async () => {
    const http = await serve(echo);
    const server = overHttp('a', http.url);
    for (const [listTtlMs, lists] of [
      [60_000, 1],
      [0, 2],
    ] as const) {
      const pool = newPool({ limits: { listTtlMs } });
      const before = http.requests.length;
      await pool.listTools(server);
      await pool.listTools(server);
      expect(http.requests.slice(before).filter(({ rpc }) => rpc === 'tools/list')).to.have.length(lists);
    }
  });

  it('keeps connections with other credentials, and other partitions, apart', async () => {
    const http = await serve(echo);
    const pool = newPool();
    const a = overHttp('a', http.url, { authorization: 'token-a', headers: { 'x-b': 'b' } });
    await pool.listTools(a);
    await pool.listTools(a);
    await pool.listTools(overHttp('a', http.url, { authorization: 'token-c' }));
    await pool.listTools({ ...a, partition: 'other' });
    expect(pool.size).to.equal(3);
    const initial = http.requests.filter(({ rpc }) => rpc === 'initialize').map(({ headers }) => headers);
    expect(initial.map((headers) => [headers.authorization, headers['x-b']])).to.deep.equal([
      ['Bearer token-a', 'b'],
      ['Bearer token-c', undefined],
      ['Bearer token-a', 'b'],
    ]);
  });

  it('starts a new session when the server has forgotten the old one', async () => {
    const http = await serve(echo);
    const pool = newPool();
    const server = overHttp('a', http.url);
    await pool.callTool(server, 'echo', {});
    http.forgetSessions();
    expect(await pool.callTool(server, 'echo', { x: 1 })).to.deep.equal({ ok: true, output: '{"x":1}' });
    expect(http.requests.filter(({ rpc }) => rpc === 'initialize')).to.have.length(2);
    expect(pool.size).to.equal(1);
  });

  it('closes what is idle, makes room, and says so when there is none', async () => {
    const gate = new Gate();
    const slow = serverOf({
      wait: async () => {
        await gate.opened;
        return { content: [] };
      },
    });
    const pool = newPool({ limits: { maxConnections: 2 } });
    await pool.listTools(inMemory('a', slow));
    await pool.listTools(inMemory('b', slow));
    await pool.listTools(inMemory('c', slow));
    expect(pool.size).to.equal(2);
    const busy = [pool.callTool(inMemory('b', slow), 'wait', {}), pool.callTool(inMemory('c', slow), 'wait', {})];
    const error = await rejection(pool.listTools(inMemory('d', slow)), McpError);
    expect(error.message).to.equal('all 2 connections to MCP servers are in use');
    gate.open();
    await Promise.all(busy);

    const closed = new Gate();
    const brief = newPool({
      limits: { idleMs: 1 },
      log: (line) => line === "mcp: closed the connection to 'e'" && closed.open(),
    });
    await brief.listTools(inMemory('e', echo));
    await closed.opened;
    expect(brief.size).to.equal(0);
  });

  it('says what a tool says of its failure, and what a server says', async () => {
    const pool = newPool();
    const server = inMemory(
      'a',
      serverOf({
        fails: () => ({ isError: true, content: [{ type: 'text', text: 'no such city' }] }),
        silent: () => ({ isError: true, content: [] }),
      }),
    );
    expect(await pool.callTool(server, 'fails', {})).to.deep.equal({
      ok: false,
      error: { type: 'mcp_tool_execution_error', content: [{ type: 'text', text: 'no such city' }] },
    });
    expect(await pool.callTool(server, 'silent', {})).to.have.nested.property(
      'error.content[0].text',
      'the tool failed and did not say why',
    );
    const unknown = await pool.callTool(server, 'missing', {});
    expect(unknown)
      .to.have.nested.property('error.type')
      .that.is.oneOf(['mcp_protocol_error', 'mcp_tool_execution_error']);
  });

  it('gives up without progress, goes on with it, but not for ever', async () => {
    const pool = newPool({ limits: { callMs: 60, callTotalMs: 250 } });
    const ended = new Gate();
    const server = inMemory(
      'a',
      serverOf({
        silent: () => new Promise(() => undefined),
        busy: async (_args, ctx) => {
          const progressToken = (ctx.mcpReq._meta as { progressToken: number }).progressToken;
          for (let progress = 1; !ctx.mcpReq.signal.aborted; progress++) {
            await ctx.mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress } });
            await new Promise((resolve) => setTimeout(resolve, 10));
          }
          ended.open();
          return { content: [] };
        },
      }),
    );
    expect(await pool.callTool(server, 'silent', {})).to.deep.equal({
      ok: false,
      error: { type: 'mcp_protocol_error', code: -32001, message: "server 'a' did not answer in time" },
    });
    let reports = 0;
    const started = performance.now();
    const outcome = await pool.callTool(server, 'busy', {}, { onProgress: () => reports++ });
    expect(outcome).to.have.nested.property('error.message', "the call of 'busy' did not end in time");
    expect(performance.now() - started).to.be.within(200, 2000);
    expect(reports).to.be.greaterThan(2);
    // The server was told.
    await ended.opened;
  });

  for (const transport of ['memory', 'http'] as const) {
    it(`tells the server when the caller leaves (${transport})`, async () => {
      const running = new Gate();
      const stopped = new Gate();
      const make = serverOf({
        wait: async (_args, ctx) => {
          running.open();
          await new Promise<void>((resolve) => ctx.mcpReq.signal.addEventListener('abort', () => resolve()));
          stopped.open();
          return { content: [] };
        },
      });
      const server = transport === 'memory' ? inMemory('a', make) : overHttp('a', (await serve(make)).url);
      const controller = new AbortController();
      const call = newPool().callTool(server, 'wait', {}, { signal: controller.signal });
      await running.opened;
      controller.abort();
      expect(await rejection(call, EngineError)).to.have.property('code', 'cancelled');
      await stopped.opened;
    });
  }

  it('does not let one leaving caller end the connecting of another', async () => {
    const http = await serve(echo);
    const pool = newPool();
    const server = overHttp('a', http.url);
    const controller = new AbortController();
    const leaving = pool.listTools(server, controller.signal);
    const staying = pool.listTools(server);
    controller.abort();
    await rejection(leaving, EngineError);
    expect(await staying).to.have.length(1);
  });

  describe('with hostile servers', () => {
    it('reaches loopback and private addresses only as the operator allows', async () => {
      const http = await serve(echo);
      const strict = newPool({ allowLoopback: false, resolve: async () => ['10.0.0.1'] });
      const error = await rejection(strict.listTools(overHttp('a', http.url)), McpError);
      expect(error.message).to.equal("server 'a': 127.0.0.1 is refused: its address is a loopback address");
      expect(http.requests).to.deep.equal([]);
      const named = await rejection(strict.listTools(overHttp('a', new URL('http://intern.example/mcp'))), McpError);
      expect(named.message).to.contain('a private address');
      // What the operator wrote down is trusted.
      expect(await strict.listTools({ ...overHttp('a', http.url), trusted: true })).to.have.length(1);
    });

    it('follows no redirect to elsewhere, and takes no credentials there', async () => {
      const http = await serve(echo);
      for (const location of [http.url.href.replace('127.0.0.1', 'localhost'), 'http://169.254.169.254/latest/']) {
        const redirecting = await listen((_request, response) => response.writeHead(307, { location }).end());
        closers.push(redirecting.close);
        const server = overHttp('a', redirecting.url, { authorization: 'very-secret-token' });
        const error = await rejection(newPool().listTools(server), McpError);
        expect(error.message).to.not.contain('very-secret-token').and.not.contain('169.254');
      }
      expect(http.requests).to.deep.equal([]);
    });

    it('stops at a list without end', async () => {
      const pool = newPool({ limits: { maxPages: 3 } });
      const endless = (): SdkServer => {
        const server = echo();
        let page = 0;
        server.server.setRequestHandler('tools/list', () => ({
          tools: [{ name: `t${page}`, inputSchema: { type: 'object' as const } }],
          nextCursor: String(++page),
        }));
        return server;
      };
      const error = await rejection(pool.listTools(inMemory('a', endless)), McpError);
      expect(error.message).to.equal("server 'a': its list of tools has no end");
    });

    it('leaves out or cuts what is too large', async () => {
      const listing = (tools: object[]) => (): SdkServer => {
        const server = echo();
        server.server.setRequestHandler('tools/list', () => ({ tools }) as never);
        return server;
      };
      const tool = (name: string, extra: object = {}) => ({ name, inputSchema: { type: 'object' }, ...extra });
      const pool = newPool({ limits: { maxTools: 3, maxDescription: 10, maxSchema: 100 } });
      const large = { inputSchema: { type: 'object', description: 'x'.repeat(100) } };
      const tools = await pool.listTools(
        inMemory(
          'a',
          listing([tool('good', { description: 'y'.repeat(20) }), tool('large', large), tool('x'.repeat(129))]),
        ),
      );
      expect(tools).to.deep.equal([{ name: 'good', description: 'y'.repeat(10), inputSchema: { type: 'object' } }]);
      const many = await rejection(
        pool.listTools(inMemory('b', listing(['a', 'b', 'c', 'd'].map((n) => tool(n))))),
        McpError,
      );
      expect(many.message).to.equal("server 'b' lists 4 tools; at most 3 are taken");
      const broken = await rejection(
        pool.listTools(inMemory('c', listing([{ name: 'x', inputSchema: 'y' }]))),
        McpError,
      );
      expect(broken.message).to.equal("server 'c': its answer is not what MCP prescribes");
    });

    it('cuts a long output, and breaks off a huge one', async () => {
      const http = await serve(
        serverOf({ say: ({ size }) => ({ content: [{ type: 'text', text: 'x'.repeat(Number(size)) }] }) }),
      );
      const pool = newPool({ limits: { maxOutput: 100, maxMessageBytes: 50_000, callMs: 5000 } });
      const server = overHttp('a', http.url);
      const cut = await pool.callTool(server, 'say', { size: 1000 });
      expect(cut).to.deep.equal({ ok: true, output: `${'x'.repeat(100)}\n[cut off: 900 of 1000 characters]` });
      const huge = await pool.callTool(server, 'say', { size: 200_000 });
      expect(huge).to.deep.equal({
        ok: false,
        error: {
          type: 'mcp_protocol_error',
          code: -32000,
          message: `the answer of ${http.url.host} is larger than 50000 bytes`,
        },
      });
      // Others on the same connection go on.
      expect(await pool.callTool(server, 'say', { size: 1 })).to.deep.equal({ ok: true, output: 'x' });
      expect(http.requests.filter(({ rpc }) => rpc === 'initialize')).to.have.length(1);
    });

    it('does not wait for an answer that broke off', async () => {
      const http = await serve(serverOf({ wait: () => new Promise(() => undefined) }));
      const pool = newPool();
      const call = pool.callTool(overHttp('a', http.url), 'wait', {});
      await http.until((request) => request.rpc === 'tools/call');
      http.breakOff();
      const outcome = await call;
      expect(outcome).to.have.nested.property('error.type', 'mcp_protocol_error');
      // Whether it had begun or not is a race.
      expect(outcome)
        .to.have.nested.property('error.message')
        .that.matches(/broke off|cannot be reached/);
    });

    it('keeps secrets out of errors, outputs and the log', async () => {
      const secret = 'sk-very-secret-0123456789';
      const parrot = await listen((request, response) => {
        response
          .writeHead(403, { 'content-type': 'text/plain' })
          .end(`you sent ${request.headers.authorization ?? ''}`);
      });
      closers.push(parrot.close);
      const pool = newPool();
      const url = new URL(`${parrot.url.href}?key=${secret}`);
      const refusing = overHttp('a', url, { authorization: secret, headers: { 'x-key': `Basic ${secret}` } });
      const error = await rejection(pool.listTools(refusing), McpError);
      expect(error.wire).to.deep.equal({ type: 'http_error', code: 403, message: "server 'a' answered with HTTP 403" });

      const http = await serve(
        serverOf({
          leak: (_args, ctx) => {
            const sent = ctx.http?.req?.headers.get('authorization') ?? secret;
            return { content: [{ type: 'text', text: `token ${sent}` }] };
          },
          fail: () => {
            throw new Error(`with ${secret}`);
          },
        }),
      );
      const leaky = overHttp('b', http.url, { authorization: secret });
      const said = JSON.stringify([await pool.callTool(leaky, 'leak', {}), await pool.callTool(leaky, 'fail', {})]);
      expect(said).to.contain('[redacted]').and.not.contain(secret);
      expect(logged.join('\n')).to.contain("'a'").and.not.contain(secret).and.not.contain('127.0.0.1');
    });

    it('compiles no schema of a server', async () => {
      const odd = (): SdkServer => {
        const server = new SdkServer({ name: 'test', version: '1' }, { capabilities: { tools: {} } });
        const outputSchema = { type: 'object', properties: { a: { type: 'string', pattern: '^(a+)+$' } } };
        server.server.setRequestHandler('tools/list', () => ({
          tools: [{ name: 'odd', inputSchema: { type: 'object' as const }, outputSchema: outputSchema }],
        }));
        server.server.setRequestHandler('tools/call', () => ({
          content: [],
          structuredContent: { a: `${'a'.repeat(40)}!` },
        }));
        return server;
      };
      const pool = newPool();
      const server: McpServer = inMemory('a', odd);
      await pool.listTools(server);
      expect(await pool.callTool(server, 'odd', {})).to.deep.equal({
        ok: true,
        output: JSON.stringify({ a: `${'a'.repeat(40)}!` }),
      });
    });
  });
});
