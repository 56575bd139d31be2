/** Tool calls in a row, from what opens them to what closes them. */

import type { CallSyntax } from '../formats/index.js';
import { type CallContext, readCall } from './call.js';
import type { Step } from './reader.js';

export interface SectionContext extends CallContext {
  readonly open: readonly string[];
  /** Tried in turn. */
  readonly calls: readonly CallSyntax[];
  /** More than one call may be made. */
  readonly parallel: boolean;
}

/**
 * Reads calls, the opening marker being read already. False if there was none: then all that was read is still to be
 * read.
 */
export function* readSection(context: SectionContext): Step<boolean> {
  const { reader, sink } = context;
  const before = sink.calls.begun;
  for (;;) {
    const start = reader.keep();
    const more = yield* nextCall(context);
    // What stood between calls is no text.
    const after = reader.position;
    if (more) {
      const result = yield* tryCall(context);
      if (result === 'whole' && !context.parallel) return yield* readAway(context, []);
      if (result === 'whole') {
        reader.forget();
        continue;
      }
      if (result === 'cut') return yield* readAway(context, ends(context));
    }
    const any = sink.calls.begun > before;
    reader.rewind(any ? after : start);
    reader.forget();
    return any;
  }
}

/** To the beginning of the next call. False if the section is closed, or the text ended. */
function* nextCall({ reader, open: opens, close }: SectionContext): Step<boolean> {
  for (;;) {
    yield* reader.spaces();
    if (close !== undefined && (yield* reader.literal(close))) return false;
    let again = false;
    for (const open of opens) again ||= yield* reader.literal(open);
    if (again) continue;
    // Of lists, and between calls that are not in one.
    if ((yield* reader.all(/[[\],;]/, 1)) === '') return (yield* reader.peek()) !== '';
  }
}

/** The syntaxes in turn. A JSON object is tried where one begins, and only there. */
function* tryCall(context: SectionContext): Step<'none' | 'cut' | 'whole'> {
  const { reader, calls } = context;
  const start = reader.position;
  const braced = (yield* reader.peek()) === '{';
  for (const call of calls) {
    if ((call.kind === 'json') !== braced) continue;
    const result = yield* readCall(context, call);
    if (result !== 'none') return result;
    reader.rewind(start);
  }
  return 'none';
}

function ends({ open, close }: SectionContext): string[] {
  return close === undefined ? [...open] : [...open, close];
}

/** Drops the text up to where something new may begin. */
function* readAway({ reader, close }: SectionContext, until: readonly string[]): Step<true> {
  reader.forget();
  const end = yield* reader.until(until, () => undefined);
  if (end !== undefined && end === close) reader.advance(end.length);
  return true;
}
