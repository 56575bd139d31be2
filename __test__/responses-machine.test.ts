/** The event machine: order by literals, legality by a fold of its own, shape by OpenAI's schema. */

import { expect } from 'chai';

import type { ResponseEvent } from '../ts/protocol/response-events.js';
import { parseCreateResponse } from '../ts/protocol/responses.js';
import { toEcho } from '../ts/responses/echo.js';
import { type MachineOptions, type ModelEvent, ResponseMachine } from '../ts/responses/event-machine.js';
import { call, checkLegal, checkSchema, typesOf } from './helpers/response-events.js';
import { content, finished, reasoning, started, token, USAGE } from './helpers/scripted-events.js';

const REQUEST = parseCreateResponse(
  {
    input: 'hi',
    metadata: { a: 'b' },
    tools: [{ type: 'function', name: 'add', parameters: { type: 'object' } }],
    text: { format: { type: 'json_schema', name: 'x', schema: {} } },
  },
  { strict: true, warn: () => undefined },
);

function machineOf(options: Partial<MachineOptions> = {}): ResponseMachine {
  return new ResponseMachine({
    id: 'resp_1',
    createdAt: 1_700_000_000,
    echo: toEcho(REQUEST, 'm', undefined),
    ...options,
  });
}

/** One turn, whole. */
function answer(events: readonly ModelEvent[], options: Partial<MachineOptions> = {}): ResponseEvent[] {
  const machine = machineOf(options);
  return [...machine.start(), ...events.flatMap((event) => machine.push(event)), ...machine.finish()];
}

function route(name: string) {
  if (name.startsWith('mcp')) return { kind: 'mcp', serverLabel: 's', name } as const;
  return name.startsWith('ask')
    ? ({ kind: 'approval', serverLabel: 's', name } as const)
    : ({ kind: 'function' } as const);
}

const MESSAGE = [
  'output_item.added',
  'content_part.added',
  'output_text.delta',
  'output_text.done',
  'content_part.done',
  'output_item.done',
];
const REASONING = [
  'output_item.added',
  'content_part.added',
  'reasoning_text.delta',
  'reasoning_text.done',
  'content_part.done',
  'output_item.done',
];
const CALL = [
  'output_item.added',
  'function_call_arguments.delta',
  'function_call_arguments.delta',
  'function_call_arguments.done',
  'output_item.done',
];

