/** What data files cannot say of the output parser: when things come, and what comes along. */

import { expect } from 'chai';

import { FORMATS, pickFormat, plain } from '../ts/chat/formats/index.js';
import type { ChatFormat } from '../ts/chat/formats/index.js';
import { compileFormat, OutputParser, reasoningState } from '../ts/chat/output-parser.js';
import { fits, typesOf } from '../ts/chat/output/schema.js';
import type { ToolDefinition } from '../ts/chat/types.js';
import type { TokenInfo } from '../ts/engine/types.js';

const WEATHER: ToolDefinition = {
  name: 'get_weather',
  parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
};

function named(name: string): ChatFormat {
  return FORMATS.find((format) => format.name === name) ?? plain;
}

function parserOf(format: ChatFormat, options: Partial<ConstructorParameters<typeof OutputParser>[0]> = {}) {
  return new OutputParser({
    format: compileFormat(format, new Map()),
    tools: [WEATHER],
    newId: () => 'call_1',
    ...options,
  });
}

/** Events of each delta by itself, then those of the end. */
function play(parser: OutputParser, deltas: readonly string[]): unknown[][] {
  return [...deltas.map((text) => parser.push([{ text }])), parser.finish()];
}

function tokensOf(...texts: readonly string[]): TokenInfo[] {
  return texts.map((text, index) => ({ id: 100 + index, text, bytes: [...Buffer.from(text)], logprob: -1 }));
}

describe('chat: output parser', () => {
  it('says the arguments while they are written', () => {
    const deltas = [
      '<tool',
      '_call>\n{"name": "get_wea',
      'ther", "arguments',
      '": {"ci',
      'ty": "Pa',
      'ris"',
      '}}\n</tool',
      '_call>',
    ];
    const argument = (delta: string) => ({ type: 'tool_call_arguments', index: 0, delta });
    expect(play(parserOf(named('hermes')), deltas)).to.deep.equal([
      [],
      [],
      [],
      [{ type: 'tool_call', index: 0, id: 'call_1', name: 'get_weather' }, argument('{"ci')],
      [argument('ty": "Pa')],
      [argument('ris"')],
      [argument('}'), { type: 'tool_call_done', index: 0 }],
      [],
      [],
    ]);
  });

  it('says a string argument of a tag while it is written', () => {
    const deltas = [
      '<tool_call>\n<function=get_weather>\n<parameter=city>\nPa',
      'ri',
      's\n',
      '</parameter>\n</function>',
    ];
    const said = play(parserOf(named('qwen-xml')), deltas).map((events) =>
      events.map((event) => (event as { delta?: string }).delta ?? '').join(''),
    );
    expect(said).to.deep.equal(['{"city": "Pa', 'ri', 's', '"}', '']);
  });

  it('holds back no more than what may become syntax', () => {
    const content = (text: string) => [{ type: 'content', text }];
    const deltas = ['Some', ' <b>', 'bold</b> and <to', 'ast>', ' \n', 'more ', '<tool_cal'];
    expect(play(parserOf(named('hermes')), deltas)).to.deep.equal([
      content('Some'),
      content(' <b>'),
      content('bold</b> and'),
      content(' <toast>'),
      [],
      content(' \nmore'),
      [],
      content(' <tool_cal'),
    ]);
  });

  it('lets a JSON answer go as soon as it cannot be a call', () => {
    const deltas = ['{"', 'n', 'ame": "get', '_time"', ', "x": 1}'];
    expect(play(parserOf(plain), deltas).map((events) => events.length)).to.deep.equal([0, 0, 0, 1, 1, 0]);
    expect(play(parserOf(plain), ['{"ans', 'wer'])).to.deep.equal([
      [{ type: 'content', text: '{"ans' }],
      [{ type: 'content', text: 'wer' }],
      [],
    ]);
  });

  it('passes text on untouched where nothing is offered and nothing is known', () => {
    const deltas = ['  \n', 'a ', '\n\n'];
    expect(play(parserOf(plain, { tools: [] }), deltas)).to.deep.equal([
      ...deltas.map((text) => [{ type: 'content', text }]),
      [],
    ]);
  });

  it('keeps log-probabilities with their text, and drops those of syntax', () => {
    const texts = ['<think>', '\n', 'Hm', '</think>', '\n\n', 'Yes', ' ', 'there', '\n', '<tool_call>', '{"name": '];
    const tokens = tokensOf(...texts);
    const parser = parserOf(named('hermes'));
    const events = texts.flatMap((text, index) => parser.push([{ text }], [tokens[index]!], 1));
    expect(events).to.deep.equal([
      { type: 'reasoning', text: 'Hm', tokens: [tokens[2]] },
      { type: 'content', text: 'Yes', tokens: [tokens[5]] },
      { type: 'content', text: ' there', tokens: [tokens[6], tokens[7]] },
    ]);
    // <think> to </think>, whose token closes it.
    expect(parser.reasoningTokens).to.equal(4);
  });

  it('finds the text of tokens that come together, marks among them', () => {
    const format = compileFormat(named('gemma4'), new Map([['<channel|>', { id: 9, special: true }]]));
    const parser = new OutputParser({ format, tools: [] });
    const tokens = [...tokensOf('a', 'b'), { id: 9, text: '<channel|>', bytes: [] }, ...tokensOf('c', 'd')];
    const pieces = [{ text: 'ab' }, { text: '<channel|>', special: 9 }, { text: 'cd' }];
    expect([...parser.push(pieces, tokens), ...parser.finish()]).to.deep.equal([
      { type: 'content', text: 'abcd', tokens: [...tokens.slice(0, 2), ...tokens.slice(3)] },
    ]);
  });

  it('counts reasoning that the prompt began', () => {
    const parser = parserOf(named('hermes'), { prompt: '<think>\n' });
    parser.push([{ text: 'So' }], [], 2);
    parser.push([{ text: '</think>' }], [], 1);
    parser.push([{ text: 'Yes' }], [], 4);
    expect(parser.reasoningTokens).to.equal(3);
  });

  it('knows what the prompt did about the reasoning', () => {
    const format = compileFormat(named('hermes'), new Map());
    const state = (prompt: string, continues = false) => reasoningState(format, prompt, continues);
    expect(state('<|im_start|>assistant\n<think>\n')).to.equal('open');
    expect(state('<|im_start|>assistant\n<think>\n\n</think>\n\n')).to.equal('closed');
    expect(state('What is <think>?<|im_end|>\n<|im_start|>assistant\n')).to.equal('possible');
    expect(state('<|im_start|>assistant\n<think>\nSo', true)).to.equal('open');
    expect(state('<|im_start|>assistant\nYes, ', true)).to.equal('closed');
  });

  it('survives any text: no throw, and whole calls are JSON', () => {
    const parts = [
      '<tool_call>',
      '</tool_call>',
      '{',
      '}',
      '"name"',
      ': ',
      '"get_weather"',
      '"arguments"',
      ',',
      '[',
      ']',
      '\\',
      "'",
      'f(',
      ')',
      '=',
      '<function=f>',
      '<parameter=a>',
      '</parameter>',
      '<arg_key>',
      'call:x',
      '```json',
      '\n',
      '<think>',
      '</think>',
      '1e',
      'null',
      '😀',
    ];
    let state = 7;
    const next = (n: number): number => (state = (state * 1103515245 + 12345) & 0x7fffffff) % n;
    for (let round = 0; round < 400; round++) {
      for (const format of FORMATS) {
        const parser = parserOf(format, { newId: () => `call_${round}` });
        const events = [];
        for (let i = 0; i < 12; i++) events.push(...parser.push([{ text: parts[next(parts.length)]! }]));
        events.push(...parser.finish());
        const json = new Map<number, string>();
        for (const event of events) {
          if (event.type === 'tool_call') json.set(event.index, '');
          if (event.type === 'tool_call_arguments') json.set(event.index, json.get(event.index)! + event.delta);
          if (event.type === 'tool_call_done') JSON.parse(json.get(event.index)!);
        }
      }
    }
  });

  it('reads a long answer in time that grows with its length', () => {
    const parser = parserOf(named('hermes'));
    const start = performance.now();
    for (let i = 0; i < 20_000; i++) parser.push([{ text: ' word <to' }], [], 1);
    parser.push([{ text: '<tool_call>{"name": "get_weather", "arguments": {"city": "' }]);
    for (let i = 0; i < 20_000; i++) parser.push([{ text: 'abc ' }], [], 1);
    parser.finish();
    expect(performance.now() - start).to.be.below(5000);
  });
});

