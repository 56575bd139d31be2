/** Grammars of requests within ours. That llguidance takes them is for real-guided.test.ts. */

import { expect } from 'chai';

import { FORMATS, plain } from '../ts/chat/formats/index.js';
import { type CompiledFormat, compileFormat } from '../ts/chat/output-parser.js';
import { guidedGrammar as guided } from '../ts/chat/tool-grammar.js';
import type { Grammar } from '../ts/engine/types.js';

function compiled(name: string): CompiledFormat {
  const format = [...FORMATS, plain].find((one) => one.name === name) ?? plain;
  return compileFormat(
    format,
    new Map(format.tokens.map((token, index) => [token, { id: 500 + index, special: true }])),
  );
}

const guidedGrammar = (...parameters: Parameters<typeof guided>): Grammar => guided(...parameters).constraint.grammar;

const LAYOUT = '"x-guidance":{"whitespace_flexible":false,"item_separator":", ","key_separator":": "}';

const CASES: readonly (readonly [Grammar, string])[] = [
  [{ type: 'regex', pattern: 'a/b\\/[0-9]\n' }, '/a\\/b\\/[0-9]\\n/'],
  [{ type: 'choice', choices: ['yes', 'n"o'] }, '("yes" | "n\\"o")'],
  [{ type: 'lark', grammar: 'start: x\nx: "a"' }, '%lark {\nstart: x\nx: "a"\n}'],
  [{ type: 'json_schema', schema: true }, `%json {${LAYOUT}}`],
  [{ type: 'json_schema', schema: { type: 'null' } }, `%json {"type":"null",${LAYOUT}}`],
  [{ type: 'json_object' }, '%json {"type":"object","x-guidance":{"whitespace_pattern":'],
];

describe('chat: guided grammar', () => {
  for (const [grammar, inside] of CASES) {
    it(`of ${JSON.stringify(grammar)} is that where nothing else can come, else within what can`, () => {
      expect(guidedGrammar(compiled('plain'), grammar)).to.equal(grammar);
      expect(guidedGrammar(compiled('hermes'), grammar, [], true, 'closed')).to.equal(grammar);
      const thinking = guidedGrammar(compiled('hermes'), grammar, [], true, 'open');
      expect(thinking).to.have.property('type', 'lark');
      const text = thinking.type === 'lark' ? thinking.grammar : '';
      expect(text)
        .to.match(/^start: r0 .*\/\\n\{0,2\}\/ r1\n/)
        .and.contain(`\nr1: ${inside}`);
      const beside = guidedGrammar(compiled('hermes'), grammar, [{ name: 'now' }], true, 'closed');
      expect(JSON.stringify(beside)).to.match(/^\{"type":"lark","grammar":"start: \(r0 \| /);
      const harmony = guidedGrammar(compiled('harmony'), grammar);
      expect(JSON.stringify(harmony)).to.contain('final');
    });
  }
});
