import { expect } from 'chai';

import { ApiError } from '../ts/protocol/errors.js';
import { checkMcpTools, type McpTool, parseMcpTool, requireUnattended } from '../ts/protocol/mcp.js';

const base = { type: 'mcp', server_label: 'weather', server_url: 'https://mcp.example/mcp' };

function parse(extra: object = {}): McpTool {
  return parseMcpTool({ ...base, ...extra }, 'tools[0]');
}

function refusal(run: () => unknown): { param: string | null; message: string; code: string | null } {
  try {
    run();
  } catch (error) {
    if (error instanceof ApiError) return error;
    throw error;
  }
  throw new Error('nothing was refused');
}

describe('the MCP tool of a request', () => {
  it('is read', () => {
    expect(parse()).to.deep.equal({
      type: 'mcp',
      serverLabel: 'weather',
      serverUrl: new URL(base.server_url),
      requireApproval: 'always',
    });
    const whole = parse({
      server_description: 'The weather',
      allowed_tools: ['a', 'b'],
      require_approval: { always: { read_only: false }, never: { tool_names: ['a'] } },
      headers: { 'X-Key': 'k' },
      authorization: 'token',
      defer_loading: true,
      allowed_callers: null,
    });
    expect(whole).to.deep.include({
      serverDescription: 'The weather',
      allowedTools: { toolNames: ['a', 'b'] },
      requireApproval: { always: { readOnly: false }, never: { toolNames: ['a'] } },
      headers: { 'x-key': 'k' },
      authorization: 'token',
    });
    expect(parse({ allowed_tools: { read_only: true, tool_names: ['a'] } }).allowedTools).to.deep.equal({
      toolNames: ['a'],
      readOnly: true,
    });
    expect(parse({ server_url: null })).to.not.have.property('serverUrl');
  });

  const refused: [string, object, string][] = [
    ['no label', { server_label: undefined }, 'tools[0].server_label'],
    ['a label with a slash', { server_label: 'a/b' }, 'tools[0].server_label'],
    ['a long label', { server_label: 'a'.repeat(65) }, 'tools[0].server_label'],
    ['a connector', { connector_id: 'connector_gmail' }, 'tools[0].connector_id'],
    ['a tunnel', { tunnel_id: 't' }, 'tools[0].tunnel_id'],
    ['another protocol', { server_url: 'file:///etc/passwd' }, 'tools[0].server_url'],
    ['a command', { server_url: 'npx something' }, 'tools[0].server_url'],
    ['a password', { server_url: 'https://a:b@c/' }, 'tools[0].server_url'],
    ['a long address', { server_url: `https://a/${'a'.repeat(2048)}` }, 'tools[0].server_url'],
    ['headers without an address', { server_url: undefined, headers: { a: 'b' } }, 'tools[0].server_url'],
    ['a header of the connection', { headers: { Host: 'a' } }, 'tools[0].headers'],
    ['a header of MCP', { headers: { 'Mcp-Session-Id': 'a' } }, 'tools[0].headers'],
    ['a header that is none', { headers: { 'a b': 'c' } }, 'tools[0].headers'],
    ['a header with a line end', { headers: { a: 'b\r\nc: d' } }, 'tools[0].headers.a'],
    ['a header that is no string', { headers: { a: 1 } }, 'tools[0].headers.a'],
    [
      'many headers',
      { headers: Object.fromEntries([...Array(33).keys()].map((i) => [`h${i}`, 'x'])) },
      'tools[0].headers',
    ],
    ['two tokens', { headers: { Authorization: 'a' }, authorization: 'b' }, 'tools[0].authorization'],
    ['an odd approval', { require_approval: 'sometimes' }, 'tools[0].require_approval'],
    ['an odd filter', { allowed_tools: 'a' }, 'tools[0].allowed_tools'],
    ['many names', { allowed_tools: Array(257).fill('a') }, 'tools[0].allowed_tools'],
  ];
  for (const [what, extra, param] of refused) {
    it(`is refused with ${what}`, () => expect(refusal(() => parse(extra)).param).to.equal(param));
  }

  it('shows no secret in its errors', () => {
    const secret = 'hunter22\r\nhunter22';
    for (const extra of [{ authorization: secret }, { headers: { 'x-key': secret } }])
      expect(refusal(() => parse(extra)).message).to.not.contain('hunter');
  });

  it('has a label of its own', () => {
    const tool = parse();
    expect(refusal(() => checkMcpTools([tool, tool], 'tools')).message).to.contain('"weather" twice');
    expect(refusal(() => checkMcpTools(Array<McpTool>(17).fill(tool), 'tools')).message).to.contain('at most 16');
    checkMcpTools([tool, { ...tool, serverLabel: 'other' }], 'tools');
  });

  it('must ask for nothing in a chat completion', () => {
    requireUnattended(parse({ require_approval: 'never' }), 'tools[0]');
    for (const extra of [{}, { require_approval: 'always' }, { require_approval: { never: { tool_names: ['a'] } } }]) {
      const error = refusal(() => requireUnattended(parse(extra), 'tools[0]'));
      expect(error).to.include({ param: 'tools[0].require_approval', code: 'unsupported_parameter' });
      expect(error.message).to.contain("set require_approval to 'never'");
    }
  });
});
