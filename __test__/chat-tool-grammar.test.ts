/** Grammars for tools and response formats. That llguidance takes them, and models fill them, is for the engine's tests. */

import { expect } from 'chai';

import { closedSchema } from '../ts/chat/grammar/closed.js';
import { FORMATS, plain } from '../ts/chat/formats/index.js';
import { type CompiledFormat, compileFormat } from '../ts/chat/output-parser.js';
import { responseGrammar, toolGrammar, triggeredToolGrammar } from '../ts/chat/tool-grammar.js';
import type { ToolDefinition } from '../ts/chat/types.js';

const ADD: ToolDefinition = {
  name: 'add',
  parameters: { type: 'object', properties: { a: { type: 'number' }, note: { type: 'string' } }, required: ['a'] },
};
const NOW: ToolDefinition = { name: 'now', strict: true };

/** As every vocabulary has it that knows these tokens: as special ones, or as ordinary ones. */
function compiled(name: string, special: boolean): CompiledFormat {
  const format = [...FORMATS, plain].find((one) => one.name === name) ?? plain;
  return compileFormat(format, new Map(format.tokens.map((token, index) => [token, { id: 500 + index, special }])));
}

function source(held: ReturnType<typeof responseGrammar>): string {
  const grammar = held?.constraint.grammar;
  return grammar?.type === 'lark' ? grammar.grammar : JSON.stringify(grammar);
}

const guidance = (lenient: boolean): string =>
  `"x-guidance":{"whitespace_flexible":false,"item_separator":", ","key_separator":": "${lenient ? ',"coerce_one_of":true,"lenient":true' : ''}}`;
const ADD_JSON = `%json {"type":"object","properties":{"a":{"type":"number"},"note":{"type":"string"}},"required":["a"],"additionalProperties":false,${guidance(true)}}`;
const NOW_JSON = `%json {"type":"object","properties":{},"additionalProperties":false,${guidance(false)}}`;

