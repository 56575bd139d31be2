/** Grammars in llguidance's dialect of Lark, put together from rules. */

import type { CompiledFormat } from '../output/marks.js';
import { isMark } from '../output/marks.js';

/**
 * JSON as Python's `json.dumps` spaces it, which is how templates show calls, and no other way: what is fixed is forced
 * with the tokens that a model would choose itself, and a model cannot go on with whitespace for ever.
 */
const LAYOUT = { whitespace_flexible: false, item_separator: ', ', key_separator: ': ' };

/** JSON that the model may lay out: one space, or a new line and its indentation. */
const FREE_LAYOUT = { whitespace_pattern: '[ ]|\\n[ \\t]{0,32}' };

export interface JsonOptions {
  /** What is not understood of the schema is left out; of several that fit, `oneOf` takes any. */
  readonly lenient?: boolean;
  readonly layout?: 'one line' | 'free';
}

/** Rules that are being collected. Expressions are Lark; rule names are made up and unique. */
export class Rules {
  private readonly lines: { readonly text: string; readonly owner: string | undefined }[] = [];
  private readonly named = new Map<string, string>();
  private owner: string | undefined;

  constructor(private readonly format: CompiledFormat) {}

  /** A rule for an expression; equal ones are one rule. Returns its name. */
  rule(expression: string, attributes = ''): string {
    const key = `${attributes}: ${expression}`;
    const known = this.named.get(key);
    if (known !== undefined) return known;
    const name = `r${this.named.size}`;
    this.named.set(key, name);
    this.push(`${name}${key}`);
    return name;
  }

  /** A rule that may name itself. */
  recursive(make: (name: string) => string): string {
    const name = `r${this.named.size}`;
    // The place in the order is taken before the body asks for names.
    this.named.set(`${name}:`, name);
    this.push(`${name}: ${make(name)}`);
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

  /** @param schema an object or a boolean; what the client says to llguidance in it does not count */
  json(schema: unknown, { lenient = false, layout = 'one line' }: JsonOptions = {}): string {
    const guidance = {
      ...(layout === 'free' ? FREE_LAYOUT : LAYOUT),
      ...(lenient ? { coerce_one_of: true, lenient } : {}),
    };
    const guided = schema === false ? schema : { ...(schema as object), 'x-guidance': guidance };
    return this.rule(`%json ${JSON.stringify(guided)}`);
  }

  /** Rules that are made meanwhile are this tool's: if one of them cannot be used, its schema cannot. */
  of<T>(tool: string, make: () => T): T {
    const before = this.owner;
    this.owner = tool;
    try {
      return make();
    } finally {
      this.owner = before;
    }
  }

  /** The whole, beginning with this expression. */
  grammar(start: string): string {
    return [`start: ${start}`, ...this.lines.map(({ text }) => text)].join('\n');
  }

  /** By line of the grammar, from 0: the tool it is of. */
  get owners(): (string | undefined)[] {
    return [undefined, ...this.lines.map(({ owner }) => owner)];
  }

  private push(text: string): void {
    this.lines.push({ text, owner: this.owner });
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
