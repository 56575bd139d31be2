/** Bytes of a request body → a JSON value, with a bound on nesting and errors that say where. */

import { ApiError } from './errors.js';

/**
 * @param maxDepth nesting of arrays and objects allowed, at least 1
 * @throws ApiError 400: not UTF-8, too deep, or broken, with the position
 */
export function parseJson(bytes: Uint8Array, maxDepth: number): unknown {
  if (bytes.length === 0) throw invalidJson('the body is empty, expected a JSON object');
  // Before anything else: depth bounds what the parser and every walk after it may recurse into.
  checkDepth(bytes, maxDepth);
  const text = decodeUtf8(bytes);
  try {
    return JSON.parse(text) as unknown;
  } catch {
    // V8's message quotes the body and names a position only sometimes.
    throw invalidJson(`the body is not valid JSON: ${describeJsonError(text)}`);
  }
}

function invalidJson(message: string): ApiError {
  return new ApiError({ status: 400, type: 'invalid_request_error', code: 'invalid_json', message });
}

function decodeUtf8(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw invalidJson('the body is not valid UTF-8');
  }
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;

function checkDepth(bytes: Uint8Array, maxDepth: number): void {
  let depth = 0;
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i];
    if (byte === QUOTE) {
      i = endOfString(bytes, i);
    } else if (byte === 0x7b || byte === 0x5b) {
      depth++;
      if (depth > maxDepth) throw invalidJson(`the body nests deeper than ${maxDepth} levels (position ${i})`);
    } else if (byte === 0x7d || byte === 0x5d) {
      depth--;
    }
  }
}

/** Index of the closing quote of the string that opens at `start`, or the end. Jumps, since images are long strings. */
function endOfString(bytes: Uint8Array, start: number): number {
  let end = start;
  for (;;) {
    end = bytes.indexOf(QUOTE, end + 1);
    if (end < 0) return bytes.length;
    let backslashes = 0;
    while (bytes[end - 1 - backslashes] === BACKSLASH) backslashes++;
    if (backslashes % 2 === 0) return end;
  }
}

/** What is wrong with a text that JSON.parse refused, and where: "expected ',' or '}' at position 9 (line 1, column 10)". */
function describeJsonError(text: string): string {
  const error = new Scanner(text).firstError();
  if (error === undefined) return 'it cannot be parsed';
  const before = text.slice(0, error.position);
  const line = before.split('\n').length;
  const column = error.position - (before.lastIndexOf('\n') + 1) + 1;
  const end = error.position >= text.length ? ', where the body ends' : '';
  return `expected ${error.expected} at position ${error.position} (line ${line}, column ${column})${end}`;
}

interface ScanError {
  readonly expected: string;
  readonly position: number;
}

const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const ESCAPE = /\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/y;
const WHITE_SPACE = /[ \t\n\r]*/y;

/** A JSON reader that only looks for the first error. It recurses: depth is bounded before it runs. */
class Scanner {
  private at = 0;

  constructor(private readonly text: string) {}

  firstError(): ScanError | undefined {
    const error = this.value();
    if (error !== undefined) return error;
    return this.at < this.text.length ? this.expected('the end of the body') : undefined;
  }

  private value(): ScanError | undefined {
    this.skip(WHITE_SPACE);
    const error = this.bareValue();
    if (error === undefined) this.skip(WHITE_SPACE);
    return error;
  }

  private bareValue(): ScanError | undefined {
    if (this.take('{')) return this.members('}', () => this.member());
    if (this.take('[')) return this.members(']', () => this.value());
    if (this.text[this.at] === '"') return this.string('a string');
    for (const word of ['true', 'false', 'null']) {
      if (this.take(word)) return undefined;
    }
    return this.skip(NUMBER) > 0 ? undefined : this.expected('a JSON value');
  }

  private members(close: string, member: () => ScanError | undefined): ScanError | undefined {
    this.skip(WHITE_SPACE);
    if (this.take(close)) return undefined;
    for (;;) {
      const error = member();
      if (error !== undefined) return error;
      if (this.take(close)) return undefined;
      if (!this.take(',')) return this.expected(`',' or '${close}'`);
    }
  }

  private member(): ScanError | undefined {
    this.skip(WHITE_SPACE);
    const error = this.string('a key in double quotes');
    if (error !== undefined) return error;
    this.skip(WHITE_SPACE);
    return this.take(':') ? this.value() : this.expected("':'");
  }

  private string(what: string): ScanError | undefined {
    if (!this.take('"')) return this.expected(what);
    this.skipCharacters();
    return this.take('"') ? undefined : this.expected('a closing quote or a valid character of a string');
  }

  /** To the closing quote, or to what may not stand in a string. A loop: no pattern survives megabytes of image. */
  private skipCharacters(): void {
    for (; this.at < this.text.length; this.at++) {
      const code = this.text.charCodeAt(this.at);
      if (code === QUOTE || code < 0x20) return;
      if (code !== BACKSLASH) continue;
      if (this.skip(ESCAPE) === 0) return;
      this.at--;
    }
  }

  private take(token: string): boolean {
    if (!this.text.startsWith(token, this.at)) return false;
    this.at += token.length;
    return true;
  }

  private skip(pattern: RegExp): number {
    pattern.lastIndex = this.at;
    const length = pattern.exec(this.text)?.[0].length ?? 0;
    this.at += length;
    return length;
  }

  private expected(expected: string): ScanError {
    return { expected, position: this.at };
  }
}
