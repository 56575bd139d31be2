/** Items → messages, and back through a compaction. */

import { expect } from 'chai';

import { ApiError } from '../ts/protocol/errors.js';
import type { ContextItem } from '../ts/protocol/response-items.js';
import { parseCreateResponse } from '../ts/protocol/responses.js';
import { compact, decodeReasoning, encodeReasoning, unfold } from '../ts/responses/compaction.js';
import { toChatRequest, toMessages } from '../ts/responses/to-chat.js';

function itemsOf(input: unknown): ContextItem[] {
  const request = parseCreateResponse({ input }, { strict: true, warn: () => undefined });
  return request.input as ContextItem[];
}

const thought = (text: string) => ({ type: 'reasoning', summary: [], content: [{ type: 'reasoning_text', text }] });
const call = (id: string) => ({ type: 'function_call', call_id: id, name: 'f', arguments: '{}' });
const CALL = (id: string) => ({ id, name: 'f', arguments: '{}' });

describe('toMessages', () => {
  const cases: readonly [what: string, items: unknown[], messages: unknown[]][] = [
    [
      'joins reasoning, text and calls of one turn',
      [thought('a'), thought('b'), { role: 'assistant', content: 'x' }, call('1'), call('2')],
      [{ role: 'assistant', content: 'x', reasoning: 'a\nb', toolCalls: [CALL('1'), CALL('2')] }],
    ],
    [
      'keeps turns apart: reasoning, a second text, an output begin a new one',
      [
        call('1'),
        { type: 'function_call_output', call_id: '1', output: 'r' },
        thought('a'),
        { role: 'assistant', content: 'x' },
        { role: 'assistant', content: 'y' },
        thought('z'),
        call('2'),
      ],
      [
        { role: 'assistant', content: null, toolCalls: [CALL('1')] },
        { role: 'tool', toolCallId: '1', content: 'r' },
        { role: 'assistant', content: 'x', reasoning: 'a' },
        { role: 'assistant', content: 'y' },
        { role: 'assistant', content: null, reasoning: 'z', toolCalls: [CALL('2')] },
      ],
    ],
    [
      'leaves out reasoning that led to nothing, and half calls',
      [thought('a'), { ...call('1'), status: 'incomplete' }, { role: 'user', content: 'go on' }],
      [{ role: 'user', content: 'go on' }],
    ],
    [
      'keeps developer and system messages and the order of parts',
      [
        { role: 'developer', content: 'd' },
        {
          role: 'user',
          content: [
            { type: 'input_text', text: 'a' },
            { type: 'input_image', image_url: 'data:x' },
            { type: 'input_text', text: 'b' },
          ],
        },
        {
          role: 'assistant',
          content: [
            { type: 'output_text', text: 'p' },
            { type: 'refusal', refusal: 'q' },
          ],
        },
      ],
      [
        { role: 'developer', content: 'd' },
        {
          role: 'user',
          content: [
            { type: 'text', text: 'a' },
            { type: 'image', url: 'data:x' },
            { type: 'text', text: 'b' },
          ],
        },
        { role: 'assistant', content: 'pq' },
      ],
    ],
    [
      'shows calls of MCP tools and their outcome, and no lists or approvals',
      [
        { type: 'mcp_list_tools', server_label: 's', tools: [] },
        { type: 'mcp_call', id: 'mcp_1', server_label: 's', name: 't', arguments: '{}', output: 'ok' },
        { type: 'mcp_call', id: 'mcp_2', server_label: 's', name: 't', arguments: '{}', error: 'bad' },
        { type: 'mcp_call', id: 'mcp_3', server_label: 's', name: 't', arguments: '{}', status: 'incomplete' },
        { type: 'mcp_approval_response', approval_request_id: 'x', approve: true },
      ],
      [
        { role: 'assistant', content: null, toolCalls: [{ id: 'mcp_1', name: 't', arguments: '{}' }] },
        { role: 'tool', toolCallId: 'mcp_1', content: 'ok' },
        { role: 'assistant', content: null, toolCalls: [{ id: 'mcp_2', name: 't', arguments: '{}' }] },
        { role: 'tool', toolCallId: 'mcp_2', content: 'bad' },
      ],
    ],
  ];
  for (const [what, items, messages] of cases) {
    it(what, () => expect(toMessages(itemsOf(items))).to.deep.equal(messages));
  }
});

describe('toChatRequest', () => {
  const tools = ['a', 'b'].map((name) => ({ type: 'function', name, parameters: {} }));
  const choices: readonly [unknown, unknown][] = [
    [
      { type: 'allowed_tools', mode: 'required', tools: [{ type: 'function', name: 'a' }] },
      { allowed: ['a'], mode: 'required' },
    ],
    [{ type: 'allowed_tools', mode: 'auto', tools: tools.map(({ type, name }) => ({ type, name })) }, 'auto'],
    [{ type: 'function', name: 'b' }, { name: 'b' }],
    ['none', 'none'],
  ];
  for (const [given, expected] of choices) {
    it(`turns the choice ${JSON.stringify(given)} into ${JSON.stringify(expected)}`, () => {
      const request = parseCreateResponse(
        { input: 'x', tools, tool_choice: given },
        { strict: true, warn: () => undefined },
      );
      const chat = toChatRequest(request, request.input as ContextItem[]);
      expect(chat.toolChoice).to.deep.equal(expected);
      expect(chat.tools?.length).to.equal(given === 'none' ? undefined : 2);
    });
  }
});

describe('compaction', () => {
  const items = itemsOf([
    { role: 'user', content: 'é👋' },
    thought('secret'),
    call('1'),
    { type: 'function_call_output', call_id: '1', output: 'r' },
    { role: 'assistant', content: 'done' },
  ]);

  it('gives back what the model would read, without reasoning', () => {
    const folded = compact(items);
    expect(toMessages(unfold([folded]))).to.deep.equal(toMessages(items.filter(({ type }) => type !== 'reasoning')));
    const again = compact(unfold([folded, ...itemsOf('more')]));
    expect(toMessages(unfold([again])).at(-1)).to.deep.equal({ role: 'user', content: 'more' });
  });

  it('is checked when it comes back', () => {
    const { encrypted_content: content } = compact(items);
    for (const wrong of ['', 'x', content.slice(0, -8), 'tsserve-items-1:AAAA', encodeReasoning('x')]) {
      expect(() => unfold([{ type: 'compaction', encrypted_content: wrong }])).to.throw(ApiError);
    }
    const bomb = compact(itemsOf(Array.from({ length: 20 }, () => ({ role: 'user', content: 'x'.repeat(2_000_000) }))));
    expect(bomb.encrypted_content.length).to.be.lessThan(10_000);
    expect(() => unfold([bomb])).to.throw(ApiError);
  });

  it('carries reasoning as text', () => {
    expect(decodeReasoning(encodeReasoning('hm 👋'))).to.equal('hm 👋');
    expect(decodeReasoning('gAAAAA')).to.be.undefined;
  });
});
