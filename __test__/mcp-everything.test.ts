/** The test server of MCP's authors, as a process: over stdio, Streamable HTTP and the old SSE transport. */

import { expect } from 'chai';

import { McpPool } from '../ts/mcp/client-pool.js';
import { parseMcpConfig } from '../ts/mcp/config.js';
import type { McpProgress, McpServer } from '../ts/mcp/tool.js';
import { EVERYTHING, overHttp, spawnEverything } from './helpers/mcp-servers.js';

describe('server-everything', function () {
  this.timeout(60_000);
  let pool: McpPool;
  const closers: (() => Promise<void>)[] = [];

  beforeEach(() => {
    pool = new McpPool({ allowLoopback: true });
  });
  afterEach(async () => {
    await pool.close();
    for (const close of closers.splice(0)) await close();
  });

  const transports: Record<string, () => Promise<McpServer>> = {
    stdio: async () => {
      const file = {
        mcpServers: { everything: { command: process.execPath, args: [EVERYTHING, 'stdio'], env: { OWN: 'yes' } } },
      };
      return parseMcpConfig(JSON.stringify(file), {}).servers.get('everything')!;
    },
    'Streamable HTTP': () => spawned('streamableHttp'),
    'SSE, found by falling back': () => spawned('sse'),
  };

  async function spawned(mode: 'streamableHttp' | 'sse'): Promise<McpServer> {
    const { url, close } = await spawnEverything(mode);
    closers.push(close);
    return overHttp('everything', url);
  }

  for (const [name, open] of Object.entries(transports)) {
    it(`over ${name}`, async () => {
      const server = await open();
      const tools = await pool.listTools(server);
      expect(tools.map((tool) => tool.name)).to.include.members(['echo', 'get-sum', 'get-structured-content']);
      expect(await pool.callTool(server, 'get-sum', { a: 12, b: 30 })).to.deep.equal({
        ok: true,
        output: 'The sum of 12 and 30 is 42.',
      });
      const weather = await pool.callTool(server, 'get-structured-content', { location: 'New York' });
      expect(weather).to.deep.equal({ ok: true, output: '{"temperature":33,"conditions":"Cloudy","humidity":82}' });
      const image = await pool.callTool(server, 'get-tiny-image', {});
      expect(image)
        .to.have.property('output')
        .that.matches(/\[image: image\/png, \d+ bytes\]/);
      const wrong = await pool.callTool(server, 'get-sum', { a: 'x' });
      expect(wrong).to.have.property('ok', false);

      const reports: McpProgress[] = [];
      const args = { duration: 0.2, steps: 2 };
      const long = await pool.callTool(server, 'trigger-long-running-operation', args, {
        onProgress: (p) => reports.push(p),
      });
      expect(long).to.have.property('ok', true);
      // The last report may share a packet with the result, which ends the listening.
      expect(reports[0]).to.include({ progress: 1, total: 2 });
    });
  }

  it('is started without our secrets', async () => {
    const server = await transports['stdio']!();
    process.env['TSSERVE_API_KEY'] = 'our-own-key';
    try {
      const outcome = await pool.callTool(server, 'get-env', {});
      const output = outcome.ok ? outcome.output : '';
      expect(output).to.contain('"PATH"').and.contain('"OWN": "yes"').and.not.contain('our-own-key');
    } finally {
      delete process.env['TSSERVE_API_KEY'];
    }
  });

  it('that cannot be started is an error in words', async () => {
    const server: McpServer = {
      label: 'gone',
      trusted: true,
      reach: { type: 'stdio', command: 'no-such-command-anywhere', args: [], env: {} },
    };
    expect(await pool.callTool(server, 'x', {})).to.deep.equal({
      ok: false,
      error: {
        type: 'mcp_protocol_error',
        code: -32000,
        message: "server 'gone' cannot be started: its command was not found",
      },
    });
  });
});

/** Speaks just enough MCP: `pid` answers with its process id, `die` ends the process. */
const MORTAL = `
  const say = (message) => process.stdout.write(JSON.stringify({ jsonrpc: '2.0', ...message }) + '\\n');
  const info = { protocolVersion: '2025-11-25', capabilities: { tools: {} }, serverInfo: { name: 'mortal', version: '1' } };
  require('node:readline').createInterface({ input: process.stdin }).on('line', (line) => {
    const { id, method, params } = JSON.parse(line);
    if (method === 'initialize') say({ id, result: info });
    if (method === 'tools/call' && params.name === 'die') process.exit(1);
    if (method === 'tools/call') say({ id, result: { content: [{ type: 'text', text: String(process.pid) }] } });
  }).on('close', () => process.exit(0));
`;

describe('a stdio server that dies', () => {
  it('is started again; the call that it died of is not repeated', async () => {
    const pool = new McpPool();
    const server: McpServer = {
      label: 'mortal',
      trusted: true,
      reach: { type: 'stdio', command: process.execPath, args: ['-e', MORTAL], env: {} },
    };
    try {
      const first = await pool.callTool(server, 'pid', {});
      expect(await pool.callTool(server, 'pid', {})).to.deep.equal(first);
      expect(await pool.callTool(server, 'die', {})).to.deep.equal({
        ok: false,
        error: { type: 'mcp_protocol_error', code: -32000, message: "server 'mortal': it closed the connection" },
      });
      const second = await pool.callTool(server, 'pid', {});
      expect(second.ok).to.equal(true);
      expect(second).to.not.deep.equal(first);
      const { pid } = { pid: Number(second.ok && second.output) };
      await pool.close();
      // Closing waits for the process to end.
      expect(() => process.kill(pid, 0)).to.throw('ESRCH');
    } finally {
      await pool.close();
    }
  });
});
