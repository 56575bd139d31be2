/** Grammars in llguidance's dialect of Lark, put together from rules. */

import type { CompiledFormat } from '../output/marks.js';
import { isMark } from '../output/marks.js';

/** Rules that are being collected. Expressions are Lark; rule names are made up and unique. */
export class Rules {
  private readonly lines: string[] = [];
  private readonly named = new Map<string, string>();

  constructor(private readonly format: CompiledFormat) {}

  /** A rule for an expression; equal ones are one rule. Returns its name. */
  rule(expression: string, attributes = ''): string {
    const key = `${attributes}: ${expression}`;
    const known = this.named.get(key);
    if (known !== undefined) return known;
    const name = `r${this.named.size}`;
    this.named.set(key, name);
    this.lines.push(`${name}${key}`);
    return name;
  }

  /** A rule that may name itself. */
  recursive(make: (name: string) => string): string {
    const name = `r${this.named.size}`;
    // The place in the order is taken before the body asks for names.
    this.named.set(`${name}:`, name);
    this.lines.push(`${name}: ${make(name)}`);
    return name;
  }

  /** Text of the syntax, its special tokens by their ids. */
  text(syntax: string): string {
    const parts = syntax.match(/[\ufdd0-\ufdef]|[^\ufdd0-\ufdef]+/g) ?? [];
    return parts.map((part) => (isMark(part) ? this.token(part) : JSON.stringify(part))).join(' ');
  }

  /** Any text up to and with this, which it does not hold. */
  until(end: string): string {
    const [text = ''] = /^[^\ufdd0-\ufdef]*/.exec(end) ?? [];
    if (text === '') return joined(this.rule('/(?s:.*)/'), this.text(end));
    const lazy = this.rule(`/(?s:.*)${escapeRegex(text)}/`, '[lazy]');
    return joined(lazy, this.text(end.slice(text.length)));
  }

  json(schema: unknown): string {
    return this.rule(`%json ${JSON.stringify(schema)}`);
  }

  /** The whole, beginning with this expression. */
  grammar(start: string): string {
    return [`start: ${start}`, ...this.lines].join('\n');
  }

  private token(mark: string): string {
    for (const [token, own] of this.format.marks) {
      const id = own === mark ? this.format.ids.get(token) : undefined;
      if (id !== undefined) return `<[${id}]>`;
    }
    throw new Error('a mark of another format');
  }
}

/** One after the other; empty ones fall away. */
export function joined(...expressions: readonly string[]): string {
  return expressions.filter((expression) => expression !== '').join(' ');
}

export function anyOf(expressions: readonly string[]): string {
  return expressions.length === 1 ? (expressions[0] ?? '') : `(${expressions.join(' | ')})`;
}

/** Members in this order, the optional ones or not, with a separator between any two that are there. */
export function members(
  rules: readonly { readonly expression: string; readonly required: boolean }[],
  separator: string,
): string {
  const after = (index: number): string =>
    rules
      .slice(index)
      .map(({ expression, required }) => {
        const next = joined(separator, expression);
        return required ? next : `(${next})?`;
      })
      .join(' ');
  const firsts: string[] = [];
  for (const [index, { expression, required }] of rules.entries()) {
    firsts.push(joined(expression, after(index + 1)));
    if (required) return anyOf(firsts);
  }
  return firsts.length === 0 ? '' : `(${firsts.join(' | ')})?`;
}

function escapeRegex(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&').replaceAll('\n', '\\n');
}
