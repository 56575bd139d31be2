/** Values as models write them (JSON, Python literals, bare keys) → JSON, while they are being written. */

import { isMark, withoutMarks } from './marks.js';
import { Reader, type Step } from './reader.js';

export type Write = (json: string) => void;

export interface Dialect {
  /** Raw strings between two of these, without escapes. */
  readonly quote?: string;
  /** Keys, and strings that look like nothing else, may stand without quotes. */
  readonly bare?: boolean;
}

/** Deeper values are not what tools take; the limit keeps a model that loops from overflowing the stack. */
const MAX_DEPTH = 64;
const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;
const LETTER = /[\p{L}\p{N}]/u;
const WORDS: Readonly<Record<string, string>> = {
  true: 'true',
  false: 'false',
  null: 'null',
  True: 'true',
  False: 'false',
  None: 'null',
};

/** Reads one value and writes it as JSON. False if it is none, or is cut off: what was written then is no JSON. */
export function* copyValue(reader: Reader, write: Write, dialect: Dialect = {}, depth = 0): Step<boolean> {
  if (depth > MAX_DEPTH) return false;
  const first = yield* reader.peek();
  if (first === '{') return yield* copyObject(reader, write, dialect, depth);
  if (first === '[') return yield* copyArray(reader, write, dialect, depth);
  if (yield* opensString(reader, dialect)) return yield* copyString(reader, write, dialect);
  const json = toScalar((yield* bareWord(reader, dialect)).trim(), dialect);
  if (json === undefined) return false;
  write(json);
  return true;
}

/** A string as its text; undefined if there is none or it is cut off. */
export function* readString(reader: Reader, dialect: Dialect = {}): Step<string | undefined> {
  if (!(yield* opensString(reader, dialect))) return undefined;
  let json = '';
  const whole = yield* copyString(reader, (part) => (json += part), dialect);
  return whole ? (JSON.parse(json) as string) : undefined;
}

/** A whole text as JSON; undefined if it is no value. */
export function toJson(text: string): string | undefined {
  const reader = new Reader();
  reader.feed(text.trim());
  reader.end();
  let json = '';
  // All the text is there: the first step is the last.
  const { value } = copyValue(reader, (part) => (json += part)).next();
  return value === true && reader.peek().next().value === '' ? json : undefined;
}

/** Text as the inside of a JSON string; special tokens are not text. */
export function escaped(text: string): string {
  return JSON.stringify(withoutMarks(text)).slice(1, -1);
}

function* copyObject(reader: Reader, write: Write, dialect: Dialect, depth: number): Step<boolean> {
  reader.advance();
  write('{');
  // Written before the next member, so that a comma too many does not come out.
  let separator = '';
  for (;;) {
    const space = yield* reader.spaces();
    const next = yield* reader.peek();
    if (next === '}') {
      reader.advance();
      write(`${space}}`);
      return true;
    }
    if (next === ',' && separator === '') {
      reader.advance();
      separator = ',';
      continue;
    }
    write(separator + space);
    if (!(yield* copyKey(reader, write, dialect))) return false;
    const before = yield* reader.spaces();
    if (!(yield* reader.literal(':'))) return false;
    write(`${before}:${yield* reader.spaces()}`);
    if (!(yield* copyValue(reader, write, dialect, depth + 1))) return false;
    separator = '';
    const after = yield* reader.spaces();
    write(after);
    const follows = yield* reader.peek();
    if (follows !== ',' && follows !== '}') return false;
  }
}

