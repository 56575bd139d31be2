/** Template source → syntax tree, by the lexer and parser of @huggingface/jinja. */

import * as jinja from '@huggingface/jinja';
import type { Program } from './ast.js';
import { TemplateSyntaxError } from './errors.js';

interface Token {
  readonly type: string;
  readonly value: string;
}

/** The package's declarations point at files without extensions, which NodeNext cannot follow; so its two functions are typed here. */
const library = jinja as unknown as {
  readonly tokenize: (source: string, options: { trim_blocks: boolean; lstrip_blocks: boolean }) => Token[];
  readonly parse: (tokens: readonly Token[]) => Program;
};

/** Prefix of the filters that `withTestArguments` makes of tests; no template can spell it. */
export const TEST_FILTER = 'is ';

/** Tests that take an argument; the library's grammar knows only bare names after `is`. */
const TESTS_WITH_ARGUMENT: ReadonlySet<string> = new Set([
  'divisibleby',
  'eq',
  'equalto',
  'ne',
  'lt',
  'lessthan',
  'le',
  'gt',
  'greaterthan',
  'ge',
  'sameas',
  'in',
]);

/**
 * Parses with transformers' settings (trim_blocks, lstrip_blocks, `generation` tags dropped, loop controls).
 * Throws TemplateSyntaxError.
 */
export function parseTemplate(source: string): Program {
  try {
    const tokens = library.tokenize(source, { trim_blocks: true, lstrip_blocks: true });
    return library.parse(withTestArguments(tokens));
  } catch (error) {
    // The parser reads past the end of an unclosed block and then fails with a TypeError of its own.
    const reason = error instanceof TypeError ? 'unexpected end of template' : (error as Error).message;
    throw new TemplateSyntaxError(reason, { cause: error });
  }
}

/** `x is divisibleby(3)` and `x is not equalto 'a'` become `x | <test>(…)`: filters may have arguments, and bind alike. */
function withTestArguments(tokens: readonly Token[]): Token[] {
  const out: Token[] = [];
  for (let at = 0; ; at += 1) {
    const token = tokens[at];
    if (!token) return out;
    const negated = isName(tokens[at + 1], 'not');
    const name = tokens[at + (negated ? 2 : 1)];
    const argument = tokens[at + (negated ? 3 : 2)];
    if (!isName(token, 'is') || name?.type !== 'Identifier' || !TESTS_WITH_ARGUMENT.has(name.value) || !argument) {
      out.push(token);
      continue;
    }
    out.push(punctuation('Pipe', '|'));
    out.push({ type: 'Identifier', value: `${TEST_FILTER}${negated ? 'not ' : ''}${name.value}` });
    at += negated ? 2 : 1;
    if (argument.type === 'OpenParen') continue;
    // Without parentheses the argument is taken to be one literal or name.
    out.push(punctuation('OpenParen', '('), argument, punctuation('CloseParen', ')'));
    at += 1;
  }
}

function isName(token: Token | undefined, value: string): boolean {
  return token?.type === 'Identifier' && token.value === value;
}

function punctuation(type: string, value: string): Token {
  return { type, value };
}
