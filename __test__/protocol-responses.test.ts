/** What a request of the Responses API may be. */

import { expect } from 'chai';

import { ApiError } from '../ts/protocol/errors.js';
import { type CreateResponse, parseCreateResponse, RESPONSE_FIELDS } from '../ts/protocol/responses.js';

function parse(body: unknown, strict = false): { request: CreateResponse; warnings: string[] } {
  const warnings: string[] = [];
  const request = parseCreateResponse(body, { strict, warn: (field) => warnings.push(field) });
  return { request, warnings };
}

function refusal(body: unknown, strict = false): string {
  try {
    parse(body, strict);
  } catch (error) {
    if (error instanceof ApiError) return `${error.status} ${error.code} ${error.param}`;
    throw error;
  }
  throw new Error(`accepted: ${JSON.stringify(body)}`);
}

const user = { type: 'message', role: 'user', content: 'hi' };

describe('parseCreateResponse', () => {
  it('fills in the defaults', () => {
    const { request, warnings } = parse({ input: 'hi' });
    expect(request).to.deep.include({
      model: undefined,
      store: true,
      background: false,
      stream: false,
      toolChoice: 'auto',
      parallelToolCalls: true,
      format: { type: 'text' },
      truncation: 'disabled',
      logprobs: undefined,
      metadata: {},
    });
    expect(request.input).to.deep.equal([
      { type: 'message', role: 'user', status: 'completed', content: [{ type: 'input_text', text: 'hi' }] },
    ]);
    expect(warnings).to.deep.equal([]);
  });

  it('takes every kind of item', () => {
    const items = [
      { role: 'developer', content: [{ type: 'input_text', text: 'a' }] },
      { role: 'user', content: [{ type: 'input_image', image_url: 'data:image/png;base64,AA' }] },
      { type: 'reasoning', id: 'rs_1', summary: [], content: [{ type: 'reasoning_text', text: 'hm' }] },
      {
        type: 'message',
        id: 'msg_1',
        role: 'assistant',
        status: 'incomplete',
        content: [{ type: 'output_text', text: 'b', annotations: [] }],
      },
      { type: 'function_call', id: 'fc_1', call_id: 'call_1', name: 'f', arguments: '{}' },
      { type: 'function_call_output', call_id: 'call_1', output: [{ type: 'input_text', text: 'c' }] },
      { type: 'item_reference', id: 'msg_2' },
      { id: 'msg_3' },
      {
        type: 'mcp_list_tools',
        id: 'mcpl_1',
        server_label: 's',
        tools: [{ name: 't', input_schema: {}, description: null }],
      },
      { type: 'mcp_call', id: 'mcp_1', server_label: 's', name: 't', arguments: '{}', output: 'x', error: null },
      { type: 'mcp_approval_request', id: 'mcpr_1', server_label: 's', name: 't', arguments: '{}' },
      { type: 'mcp_approval_response', approval_request_id: 'mcpr_1', approve: false, reason: 'no' },
      { type: 'compaction', encrypted_content: 'x' },
      { type: 'web_search_call', id: 'ws_1', status: 'completed' },
    ];
    const { request, warnings } = parse({ input: items });
    expect(request.input.map(({ type }) => type)).to.deep.equal([
      ...['message', 'message', 'reasoning', 'message', 'function_call', 'function_call_output', 'item_reference'],
      ...[
        'item_reference',
        'mcp_list_tools',
        'mcp_call',
        'mcp_approval_request',
        'mcp_approval_response',
        'compaction',
      ],
    ]);
    expect((request.input[8] as any).tools).to.deep.equal([{ name: 't', input_schema: {} }]);
    expect(warnings).to.have.length(1);
  });

  const refusals: readonly [what: string, body: object, refusal: string][] = [
    ['no input', {}, '400 missing_required_parameter input'],
    ['empty input', { input: [] }, '400 invalid_value input'],
    ['a number', { input: 3 }, '400 invalid_type input'],
    ['an unknown item', { input: [{ type: 'nope' }] }, '400 invalid_value input[0].type'],
    ['an item by a name of the language', { input: [{ type: 'constructor' }] }, '400 invalid_value input[0].type'],
    ['a custom tool call', { input: [{ type: 'custom_tool_call' }] }, '400 unsupported_value input[0].type'],
    [
      'a file',
      { input: [{ ...user, content: [{ type: 'input_file', file_id: 'f' }] }] },
      '400 unsupported_value input[0].content[0].type',
    ],
    [
      'an image by id',
      { input: [{ ...user, content: [{ type: 'input_image', file_id: 'f' }] }] },
      '400 unsupported_value input[0].content[0].file_id',
    ],
    [
      'a picture of the system',
      { input: [{ role: 'system', content: [{ type: 'input_image', image_url: 'x' }] }] },
      '400 invalid_value input[0].content[0].type',
    ],
    [
      'a call without an id',
      { input: [{ type: 'function_call', name: 'f', arguments: '{}' }] },
      '400 missing_required_parameter input[0].call_id',
    ],
    ['a custom tool', { input: 'x', tools: [{ type: 'custom', name: 'c' }] }, '400 unsupported_value tools[0].type'],
    [
      'a tool twice',
      {
        input: 'x',
        tools: [
          { type: 'function', name: 'f' },
          { type: 'function', name: 'f' },
        ],
      },
      '400 invalid_value tools',
    ],
    ['a choice of nothing', { input: 'x', tool_choice: 'required' }, '400 invalid_value tool_choice'],
    [
      'a choice of another',
      { input: 'x', tools: [{ type: 'function', name: 'f' }], tool_choice: { type: 'function', name: 'g' } },
      '400 invalid_value tool_choice',
    ],
    ['background without store', { input: 'x', background: true, store: false }, '400 invalid_value background'],
    [
      'a conversation and a response before',
      { conversation: 'conv_1', previous_response_id: 'resp_1' },
      '400 mutually_exclusive_parameters conversation',
    ],
    ['a stored prompt', { input: 'x', prompt: { id: 'p' } }, '400 unsupported_parameter prompt'],
    [
      'too many pairs',
      { input: 'x', metadata: Object.fromEntries(Array.from({ length: 17 }, (_, i) => [i, 'x'])) },
      '400 invalid_value metadata',
    ],
    [
      'a format without a schema',
      { input: 'x', text: { format: { type: 'json_schema', name: 'n' } } },
      '400 missing_required_parameter text.format.schema',
    ],
    [
      'a connector',
      { input: 'x', tools: [{ type: 'mcp', server_label: 's', connector_id: 'c' }] },
      '400 unsupported_parameter tools[0].connector_id',
    ],
    ['text too long', { input: 'x'.repeat(10_485_761) }, '400 invalid_value input'],
  ];
  for (const [what, body, expected] of refusals) {
    it(`refuses ${what}`, () => expect(refusal(body)).to.equal(expected));
  }

  it('takes a conversation by its id or as an object', () => {
    expect(parse({ conversation: 'conv_1' }).request.conversation).to.equal('conv_1');
    expect(parse({ input: 'x', conversation: { id: 'conv_1' } }).request.conversation).to.equal('conv_1');
    expect(parse({ conversation: null, previous_response_id: 'resp_1' }).request.conversation).to.equal(undefined);
  });

  it('warns of what has no effect, and in strict mode refuses what nobody knows', () => {
    const body = { input: 'x', service_tier: 'auto', tools: [{ type: 'web_search' }], what: 1 };
    expect(parse(body).warnings).to.deep.equal(['service_tier', 'what', 'tools[].type="web_search"']);
    expect(refusal(body, true)).to.equal('400 unknown_parameter what');
  });

  it('never meets a body with anything but a value or a 400', () => {
    const random = generator(7);
    const pick = (n: number): number => Math.floor(random() * n);
    const names = [...Object.keys(RESPONSE_FIELDS), 'type', 'role', 'content', 'id', 'call_id', 'name', '__proto__'];
    const types = [
      'message',
      'reasoning',
      'function_call',
      'function_call_output',
      'mcp_call',
      'mcp',
      'function',
      'constructor',
    ];
    const value = (depth: number): unknown => {
      const kind = pick(depth > 4 ? 6 : 9);
      if (kind === 0) return null;
      if (kind === 1) return pick(2) === 0;
      if (kind === 2) return [0, -1, 1.5, Number.POSITIVE_INFINITY, 2 ** 53][pick(5)];
      if (kind < 6)
        return pick(2) === 0 ? types[pick(types.length)] : ['', 'user', 'x'.repeat(pick(600)), 'auto'][pick(4)];
      if (kind < 7) return Array.from({ length: pick(4) }, () => value(depth + 1));
      return Object.fromEntries(Array.from({ length: pick(6) }, () => [names[pick(names.length)], value(depth + 1)]));
    };
    let accepted = 0;
    for (let i = 0; i < 5_000; i++) {
      const body = { ...(value(0) as object), ...(pick(2) === 0 ? { input: pick(2) === 0 ? 'x' : [value(1)] } : {}) };
      try {
        parse(body);
        accepted++;
      } catch (error) {
        if (!(error instanceof ApiError) || error.status !== 400)
          throw new Error(JSON.stringify(body), { cause: error });
      }
    }
    expect(accepted).to.be.greaterThan(100);
  });
});

/** Numbers in 0..1 that are the same every time. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}