function* copyKey(reader: Reader, write: Write, dialect: Dialect): Step<boolean> {
  if (yield* opensString(reader, dialect)) return yield* copyString(reader, write, dialect);
  if (dialect.bare !== true) return false;
  const key = yield* reader.all(/[^\s:,{}[\]"'\ufdd0-\ufdef]/);
  write(JSON.stringify(key));
  return key !== '';
}

function* copyArray(reader: Reader, write: Write, dialect: Dialect, depth: number): Step<boolean> {
  reader.advance();
  write('[');
  let separator = '';
  for (;;) {
    const space = yield* reader.spaces();
    const next = yield* reader.peek();
    if (next === ']') {
      reader.advance();
      write(`${space}]`);
      return true;
    }
    write(separator + space);
    if (!(yield* copyValue(reader, write, dialect, depth + 1))) return false;
    write(yield* reader.spaces());
    const follows = yield* reader.peek();
    if (follows === ',') reader.advance();
    else if (follows !== ']') return false;
    separator = ',';
  }
}

function* opensString(reader: Reader, { quote }: Dialect): Step<boolean> {
  const first = yield* reader.peek();
  if (first === '"' || first === "'") return true;
  return quote !== undefined && (yield* reader.ahead(quote));
}

function* copyString(reader: Reader, write: Write, { quote }: Dialect): Step<boolean> {
  write('"');
  if (quote !== undefined && (yield* reader.literal(quote))) {
    const end = yield* reader.until([quote], (text) => {
      write(escaped(text));
    });
    if (end === undefined) return false;
    reader.advance(quote.length);
  } else {
    const delimiter = yield* reader.peek();
    reader.advance();
    for (;;) {
      const end = yield* reader.until([delimiter, '\\'], (text) => {
        // Line breaks and the like, which JSON wants escaped, come raw from some models.
        write(escaped(text));
      });
      if (end === undefined) return false;
      reader.advance();
      if (end === delimiter && delimiter === "'" && LETTER.test(yield* reader.peek())) {
        // LFM2's template shows text in such quotes as it is: 'it's' is no string and something behind it.
        write("'");
        continue;
      }
      if (end === delimiter) break;
      const escape = yield* readEscape(reader);
      if (escape === undefined) return false;
      write(escape);
    }
  }
  write('"');
  return true;
}

/** After a backslash: the escape in JSON's form. */
function* readEscape(reader: Reader): Step<string | undefined> {
  const letter = yield* reader.peek();
  if (letter === '') return undefined;
  reader.advance();
  if ('"\\/bfnrt'.includes(letter)) return `\\${letter}`;
  if (letter === "'") return "'";
  if (letter === '\n') return '';
  // \\x and \\U are Python's.
  const digits = letter === 'u' ? 4 : letter === 'x' ? 2 : letter === 'U' ? 8 : 0;
  if (digits === 0) return escaped(`\\${letter}`);
  const code = yield* reader.all(/[0-9a-fA-F]/, digits);
  if (code.length === digits && digits <= 4) return `\\u${code.padStart(4, '0')}`;
  if (code.length === digits) {
    const point = Number.parseInt(code, 16);
    return escaped(point <= 0x10ffff ? String.fromCodePoint(point) : '\ufffd');
  }
  return (yield* reader.peek()) === '' ? undefined : escaped(`\\${letter}${code}`);
}

/** Up to what ends a value. With bare strings that may hold spaces. */
function* bareWord(reader: Reader, dialect: Dialect): Step<string> {
  return yield* reader.all(dialect.bare === true ? /[^,{}[\]\n\ufdd0-\ufdef]/ : /[^\s,{}[\]():"'\ufdd0-\ufdef]/);
}

function toScalar(word: string, dialect: Dialect): string | undefined {
  const known = Object.hasOwn(WORDS, word) ? WORDS[word] : undefined;
  if (known !== undefined) return known;
  if (NUMBER.test(word)) return word;
  // +5, .5, 5., 1_000: numbers elsewhere.
  const number = /^[+-]?[\d._]+([eE][+-]?\d+)?$/.test(word) ? Number(word.replaceAll('_', '')) : Number.NaN;
  if (Number.isFinite(number)) return JSON.stringify(number);
  return dialect.bare === true && word !== '' && !isMark(word) ? JSON.stringify(word) : undefined;
}
