/** OpenAI's harmony: every message has a header with a channel and perhaps a recipient. */

import { copyArguments } from './call.js';
import { withMarks, withoutMarks } from './marks.js';
import type { ParserContext } from './message.js';
import type { Step } from './reader.js';
import { TextRun } from './sink.js';

/** Calls go to recipients of this namespace. */
const FUNCTIONS = 'functions.';

/** @param prefix header of the message that the prompt has begun; its end is where the answer goes on */
export function* readChannels(context: ParserContext, prefix: string): Step<void> {
  const { reader, format } = context;
  const mark = (token: string): string => withMarks(token, format.marks);
  const message = mark('<|message|>');
  const ends = [mark('<|end|>'), mark('<|call|>'), mark('<|return|>'), mark('<|start|>')];
  const seen = new Set<'content' | 'reasoning'>();

  let header = withMarks(prefix, format.marks);
  let inBody = header.includes(message);
  for (;;) {
    if (!inBody) {
      const start = reader.position;
      let raw = '';
      const found = yield* reader.until([message], (text) => (raw += text));
      if (found === undefined) {
        // No message after all: a model that answers without channels.
        if (seen.size === 0 && context.sink.calls.begun === 0 && !raw.includes(mark('<|channel|>'))) {
          context.sink.text('content', raw, start);
        }
        return;
      }
      reader.advance(found.length);
      header += raw;
    }
    const recipient = /\bto=([^\s<\ufdd0-\ufdef]+)/.exec(header)?.[1];
    const after = header.slice(header.indexOf(mark('<|channel|>')) + mark('<|channel|>').length);
    const channel = /^\w+/.exec(after)?.[0];
    header = '';
    inBody = false;
    if (recipient?.startsWith(FUNCTIONS) === true && context.tools.length > 0) {
      yield* readCallBody(context, recipient.slice(FUNCTIONS.length));
      yield* reader.until(ends, () => undefined);
    } else {
      const type = channel === 'analysis' || recipient !== undefined ? 'reasoning' : 'content';
      context.setReasoning(type === 'reasoning');
      const run = new TextRun(context.sink, type, true, true);
      let separator = seen.has(type) ? '\n' : '';
      yield* reader.until(ends, (text, start) => {
        if (separator !== '' && withoutMarks(text).trim() !== '') {
          context.sink.text(type, separator, start);
          separator = '';
        }
        run.push(text, start);
      });
      seen.add(type);
      context.setReasoning(false);
    }
    if (!(yield* readEnd(context, ends))) return;
  }
}

function* readCallBody(context: ParserContext, name: string): Step<void> {
  const { reader, sink } = context;
  if (!context.parallel && sink.calls.begun > 0) return;
  yield* reader.spaces();
  const index = sink.beginCall(name);
  if ((yield* reader.peek()) === '{') {
    yield* copyArguments(context, index);
  } else if (yield* atEnd(context)) {
    sink.arguments(index, '{}');
    sink.endCall(index);
  }
}

/** A call without arguments: the message is closed at once. A text that just ends is cut off. */
function* atEnd({ reader, format }: ParserContext): Step<boolean> {
  return yield* reader.ahead(withMarks('<|call|>', format.marks));
}

/** False where the text ended. */
function* readEnd({ reader }: ParserContext, ends: readonly string[]): Step<boolean> {
  for (const end of ends) if (yield* reader.literal(end)) return true;
  return (yield* reader.peek()) !== '';
}
