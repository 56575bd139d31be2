/** A whole answer: reasoning, text and calls in any order. */

import type { CallSyntax } from '../formats/index.js';
import type { ToolDefinition } from '../types.js';
import type { CompiledFormat } from './marks.js';
import { isMark } from './marks.js';
import type { Reader, Step } from './reader.js';
import { readSection, type SectionContext } from './section.js';
import { type EventSink, TextRun } from './sink.js';
import { readSlip } from './slip.js';

export interface ParserContext {
  readonly reader: Reader;
  readonly sink: EventSink;
  readonly format: CompiledFormat;
  /** Empty: none may be called, and what looks like a call is text. */
  readonly tools: readonly ToolDefinition[];
  readonly parallel: boolean;
  /** Told where reasoning begins and ends. */
  readonly setReasoning: (on: boolean) => void;
}

/**
 * @param inReasoning the prompt has opened the reasoning already
 * @param fresh the answer begins here; what continues one cannot begin with a call
 */
export function* readMessage(context: ParserContext, inReasoning: boolean, fresh: boolean): Step<void> {
  const { reader, sink, format, tools } = context;
  const offers = tools.length > 0;
  const opens = offers ? (format.tools?.open ?? []) : [];
  const holds = offers || format.reasoning !== undefined;
  let structured = inReasoning;
  let first = fresh;
  if (inReasoning) yield* readReasoning(context, opens);
  for (;;) {
    const run = new TextRun(sink, 'content', holds, structured);
    if (holds) {
      const start = reader.position;
      run.push(yield* reader.spaces(), start);
    }
    if (format.reasoning !== undefined && (yield* reader.literal(format.reasoning.open))) {
      yield* readReasoning(context, opens);
      structured = true;
      continue;
    }
    if (offers && (first || structured) && (yield* readCallsAtStart(context, first))) {
      structured = true;
      first = false;
      continue;
    }
    first = false;
    if (!(yield* readText(context, run, opens))) {
      run.end();
      return;
    }
    structured = true;
  }
}

function* readReasoning({ reader, sink, format, setReasoning }: ParserContext, opens: readonly string[]): Step<void> {
  if (format.reasoning === undefined) return;
  setReasoning(true);
  const run = new TextRun(sink, 'reasoning', true, true);
  const { close } = format.reasoning;
  // A special token that opens calls is meant so; the same as text may only be talked about.
  const ends = [close, ...opens.filter((open) => isMark(open.charAt(0)))];
  const end = yield* reader.until(ends, run.push);
  if (end === close) reader.advance(close.length);
  setReasoning(false);
}

/** Calls that only the beginning of a text shows: without a marker, or with one that elsewhere is none. */
function* readCallsAtStart(context: ParserContext, first: boolean): Step<boolean> {
  const { reader, sink, format, tools } = context;
  const syntax = format.tools;
  for (const open of syntax?.openAtStart ?? []) {
    const start = reader.keep();
    if ((yield* reader.literal(open)) && (yield* readSection(sectionOf(context, true)))) return true;
    reader.rewind(start);
    reader.forget();
  }
  if (syntax?.bare !== undefined && (yield* readSection(sectionOf(context, true, syntax.bare)))) return true;
  return first && (yield* readSlip(reader, sink, tools, context.parallel));
}

/** Text up to calls, which are read too. False if the answer ended. */
function* readText(context: ParserContext, run: TextRun, opens: readonly string[]): Step<boolean> {
  const { reader } = context;
  for (;;) {
    const open = yield* reader.until(opens, run.push);
    if (open === undefined) return false;
    const start = reader.position;
    reader.advance(open.length);
    if (yield* readSection(sectionOf(context, false))) return true;
    // Not a call: the marker was text like any other.
    run.push(open, start);
  }
}

function sectionOf(
  { reader, sink, format, tools, parallel }: ParserContext,
  mustBeOffered: boolean,
  kinds?: readonly CallSyntax['kind'][],
): SectionContext {
  const { open = [], close, calls = [] } = format.tools ?? {};
  return {
    reader,
    sink,
    tools,
    parallel,
    mustBeOffered,
    open,
    close,
    calls: kinds === undefined ? calls : calls.filter((call) => kinds.includes(call.kind)),
  };
}
