/**
 * What the engine generates → reasoning, content and tool calls, while it is generated. However the text is cut into
 * deltas, the events add up to the same.
 */

import { randomBytes } from 'node:crypto';

import type { FinishReason as EngineFinishReason, Generation, TextPiece, TokenInfo } from '../engine/types.js';
import { readChannels } from './output/channels.js';
import { type CompiledFormat, encodePiece, isMark } from './output/marks.js';
import { type ParserContext, readMessage } from './output/message.js';
import { Reader, type Step } from './output/reader.js';
import { EventSink, type OutputEvent } from './output/sink.js';
import type { ChatEvent, FinishReason, ToolDefinition } from './types.js';

export { type CompiledFormat, compileFormat } from './output/marks.js';
export type { OutputEvent } from './output/sink.js';

export interface OutputParserOptions {
  readonly format: CompiledFormat;
  /** That may be called. Empty: what looks like a call is text. */
  readonly tools?: readonly ToolDefinition[];
  /** More than one call may be made; those after the first are dropped if not. @default true */
  readonly parallel?: boolean;
  /** The rendered prompt: it may have begun the reasoning. */
  readonly prompt?: string;
  /** The prompt ends inside the answer, which is continued. */
  readonly continues?: boolean;
  /** Ids of calls. Default: `call_` and 96 random bits. */
  readonly newId?: () => string;
}

export class OutputParser {
  private readonly reader = new Reader();
  private readonly sink: EventSink;
  private readonly steps: Step<void>;
  private readonly marks: ReadonlyMap<string, string>;
  private position = 0;
  private thinking = false;
  private thought = 0;

  constructor(options: OutputParserOptions) {
    const { format, tools = [], parallel = true, prompt = '', continues = false } = options;
    this.marks = format.marks;
    this.sink = new EventSink(options.newId ?? newCallId);
    const context: ParserContext = {
      reader: this.reader,
      sink: this.sink,
      format,
      tools,
      parallel,
      setReasoning: (on) => (this.thinking = on),
    };
    this.thinking = !format.channels && opensReasoning(format, prompt, continues);
    this.steps = format.channels
      ? readChannels(context, openHeader(prompt))
      : readMessage(context, this.thinking, !continues);
  }

  /** Tokens of the reasoning, its tags included. */
  get reasoningTokens(): number {
    return this.thought;
  }

  /**
   * Takes what one delta brought.
   * @param tokens whose text is in the pieces, where log-probabilities were asked for
   */
  push(pieces: readonly TextPiece[], tokens: readonly TokenInfo[] = [], nTokens = 0): OutputEvent[] {
    const before = this.thinking;
    const text = pieces.map((piece) => encodePiece(piece, this.marks)).join('');
    if (tokens.length > 0) this.place(pieces, tokens, text);
    this.position += text.length;
    if (text !== '') this.reader.feed(text);
    this.steps.next();
    if (before || this.thinking) this.thought += nTokens;
    return this.sink.take();
  }

  /** Nothing more comes: what was held back is let go. */
  finish(): OutputEvent[] {
    this.reader.end();
    this.steps.next();
    this.sink.finish(this.position);
    return this.sink.take();
  }

  /** After `finish`. An answer whose calls are not all whole ended as the engine says. */
  finishReason(reason: EngineFinishReason): FinishReason {
    const { begun, whole } = this.sink.calls;
    return reason === 'stop' && begun > 0 && whole === begun ? 'tool_calls' : reason;
  }

  /** Where in the text each token is. Tokens that are marks are no text and have no place. */
  private place(pieces: readonly TextPiece[], tokens: readonly TokenInfo[], text: string): void {
    const ids = new Set(pieces.map((piece) => piece.special));
    let at = 0;
    for (const [index, token] of tokens.entries()) {
      let mark = at;
      while (mark < text.length && !isMark(text.charAt(mark))) mark++;
      if (ids.has(token.id)) {
        at = Math.min(mark + 1, text.length);
        continue;
      }
      // A part of a character has no length yet; the last token takes what is left.
      const length = index === tokens.length - 1 ? mark - at : token.text.replaceAll('\ufffd', '').length;
      const end = Math.min(at + length, mark);
      this.sink.token(token, this.position + at, this.position + end);
      at = end;
    }
  }
}

/** The events of a generation as those of a chat. */
export async function* parseGeneration(generation: Generation, parser: OutputParser): AsyncGenerator<ChatEvent, void> {
  for await (const event of generation) {
    switch (event.type) {
      case 'started':
      case 'prefill':
        yield event;
        break;
      case 'prompt':
        break;
      case 'delta':
        // Not `yield*`, which makes several promises for each value of a list.
        for (const output of parser.push(event.pieces, event.tokens, event.nTokens)) yield output;
        break;
      case 'finished': {
        yield* parser.finish();
        const { usage, timings } = event;
        const reason = parser.finishReason(event.reason);
        yield { type: 'finished', reason, usage, timings, reasoningTokens: parser.reasoningTokens };
        break;
      }
    }
  }
}

/** Where an answer begins: the prompt has opened the reasoning, has ended it, or the model may open it. */
export type ReasoningState = 'open' | 'closed' | 'possible';

/** What a rendered prompt has done about the reasoning. */
export function reasoningState(format: CompiledFormat, prompt: string, continues: boolean): ReasoningState {
  const close = format.source.reasoning?.close;
  if (close === undefined) return 'possible';
  if (opensReasoning(format, prompt, continues)) return 'open';
  return continues || prompt.trimEnd().endsWith(close) ? 'closed' : 'possible';
}

function opensReasoning(format: CompiledFormat, prompt: string, continues: boolean): boolean {
  const syntax = format.source.reasoning;
  if (format.reasoning === undefined || syntax === undefined) return false;
  const open = prompt.lastIndexOf(syntax.open.trimEnd());
  if (open < 0 || open < prompt.lastIndexOf(syntax.close)) return false;
  // A user may write the tag too: only at the very end it is the template's, unless an answer is continued.
  return continues || prompt.slice(open + syntax.open.trimEnd().length).trim() === '';
}

/** Harmony: the header that the prompt has begun, behind its last `<|start|>`. */
function openHeader(prompt: string): string {
  const start = prompt.lastIndexOf('<|start|>');
  return start < 0 ? '' : prompt.slice(start);
}

function newCallId(): string {
  return `call_${randomBytes(12).toString('hex')}`;
}
