import { expect } from 'chai';

import { ApiError } from '../ts/protocol/errors.js';
import { parseJson } from '../ts/protocol/json.js';

function parse(text: string | Uint8Array, maxDepth = 64): unknown {
  return parseJson(typeof text === 'string' ? Buffer.from(text) : text, maxDepth);
}

function messageOf(text: string | Uint8Array, maxDepth?: number): string {
  try {
    parse(text, maxDepth);
  } catch (error) {
    expect(error).to.be.instanceOf(ApiError);
    expect(error).to.include({ status: 400, type: 'invalid_request_error', code: 'invalid_json', param: null });
    return (error as ApiError).message;
  }
  throw new Error('it was parsed');
}

describe('JSON bodies', () => {
  it('are read as JSON.parse reads them', () => {
    for (const text of ['{}', ' [1, -2.5e3, "a\\u00e9\\n", true, false, null] ', '"é€😀"', '\ufeff{"a": {}}', '0']) {
      expect(parse(text)).to.deep.equal(JSON.parse(text.replace('\ufeff', '')));
    }
  });

  const broken: readonly [text: string, problem: string][] = [
    ['{"a": 1,}', 'expected a key in double quotes at position 8 (line 1, column 9)'],
    ['{"a" 1}', "expected ':' at position 5 (line 1, column 6)"],
    ['{"a": 1 "b": 2}', "expected ',' or '}' at position 8 (line 1, column 9)"],
    ['[1, 2', "expected ',' or ']' at position 5 (line 1, column 6), where the body ends"],
    ['{\n  "a": tru\n}', 'expected a JSON value at position 9 (line 2, column 8)'],
    ["{'a': 1}", 'expected a key in double quotes at position 1 (line 1, column 2)'],
    ['{"a": 01}', "expected ',' or '}' at position 7 (line 1, column 8)"],
    ['{"a": NaN}', 'expected a JSON value at position 6 (line 1, column 7)'],
    ['{} {}', 'expected the end of the body at position 3 (line 1, column 4)'],
    ['"a\nb"', 'expected a closing quote or a valid character of a string at position 2 (line 1, column 3)'],
    ['"a\\x"', 'expected a closing quote or a valid character of a string at position 2 (line 1, column 3)'],
    ['{"a": "b', 'expected a closing quote or a valid character of a string at position 8'],
  ];
  for (const [text, problem] of broken) {
    it(`say where they are broken: ${JSON.stringify(text)}`, () => {
      expect(messageOf(text)).to.include(problem);
    });
  }

  it('say so after megabytes of text as well', () => {
    const text = `{"a": "${'\\u00e9x'.repeat(4_000_000)}", }`;
    expect(messageOf(text)).to.include(`expected a key in double quotes at position ${text.length - 1} `);
  });

  it('must not be empty', () => {
    expect(messageOf('')).to.equal('the body is empty, expected a JSON object');
    expect(messageOf('  ')).to.include('expected a JSON value at position 2');
  });

  it('must be UTF-8', () => {
    expect(messageOf(Buffer.from([0x22, 0xc3, 0x28, 0x22]))).to.equal('the body is not valid UTF-8');
  });

  it('may nest as deep as the limit and no deeper', () => {
    const nested = (depth: number): string => '[{"a":'.repeat(depth / 2) + '1' + '}]'.repeat(depth / 2);
    expect(() => parse(nested(64))).not.to.throw();
    expect(messageOf(nested(66))).to.match(/^the body nests deeper than 64 levels \(position \d+\)$/);
    expect(messageOf('['.repeat(1_000_000))).to.include('deeper than 64 levels (position 64)');
  });

  it('may hold brackets and escaped quotes in strings without end', () => {
    const text = JSON.stringify({ a: `${'[{'.repeat(100)}"\\"\\\\`, b: '\\' });
    expect(parse(text, 1)).to.deep.equal(JSON.parse(text));
  });
});
