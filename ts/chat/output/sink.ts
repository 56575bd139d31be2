/** What the parser has found, as events; tokens with log-probabilities go with the text they are part of. */

import type { TokenInfo } from '../../engine/types.js';
import type { ChatEvent, ToolCallEvent } from '../types.js';
import { withoutMarks } from './marks.js';

export type OutputEvent = Extract<ChatEvent, { type: 'content' | 'reasoning' }> | ToolCallEvent;

interface PlacedToken {
  readonly info: TokenInfo;
  readonly start: number;
  readonly end: number;
}

export class EventSink {
  private events: OutputEvent[] = [];
  private waiting: PlacedToken[] = [];
  private begun = 0;
  private done = 0;

  constructor(private readonly newId: () => string) {}

  /** Calls that were begun, and those of them that are whole. */
  get calls(): { readonly begun: number; readonly whole: number } {
    return { begun: this.begun, whole: this.done };
  }

  /** A token of the text from start to end; one without text yet has both the same. */
  token(info: TokenInfo, start: number, end: number): void {
    this.waiting.push({ info, start, end });
  }

  text(type: 'content' | 'reasoning', raw: string, start: number): void {
    const text = withoutMarks(raw);
    if (text === '') return;
    const tokens = this.tokensOf(start, start + raw.length);
    const last = this.events.at(-1);
    if (last?.type === type) {
      this.events.pop();
      const all = [...(last.tokens ?? []), ...tokens];
      this.events.push({ type, text: last.text + text, ...(all.length === 0 ? {} : { tokens: all }) });
    } else {
      this.events.push({ type, text, ...(tokens.length === 0 ? {} : { tokens }) });
    }
  }

  beginCall(name: string): number {
    const index = this.begun++;
    this.events.push({ type: 'tool_call', index, id: this.newId(), name });
    return index;
  }

  arguments(index: number, delta: string): void {
    if (delta === '') return;
    const last = this.events.at(-1);
    if (last?.type === 'tool_call_arguments' && last.index === index) {
      this.events.pop();
      this.events.push({ ...last, delta: last.delta + delta });
    } else {
      this.events.push({ type: 'tool_call_arguments', index, delta });
    }
  }

  endCall(index: number): void {
    this.done++;
    this.events.push({ type: 'tool_call_done', index });
  }

  /** Tokens that never became text (half a character at the limit) are reported all the same. */
  finish(position: number): void {
    const tokens = this.waiting.filter(({ start }) => start >= position).map(({ info }) => info);
    if (tokens.length > 0) this.events.push({ type: 'content', text: '', tokens });
  }

  take(): OutputEvent[] {
    const events = this.events;
    this.events = [];
    return events;
  }

  /** Those that overlap the text; those before it belonged to syntax and are dropped. */
  private tokensOf(start: number, end: number): TokenInfo[] {
    const later = this.waiting.findIndex((token) => token.start >= end);
    const here = this.waiting.splice(0, later < 0 ? this.waiting.length : later);
    return here.filter((token) => token.end > start || token.start >= start).map(({ info }) => info);
  }
}

/** Text of one kind between pieces of syntax. Whitespace at its edges is held back until it is known to be inside. */
export class TextRun {
  private space = '';
  private spaceStart = 0;
  private empty = true;

  constructor(
    private readonly sink: EventSink,
    private readonly type: 'content' | 'reasoning',
    /** Whitespace at the edges may have to go: hold it back. */
    private readonly holds: boolean,
    /** Whitespace at the beginning goes. */
    private readonly trims: boolean,
  ) {}

  push = (text: string, start: number): void => {
    if (!this.holds) {
      this.sink.text(this.type, text, start);
      return;
    }
    const all = this.space + text;
    const from = this.space === '' ? start : this.spaceStart;
    const body = all.trimEnd();
    this.space = all.slice(body.length);
    this.spaceStart = from + body.length;
    if (body === '') return;
    const lead = this.empty && this.trims ? body.length - body.trimStart().length : 0;
    this.empty = false;
    this.sink.text(this.type, body.slice(lead), from + lead);
  };

  /** Nothing follows: whitespace at the end is part of the text, unless there was no other. */
  end(): void {
    if (this.space !== '' && !(this.empty && this.trims)) this.sink.text(this.type, this.space, this.spaceStart);
    this.space = '';
  }
}