describe('chat: tool grammar', () => {
  it('writes calls as the template does, one after the other', () => {
    expect(
      source(toolGrammar(compiled('hermes', false), [ADD, NOW], 'required', true, 'closed')).split('\n'),
    ).to.deep.equal([
      'start: "<tool_call>" "\\n" r4 "\\n" "</tool_call>" ("\\n<tool_call>" "\\n" r4 "\\n" "</tool_call>")*',
      `r0: ${ADD_JSON}`,
      'r1: "{\\"name\\": \\"add\\", \\"arguments\\": " r0 "}"',
      `r2: ${NOW_JSON}`,
      'r3: "{\\"name\\": \\"now\\", \\"arguments\\": " r2 "}"',
      'r4: (r1 | r3)',
    ]);
  });

  it('names special tokens by their ids', () => {
    const [start] = source(toolGrammar(compiled('hermes', true), [NOW], 'required', false, 'closed')).split('\n');
    expect(start).to.equal('start: <[502]> "\\n" r2 "\\n" <[503]>');
  });

  it('takes one call of the named tool', () => {
    const grammar = source(toolGrammar(compiled('hermes', false), [ADD, NOW], { name: 'now' }, true, 'closed'));
    expect(grammar).to.contain('\\"now\\"').and.not.contain('\\"add\\"').and.not.contain(')*');
  });

  it('leaves room for reasoning where there may be some', () => {
    const start = (state: 'open' | 'closed' | 'possible'): string =>
      source(toolGrammar(compiled('hermes', false), [NOW], 'required', false, state)).split('\n')[0] ?? '';
    expect(start('open')).to.match(/^start: r3 \/\\n\{0,2\}\/ "<tool_call>"/);
    expect(start('possible')).to.match(/^start: \("<think>" r3 \/\\n\{0,2\}\/\)\? "<tool_call>"/);
    expect(start('closed')).to.match(/^start: "<tool_call>"/);
    const lines = source(toolGrammar(compiled('hermes', false), [NOW], 'required', false, 'open')).split('\n');
    expect(lines.at(-1)).to.equal('r3[lazy]: /(?s:.*)<\\/think>/');
  });

  it('writes a tag for each argument, the required ones always', () => {
    expect(
      source(toolGrammar(compiled('qwen-xml', false), [ADD], 'required', false, 'closed')).split('\n'),
    ).to.deep.equal([
      'start: "<tool_call>" "\\n" r5 "\\n" "</tool_call>"',
      `r0: %json {"type":"number",${guidance(true)}}`,
      'r1: "<parameter=a>\\n" r0 "\\n</parameter>" "\\n"',
      'r2[lazy]: /(?s:.*)\\n<\\/parameter>/',
      'r3: "<parameter=note>\\n" r2 "\\n"',
      'r4: "<function=add>\\n" r1 r3? "</function>"',
      'r5: r4',
    ]);
  });

  it('writes Python and bare keys by the schema', () => {
    const grammar = (name: string): string =>
      source(toolGrammar(compiled(name, true), [ADD], 'required', false, 'closed'));
    expect(grammar('lfm2')).to.contain('r2: "add(" r0 (", " r1)? ")"');
    expect(grammar('gemma4')).to.contain('"call:add{" r1 ("," r2)? "}"').and.contain('"note:" <[504]> r0 <[504]>');
  });

  it('writes a schema that refers to itself as rules that do', () => {
    const names = Array.from({ length: 20 }, (_, n) => `next${n}`);
    const properties = Object.fromEntries(names.map((name) => [name, { $ref: '#/$defs/node' }]));
    const node = { type: 'object', properties, required: [] };
    const tool = { name: 'walk', parameters: { ...node, $defs: { node } } };
    for (const name of ['gemma4', 'lfm2']) {
      const grammar = source(toolGrammar(compiled(name, true), [tool], 'required', false, 'closed'));
      expect(grammar.length, name).to.be.below(50_000);
    }
  });

  it('knows which tool a line is of', () => {
    const { constraint, owners } = toolGrammar(compiled('hermes', false), [ADD, NOW], 'required', true, 'closed');
    const lines = constraint.grammar.type === 'lark' ? constraint.grammar.grammar.split('\n') : [];
    expect(owners).to.have.length(lines.length);
    expect(owners).to.deep.equal([undefined, 'add', 'add', 'now', 'now', undefined]);
  });

  it('takes arguments for an object whatever the schema says', () => {
    const tools = [{ name: 'f', parameters: {} }];
    const grammar = source(toolGrammar(compiled('hermes', false), tools, 'required', true, 'closed'));
    expect(grammar).to.contain('%json {"type":"object"');
  });

  it('does not offer what a schema does not list, where nothing speaks against it', () => {
    const node = { type: 'object', properties: { a: { type: 'string' } } };
    const closed = { ...node, additionalProperties: false };
    expect(closedSchema(node)).to.deep.equal(closed);
    expect(closedSchema({ type: 'object' })).to.deep.equal({ type: 'object' });
    expect(closedSchema({ ...node, additionalProperties: true })).to.deep.equal({
      ...node,
      additionalProperties: true,
    });
    const outer = {
      properties: { x: node, y: { $ref: '#/$defs/n' }, z: { items: { anyOf: [node, { type: 'null' }] } } },
    };
    expect(closedSchema({ ...outer, $defs: { n: node } })).to.deep.equal({
      properties: { x: closed, y: { $ref: '#/$defs/n' }, z: { items: { anyOf: [closed, { type: 'null' }] } } },
      $defs: { n: closed },
      additionalProperties: false,
    });
    for (const mixed of [
      { ...node, allOf: [{ properties: { b: {} } }] },
      { ...node, $ref: '#/$defs/n' },
      { properties: { x: { ...node, patternProperties: { '^b': {} } } } },
    ]) {
      expect(closedSchema(mixed)).to.equal(mixed);
    }
  });

  it('switches on behind the marker under auto', () => {
    const trigger = (name: string, special: boolean) =>
      triggeredToolGrammar(compiled(name, special), [NOW], true)?.constraint.trigger;
    // A token that is not special can be written in other tokens too.
    expect(trigger('hermes', false)).to.deep.equal({ tokenIds: [502], texts: ['<tool_call>'] });
    expect(trigger('hermes', true)).to.deep.equal({ tokenIds: [502] });
    expect(trigger('mistral-list', true)).to.deep.equal({ tokenIds: [500] });
    expect(trigger('harmony', true)).to.deep.equal({ texts: ['to=functions'] });
    expect(trigger('plain', true)).to.equal(undefined);
    const grammar = triggeredToolGrammar(compiled('hermes', false), [NOW], false);
    expect(source(grammar).split('\n')[0]).to.equal('start: "\\n" r2 "\\n" "</tool_call>"');
  });

  it('knows the response formats', () => {
    const schema = { type: 'object', properties: { a: { type: 'integer' } } };
    const strict = { type: 'json_schema', name: 'n', schema, strict: true } as const;
    expect(responseGrammar(compiled('plain', true), { type: 'text' })).to.equal(undefined);
    const grammar = (format: Parameters<typeof responseGrammar>[1]) =>
      responseGrammar(compiled('plain', true), format)?.constraint.grammar;
    expect(grammar({ type: 'json_object' })).to.deep.equal({ type: 'json_object' });
    expect(grammar(strict)).to.deep.equal({ type: 'json_schema', schema });
    // The engine has its own word for a schema, which is never lenient.
    expect(source(responseGrammar(compiled('plain', true), { ...strict, strict: false })).split('\n')).to.deep.equal([
      'start: r0',
      `r0: %json {"type":"object","properties":{"a":{"type":"integer"}},${guidance(true)}}`,
    ]);
    const thinking = source(responseGrammar(compiled('hermes', false), strict, [], true, 'open'));
    expect(thinking.split('\n')[0]).to.equal('start: r0 /\\n{0,2}/ r1');
    const harmony = source(responseGrammar(compiled('harmony', true), strict));
    expect(harmony).to.match(/^start: \(<\[501\]> "analysis" .*\)\? <\[501\]> "final" <\[503\]> r\d+$/m);
  });

  it('offers the calls as well as the answer where tools may be called', () => {
    const grammar = source(responseGrammar(compiled('hermes', false), { type: 'json_object' }, [NOW], false, 'closed'));
    expect(grammar.split('\n')[0]).to.equal('start: (r0 | "<tool_call>" "\\n" r3 "\\n" "</tool_call>")');
  });
});