describe('the response machine', () => {
  const orders: readonly [what: string, events: ModelEvent[], types: string[], items: string[]][] = [
    ['text', [started, content('Hi'), finished()], [...MESSAGE, 'completed'], ['message completed']],
    [
      'reasoning, then text',
      [started, reasoning('hm'), content('Hi'), finished()],
      [...REASONING, ...MESSAGE, 'completed'],
      ['reasoning completed', 'message completed'],
    ],
    [
      'text, reasoning, text',
      [content('a'), reasoning('b'), content('c'), finished()],
      [...MESSAGE, ...REASONING, ...MESSAGE, 'completed'],
      ['message completed', 'reasoning completed', 'message completed'],
    ],
    ['a call alone', [...call(0, 'add', ['{', '}']), finished()], [...CALL, 'completed'], ['function_call completed']],
    [
      'text, then two calls',
      [content('a'), ...call(0, 'add', ['{', '}']), ...call(1, 'add', ['{', '}']), finished()],
      [...MESSAGE, ...CALL, ...CALL, 'completed'],
      ['message completed', 'function_call completed', 'function_call completed'],
    ],
    [
      'nothing',
      [started, finished()],
      MESSAGE.filter((type) => type !== 'output_text.delta').concat('completed'),
      ['message completed'],
    ],
    ['text cut off', [content('a'), finished('length')], [...MESSAGE, 'incomplete'], ['message incomplete']],
    [
      'a call cut off: no arguments.done',
      [...call(0, 'add', ['{'], false), finished('length')],
      ['output_item.added', 'function_call_arguments.delta', 'output_item.done', 'incomplete'],
      ['function_call incomplete'],
    ],
  ];
  for (const [what, events, types, items] of orders) {
    it(`puts in order: ${what}`, () => {
      const out = answer(events);
      expect(typesOf(out)).to.deep.equal(['created', 'in_progress', ...types]);
      const response = checkLegal(out);
      checkSchema(out);
      expect(response.output.map((item) => `${item.type} ${(item as { status?: string }).status ?? ''}`)).to.deep.equal(
        items,
      );
    });
  }

  it('says what the text limit did', () => {
    const {
      status,
      incomplete_details: details,
      completed_at: at,
    } = checkLegal(answer([content('a'), finished('length')]));
    expect({ status, details, at }).to.deep.equal({
      status: 'incomplete',
      details: { reason: 'max_output_tokens' },
      at: null,
    });
  });

  it('counts: input, cached, reasoning, over all turns', () => {
    const machine = machineOf();
    machine.start();
    for (let turn = 0; turn < 2; turn++) {
      machine.push(reasoning('a'));
      machine.push(finished(), 2);
    }
    const last = machine.finish().at(-1) as Extract<ResponseEvent, { response: unknown }>;
    expect(last.response.usage).to.deep.equal({
      input_tokens: 2 * USAGE.promptTokens,
      input_tokens_details: { cached_tokens: 2 * USAGE.cachedTokens, cache_write_tokens: 0 },
      output_tokens: 2 * USAGE.completionTokens,
      output_tokens_details: { reasoning_tokens: 4 },
      total_tokens: 2 * (USAGE.promptTokens + USAGE.completionTokens),
    });
  });

  it('passes log-probabilities on, in deltas and in the whole', () => {
    const out = answer([content('a', [token('a', -1, { a: -1, b: -2 })]), content('b', [token('b', -3)]), finished()]);
    checkSchema(out);
    const [item] = checkLegal(out).output;
    expect((item as any).content[0].logprobs.map((entry: any) => entry.logprob)).to.deep.equal([-1, -3]);
  });

  it('keeps snapshots as they were', () => {
    const machine = machineOf();
    const before = [...machine.start(), ...machine.push(content('a'))];
    const frozen = JSON.stringify([before, machine.snapshot]);
    const snapshot = machine.snapshot;
    machine.push(content('b'));
    machine.push(finished());
    machine.finish();
    expect(JSON.stringify([before, snapshot])).to.equal(frozen);
  });

  it('interleaves parallel calls, each at its own index', () => {
    const [a, b] = [call(0, 'add', ['1', '2']), call(1, 'sub', ['3'])] as const;
    const out = answer([a[0]!, a[1]!, b[0]!, b[1]!, a[2]!, b[2]!, a[3]!, finished()]);
    const response = checkLegal(out);
    checkSchema(out);
    expect(response.output.map((item: any) => [item.name, item.arguments, item.status, item.call_id])).to.deep.equal([
      ['add', '12', 'completed', 'call_0'],
      ['sub', '3', 'completed', 'call_1'],
    ]);
  });

  it('fails and cancels with everything closed, and says nothing afterwards', () => {
    for (const end of ['fail', 'cancel'] as const) {
      const machine = machineOf();
      const begun = [...machine.queue(), ...machine.start(), ...machine.push(content('a'))];
      const error = { code: 'server_error', message: 'no' } as const;
      const out = [...begun, ...(end === 'fail' ? machine.fail(error) : machine.cancel())];
      const response = checkLegal(out);
      checkSchema(out);
      expect(typesOf(out).slice(0, 3)).to.deep.equal(['created', 'queued', 'in_progress']);
      expect([typesOf(out).at(-1), response.status, response.error]).to.deep.equal(
        end === 'fail' ? ['failed', 'failed', error] : ['incomplete', 'cancelled', null],
      );
      expect(() => machine.push(content('b'))).to.throw(TypeError);
      expect(() => machine.finish()).to.throw(TypeError);
    }
  });

  it('runs MCP rounds in one response', () => {
    const machine = machineOf({ route });
    const out = [...machine.start()];
    const tool = { name: 'mcp_add', input_schema: { type: 'object' } };
    out.push(...machine.listedTools('s', [tool]), ...machine.listedTools('t', [], 'unreachable'));
    const approved = machine.openMcpCall({ serverLabel: 's', name: 'x', arguments: '{}', approvalRequestId: 'mcpr_1' });
    out.push(...approved.events, ...machine.mcpAnswered(approved.itemId, { output: 'yes' }));
    for (const event of [
      content('let me'),
      ...call(0, 'mcp_add', ['{"a"', ':1}']),
      ...call(1, 'mcp_sub', ['{}']),
      finished(),
    ]) {
      out.push(...machine.push(event));
    }
    const [first, second] = machine.turn!.calls;
    expect([first!.name, first!.arguments, first!.route.kind]).to.deep.equal(['mcp_add', '{"a":1}', 'mcp']);
    const error = { type: 'mcp_tool_execution_error', content: [{ type: 'text', text: 'no' }] } as const;
    out.push(...machine.mcpAnswered(second!.itemId, { error }), ...machine.mcpAnswered(first!.itemId, { output: '3' }));
    for (const event of [...call(0, 'ask_it', ['{', '}']), finished()]) out.push(...machine.push(event));
    out.push(...machine.finish());

    const mcpCall = (deltas: number) => [
      'output_item.added',
      'mcp_call.in_progress',
      ...Array<string>(deltas).fill('mcp_call_arguments.delta'),
      'mcp_call_arguments.done',
    ];
    const listed = (end: string) => ['output_item.added', 'mcp_list_tools.in_progress', end, 'output_item.done'];
    expect(typesOf(out)).to.deep.equal([
      'created',
      'in_progress',
      ...listed('mcp_list_tools.completed'),
      ...listed('mcp_list_tools.failed'),
      ...mcpCall(1),
      'mcp_call.completed',
      'output_item.done',
      ...MESSAGE,
      ...mcpCall(2),
      ...mcpCall(1),
      'mcp_call.failed',
      'output_item.done',
      'mcp_call.completed',
      'output_item.done',
      'output_item.added',
      'output_item.done',
      'completed',
    ]);
    const response = checkLegal(out);
    checkSchema(out);
    expect(response.output.map((item: any) => [item.type, item.status, item.approval_request_id])).to.deep.equal([
      ['mcp_list_tools', undefined, undefined],
      ['mcp_list_tools', undefined, undefined],
      ['mcp_call', 'completed', 'mcpr_1'],
      ['message', 'completed', undefined],
      ['mcp_call', 'completed', null],
      ['mcp_call', 'failed', null],
      ['mcp_approval_request', undefined, undefined],
    ]);
    expect((response.output[6] as any).arguments).to.equal('{}');
  });

  it('makes a legal stream of whatever a model says', () => {
    const random = generator(42);
    const pick = (n: number): number => Math.floor(random() * n);
    for (let round = 0; round < 500; round++) {
      const machine = machineOf({ route, ...(pick(2) === 0 ? { encodeReasoning: (text) => `e:${text}` } : {}) });
      const out = [...(pick(3) === 0 ? machine.queue() : []), ...machine.start()];
      const left = pick(10) === 0;
      for (let turn = pick(3); turn >= 0; turn--) {
        if (pick(4) === 0) out.push(...machine.listedTools('s', [], pick(2) === 0 ? 'no' : undefined));
        for (const event of randomTurn(pick)) out.push(...machine.push(event));
        if (left && turn === 0) break;
        out.push(...machine.push(finished(pick(3) === 0 ? 'length' : 'stop'), pick(3)));
        for (const { route: how, itemId } of machine.turn!.calls) {
          if (how.kind !== 'mcp' || pick(5) === 0) continue;
          out.push(
            ...machine.mcpAnswered(
              itemId,
              pick(2) === 0 ? { output: 'ok' } : { error: { type: 'http_error', code: 500, message: 'x' } },
            ),
          );
        }
      }
      const end = pick(6);
      out.push(
        ...(end === 0
          ? machine.fail({ code: 'server_error', message: 'x' })
          : end === 1 || left
            ? machine.cancel()
            : machine.finish()),
      );
      checkLegal(out);
      if (round % 10 === 0) checkSchema(out);
    }
  });
});

function randomTurn(pick: (n: number) => number): ModelEvent[] {
  const events: ModelEvent[] = [started];
  const open: number[] = [];
  let calls = 0;
  for (let step = pick(12); step > 0; step--) {
    const at = pick(open.length);
    switch (pick(6)) {
      case 0:
        events.push(content(['', 'a', ' b', '👋'][pick(4)]!, pick(2) === 0 ? [token('a', -1)] : undefined));
        break;
      case 1:
        events.push(reasoning(['', 'x', 'y '][pick(3)]!));
        break;
      case 2:
        open.push(calls);
        events.push(...call(calls++, ['add', 'mcp_x', 'ask_y'][pick(3)]!, [], false));
        break;
      case 3:
      case 4:
        if (open.length > 0)
          events.push({ type: 'tool_call_arguments', index: open[at]!, delta: ['', '{', '1'][pick(3)]! });
        break;
      default:
        if (open.length > 0) events.push({ type: 'tool_call_done', index: open.splice(at, 1)[0]! });
    }
  }
  return events;
}

/** Numbers in 0..1 that are the same every time. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}
