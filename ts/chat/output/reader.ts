/** Text that is still being written, read as if it were there: whoever needs more of it yields. */

/** A part of the parser: yields when it needs more text. */
export type Step<T> = Generator<undefined, T, undefined>;

const SPACE = /\s/;

export class Reader {
  private buffer = '';
  /** Of `buffer[0]` in the whole text. */
  private base = 0;
  private at = 0;
  private ended = false;
  /** From here on the text is kept for `rewind`. */
  private kept: number | undefined;

  /** UTF-16 units read so far. */
  get position(): number {
    return this.base + this.at;
  }

  feed(text: string): void {
    const from = Math.min(this.kept ?? Number.POSITIVE_INFINITY, this.position);
    this.buffer = this.buffer.slice(from - this.base) + text;
    this.at = this.position - from;
    this.base = from;
  }

  /** Nothing more will come. */
  end(): void {
    this.ended = true;
  }

  /** Keeps the text from here on, or from where it is kept already, until it is forgotten. */
  keep(): number {
    this.kept ??= this.position;
    return this.position;
  }

  /** Back to where the text is kept from, or later. */
  rewind(position: number): void {
    this.at = position - this.base;
  }

  forget(): void {
    this.kept = undefined;
  }

  /** The next character; empty at the end. */
  *peek(): Step<string> {
    while (this.at >= this.buffer.length) {
      if (this.ended) return '';
      yield;
    }
    return this.buffer[this.at] ?? '';
  }

  /** Past n characters that were looked at. */
  advance(n = 1): void {
    this.at += n;
  }

  /** Whether this text comes next; nothing is read. Waits only as long as it may be so. */
  *ahead(text: string): Step<boolean> {
    for (;;) {
      const there = this.buffer.slice(this.at, this.at + text.length);
      if (there.length === text.length) return there === text;
      if (this.ended || !text.startsWith(there)) return false;
      yield;
    }
  }

  /** Reads this text, or nothing. */
  *literal(text: string): Step<boolean> {
    const there = yield* this.ahead(text);
    if (there) this.advance(text.length);
    return there;
  }

  /** As `literal`, but whitespace may be any whitespace, or none. Reads a part if the rest is not there. */
  *loose(text: string): Step<boolean> {
    for (const part of text.split(/\s+/)) {
      yield* this.spaces();
      if (!(yield* this.literal(part))) return false;
    }
    return true;
  }

  *spaces(): Step<string> {
    return yield* this.all(SPACE);
  }

  /** Characters as long as they match, up to a limit. */
  *all(character: RegExp, limit = Number.POSITIVE_INFINITY): Step<string> {
    let text = '';
    while (text.length < limit) {
      const next = yield* this.peek();
      if (next === '' || !character.test(next)) break;
      text += next;
      this.advance();
    }
    return text;
  }

  /**
   * Hands on text until one of the ends comes, which is left unread, as early as it is sure. Returns which end it was;
   * undefined if the text ended.
   */
  *until(ends: readonly string[], take: (text: string, start: number) => void): Step<string | undefined> {
    for (;;) {
      const rest = this.at === 0 ? this.buffer : this.buffer.slice(this.at);
      const [index, found] = firstOf(ends, rest);
      const sure = found !== undefined || this.ended ? index : rest.length - mayBegin(ends, rest);
      if (sure > 0) {
        const start = this.position;
        this.advance(sure);
        take(rest.slice(0, sure), start);
      }
      if (found !== undefined || this.ended) return found;
      yield;
    }
  }
}

/** The earliest end in the text, and of those the longest. */
function firstOf(ends: readonly string[], text: string): [number, string | undefined] {
  let best = text.length;
  let found: string | undefined;
  for (const end of ends) {
    const index = text.indexOf(end);
    if (index < 0 || index > best || (index === best && found !== undefined && end.length <= found.length)) continue;
    best = index;
    found = end;
  }
  return [best, found];
}

/** How many characters at the text's end may be the beginning of one of the ends. */
function mayBegin(ends: readonly string[], text: string): number {
  let most = 0;
  for (const end of ends) {
    for (let n = Math.min(end.length - 1, text.length); n > most; n--) {
      if (text.endsWith(end.slice(0, n))) {
        most = n;
        break;
      }
    }
  }
  return most;
}
