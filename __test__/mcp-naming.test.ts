import { expect } from 'chai';

import { needsApproval, pendingApprovals } from '../ts/mcp/approval.js';
import { ToolCatalog } from '../ts/mcp/naming.js';
import { resultText } from '../ts/mcp/result-text.js';
import type { McpServer, McpToolInfo, RequestedServer } from '../ts/mcp/tool.js';

const inputSchema = { type: 'object' };

function listed(label: string, names: readonly string[], extra: Partial<RequestedServer> = {}) {
  const server: McpServer = { label, trusted: false, reach: { type: 'http', url: new URL('https://a/') } };
  const tools = names.map((name): McpToolInfo => ({ name, inputSchema }));
  return { requested: { server, requireApproval: 'never' as const, ...extra }, tools };
}

function names(...args: ConstructorParameters<typeof ToolCatalog>): string[] {
  return new ToolCatalog(...args).tools.map(({ name }) => name);
}

describe('names of MCP tools', () => {
  it('are their own where they can be', () => {
    expect(names([listed('a', ['get-sum', 'x']), listed('b', ['y'])], ['f'])).to.deep.equal(['get-sum', 'x', 'y']);
  });

  it('carry the label where two share one, in any order', () => {
    const [a, b] = [listed('a b', ['x', 'only']), listed('b', ['x'])];
    expect(names([a, b])).to.deep.equal(['a_b__x', 'only', 'b__x']);
    expect(names([b, a])).to.deep.equal(['b__x', 'a_b__x', 'only']);
    expect(names([b], ['x'])).to.deep.equal(['b__x']);
  });

  it('are valid, unique and short, whatever servers call themselves', () => {
    const long = 'n'.repeat(128);
    const servers = [
      listed('a', ['x', 'b.c', 'b c', 'ä', long, `${long.slice(1)}m`, 'b__x']),
      listed('a b', ['x', long]),
      listed('a_b', ['x', long]),
      listed('a__b', ['x']),
    ];
    const functions = ['a__x', 'b__x'];
    const all = names(servers, functions);
    expect(new Set([...all, ...functions]).size).to.equal(all.length + functions.length);
    for (const name of all) expect(name).to.match(/^[A-Za-z0-9_-]{1,64}$/);
    expect(names(servers, functions)).to.deep.equal(all);
    const catalog = new ToolCatalog(servers, functions);
    for (const tool of catalog.tools) expect(catalog.named(tool.name)).to.equal(tool);
    expect(catalog.find('a_b', long)?.server.label).to.equal('a_b');
  });

  it('mean the first of two equal ones', () => {
    expect(names([listed('a', ['x', 'x'])])).to.deep.equal(['x']);
  });
});

describe('approval of MCP calls', () => {
  const tool: McpToolInfo = { name: 'x', inputSchema };
  const reader: McpToolInfo = { ...tool, annotations: { readOnlyHint: true } };

  it('is needed unless a filter says otherwise', () => {
    expect(needsApproval('always', tool)).to.equal(true);
    expect(needsApproval('never', tool)).to.equal(false);
    expect(needsApproval({}, tool)).to.equal(true);
    expect(needsApproval({ never: {} }, tool)).to.equal(true);
    expect(needsApproval({ never: { toolNames: ['x'] } }, tool)).to.equal(false);
    expect(needsApproval({ never: { toolNames: ['y'] } }, tool)).to.equal(true);
    expect(needsApproval({ never: { readOnly: true } }, tool)).to.equal(true);
    expect(needsApproval({ never: { readOnly: true } }, reader)).to.equal(false);
    expect(needsApproval({ always: { toolNames: ['x'] }, never: { readOnly: true } }, reader)).to.equal(true);
    expect(needsApproval({ always: { toolNames: ['y'] } }, tool)).to.equal(true);
  });

  it('acts on the last answer, once, and knows answers to nothing', () => {
    const request = { id: 'mcpr_1', serverLabel: 'a', name: 'x', arguments: '{}' };
    const answer = (approve: boolean, approvalRequestId = 'mcpr_1') => ({ approvalRequestId, approve });
    const twice = pendingApprovals({ requests: [request], answers: [answer(false), answer(true)], executed: [] });
    expect(twice).to.deep.equal({ decisions: [{ ...request, approve: true }], unknown: [] });
    const odd = pendingApprovals({ requests: [request], answers: [answer(true, 'mcpr_2')], executed: [] });
    expect(odd).to.deep.equal({ decisions: [], unknown: ['mcpr_2'] });
  });
});

describe('results of MCP calls as text', () => {
  const text = (value: string) => ({ type: 'text' as const, text: value });

  it('join texts, sum up bytes and name links', () => {
    const data = Buffer.from('12345').toString('base64');
    const result = resultText(
      {
        content: [
          text('one'),
          { type: 'image', mimeType: 'image/png', data },
          { type: 'audio', mimeType: 'audio/wav', data },
          { type: 'resource_link', name: 'readme', uri: 'file:///r', mimeType: 'text/markdown' },
          { type: 'resource', resource: { uri: 'a://b', text: 'inside' } },
          { type: 'resource', resource: { uri: 'a://c', mimeType: 'x/y', blob: data } },
        ],
      },
      1000,
    );
    expect(result.split('\n')).to.deep.equal([
      'one',
      '[image: image/png, 5 bytes]',
      '[audio: audio/wav, 5 bytes]',
      '[resource readme: file:///r, text/markdown]',
      '[resource a://b]',
      'inside',
      '[resource a://c, x/y, 5 bytes]',
    ]);
  });

  it('hold structured content once', () => {
    const structuredContent = { a: 1, b: [2] };
    const same = text('{ "b": [2], "a": 1 }');
    expect(resultText({ content: [same], structuredContent }, 100)).to.equal(same.text);
    expect(resultText({ content: [], structuredContent }, 100)).to.equal('{"a":1,"b":[2]}');
    expect(resultText({ content: [text('Found.')], structuredContent }, 100)).to.equal('Found.\n{"a":1,"b":[2]}');
  });

  it('are cut between characters', () => {
    expect(resultText({ content: [text('ab😀d')] }, 3)).to.equal('ab\n[cut off: 3 of 5 characters]');
  });
});
