import { expect } from 'chai';

import { McpConfigError, parseMcpConfig } from '../ts/mcp/config.js';
import { resolveServers } from '../ts/mcp/servers.js';
import { ApiError } from '../ts/protocol/errors.js';
import { parseMcpTool } from '../ts/protocol/mcp.js';

function parse(mcpServers: unknown, environment: Record<string, string> = {}) {
  return parseMcpConfig(JSON.stringify({ mcpServers }), environment);
}

function problem(text: string): string {
  try {
    parseMcpConfig(text, {});
  } catch (error) {
    if (error instanceof McpConfigError) return error.message;
    throw error;
  }
  throw new Error('nothing was wrong');
}

describe('mcp.json', () => {
  it('names servers to start and servers to reach', () => {
    const { servers, warnings } = parse(
      {
        files: { command: 'npx', args: ['-y', '${PKG}', '${DIR:-/tmp}'], env: { TOKEN: '${TOKEN}' }, cwd: '/srv' },
        web: { url: 'http://10.0.0.1/${PKG}', headers: { Authorization: 'Bearer ${TOKEN}' }, timeout: 3 },
        old: { type: 'sse', url: 'https://a/sse' },
        off: { disabled: true },
      },
      { PKG: 'pkg', TOKEN: 'secret' },
    );
    expect([...servers.values()]).to.deep.equal([
      {
        label: 'files',
        trusted: true,
        reach: { type: 'stdio', command: 'npx', args: ['-y', 'pkg', '/tmp'], env: { TOKEN: 'secret' }, cwd: '/srv' },
      },
      {
        label: 'web',
        trusted: true,
        reach: { type: 'http', url: new URL('http://10.0.0.1/pkg'), headers: { authorization: 'Bearer secret' } },
      },
      { label: 'old', trusted: true, reach: { type: 'sse', url: new URL('https://a/sse'), headers: {} } },
    ]);
    expect(warnings).to.deep.equal(['mcpServers["web"].timeout has no effect']);
  });

  const wrong: [string, string][] = [
    ['[]', 'the file must be an object'],
    ['{}', 'it has no "mcpServers"; expected {"mcpServers": {"name": {…}}}'],
    ['{"mcpServers": {"a": 1}}', 'mcpServers["a"] must be an object'],
    ['{"mcpServers": {"a": {}}}', 'mcpServers["a"] must have either a command or a url'],
    ['{"mcpServers": {"a": {"command": "x", "url": "y"}}}', 'mcpServers["a"] must have either a command or a url'],
    ['{"mcpServers": {"a": {"command": 1}}}', 'mcpServers["a"].command must be a string'],
    ['{"mcpServers": {"a": {"command": "x", "args": "y"}}}', 'mcpServers["a"].args must be an array of strings'],
    ['{"mcpServers": {"a": {"command": "x", "env": {"B": 1}}}}', 'mcpServers["a"].env.B must be a string'],
    ['{"mcpServers": {"a": {"command": "x", "type": "sse"}}}', 'mcpServers["a"].type must be "stdio" beside a command'],
    ['{"mcpServers": {"a": {"url": "x"}}}', 'mcpServers["a"].url must be an http or https address'],
    [
      '{"mcpServers": {"a": {"url": "https://a", "type": "x"}}}',
      'mcpServers["a"].type must be "http" or "sse" beside a url',
    ],
    [
      '{"mcpServers": {"a": {"command": "${NOPE}"}}}',
      'mcpServers["a"].command: the environment variable NOPE is not set',
    ],
  ];
  for (const [text, message] of wrong) it(message, () => expect(problem(text)).to.equal(message));

  it('does not quote itself', () => {
    expect(problem('{"mcpServers": {"a": {"headers": {"k": "hunter22" "')).to.match(
      /^it is not valid JSON( \(position \d+\))?$/,
    );
  });
});

describe('servers of a request', () => {
  const { servers: configured } = parse({ files: { command: 'node' } });
  const resolve = (tool: object, policy: object = {}) =>
    resolveServers([parseMcpTool({ type: 'mcp', ...tool }, 'tools[0]')], () => 'tools[0]', {
      configured,
      ...policy,
    })[0];

  it("are the operator's by label, or the request's own by address", () => {
    expect(resolve({ server_label: 'files', require_approval: 'never' })).to.deep.equal({
      server: configured.get('files'),
      requireApproval: 'never',
    });
    const own = resolve({ server_label: 'files', server_url: 'https://a/', authorization: 't' }, { partition: 'p' });
    expect(own).to.deep.equal({
      server: {
        label: 'files',
        trusted: false,
        partition: 'p',
        reach: { type: 'http', url: new URL('https://a/'), authorization: 't' },
      },
      requireApproval: 'always',
    });
  });

  it('are refused by name', () => {
    expect(() => resolve({ server_label: 'nope' })).to.throw(
      ApiError,
      /no MCP server of this server: "nope" \('files'\)/,
    );
    expect(() => resolve({ server_label: 'a', server_url: 'https://a/' }, { allowUrls: false })).to.throw(
      ApiError,
      /'tools\[0\]\.server_url' is not supported/,
    );
  });
});
