/** Server-sent events, read by the parser that clients use. */

import { createParser, type EventSourceMessage } from 'eventsource-parser';

/** Server-sent events out of bytes that come in pieces. */
export function parseEvents(pieces: Iterable<Uint8Array>): EventSourceMessage[] {
  const events: EventSourceMessage[] = [];
  const parser = createParser({
    onEvent: (event) => events.push(event),
    onError: (error) => {
      throw error;
    },
  });
  const decoder = new TextDecoder();
  for (const piece of pieces) parser.feed(decoder.decode(piece, { stream: true }));
  return events;
}

export function dataOf(events: readonly EventSourceMessage[]): unknown[] {
  return events.map(({ data }) => (data === '[DONE]' ? data : (JSON.parse(data) as unknown)));
}