describe('chat: arguments and schemas', () => {
  const schema = {
    type: 'object',
    properties: {
      a: { $ref: '#/$defs/a' },
      n: { type: ['integer', 'null'] },
      l: { type: 'array', items: { type: 'string', maxLength: 2 }, maxItems: 2 },
      b: { type: 'number', minimum: 0, exclusiveMaximum: 1 },
    },
    required: ['a'],
    additionalProperties: false,
    $defs: { a: { enum: ['x', 'y'] } },
  };
  const cases: readonly [unknown, boolean][] = [
    [{ a: 'x' }, true],
    [{ a: 'z' }, false],
    [{ a: 'x', n: null, l: ['s'] }, true],
    [{ a: 'x', n: 1.5 }, false],
    [{ a: 'x', l: [1] }, false],
    [{ a: 'x', c: 1 }, false],
    [{ a: 'x', b: 0 }, true],
    [{ a: 'x', b: -1 }, false],
    [{ a: 'x', b: 1 }, false],
    [{ a: 'x', l: ['😀😀', ''] }, true],
    [{ a: 'x', l: ['abc'] }, false],
    [{ a: 'x', l: ['a', 'b', 'c'] }, false],
    [{ n: 1 }, false],
    [[], false],
  ];
  for (const [value, expected] of cases) {
    it(`${JSON.stringify(value)} ${expected ? 'fits' : 'does not fit'}`, () => {
      expect(fits(value, schema)).to.equal(expected);
    });
  }

  it('a schema that refers to itself ends', () => {
    expect(fits({}, { $ref: '#' })).to.equal(true);
    expect(typesOf({ $ref: '#' }, { $ref: '#' })).to.equal(undefined);
  });

  it('one whose parts refer to each other many times over ends soon', () => {
    const twice = (n: number) => ({ anyOf: [{ $ref: `#/$defs/d${n}` }, { $ref: `#/$defs/d${n}` }] });
    const $defs = Object.fromEntries(Array.from({ length: 30 }, (_, n) => [`d${n}`, twice(n + 1)]));
    const root = { ...twice(0), $defs: { ...$defs, d30: { type: 'string' } } };
    const start = performance.now();
    fits(1, root);
    typesOf(root, root);
    expect(performance.now() - start).to.be.below(1000);
  });
});

describe('chat: choice of a format', () => {
  it('falls back to the family, then to plain text', () => {
    expect(pickFormat(undefined, 'gpt_oss').name).to.equal('harmony');
    expect(pickFormat('{{ messages }}', 'llama').name).to.equal('plain');
  });

  it('takes no reasoning for granted where the template knows none', () => {
    expect(pickFormat('<tool_call></tool_call>', 'qwen2').reasoning).to.equal(undefined);
    expect(pickFormat('<tool_call></tool_call></think>', 'qwen3').reasoning?.open).to.equal('<think>');
  });
});
