/** After a restart nobody works on what was running: such responses have failed, and their streams say so. */

import { isTerminalEvent, type ResponseEvent } from '../protocol/response-events.js';
import type { OutputItem } from '../protocol/response-items.js';
import type { ResponseError, ResponseObject } from '../protocol/response-object.js';
import type { Unnumbered } from './open-items.js';
import type { CallerStore, ResponseStore } from './store.js';

/** What is said of a response that the end of the server ended, however the server ended. */
export const INTERRUPTED: ResponseError = {
  code: 'server_error',
  message: 'the server stopped while the response was running',
};

/** Events read from the store at a time. */
const READ_BATCH = 256;

export function failInterrupted(all: ResponseStore): void {
  for (const { id, store } of all.unfinished()) {
    const stored = store.get(id);
    if (stored === undefined) continue;
    const events = allEvents(store, id);
    // Killed between the last event and the snapshot.
    const last = events.at(-1);
    if (last !== undefined && isTerminalEvent(last)) {
      store.put({ response: last.response, input: stored.input });
      continue;
    }
    const { output, closing } = leftOpen(events);
    const response: ResponseObject = { ...stored.response, status: 'failed', error: INTERRUPTED, output };
    const ending: Unnumbered[] = [...closing, { type: 'response.failed', response }];
    const first = last === undefined ? 0 : last.sequence_number + 1;
    store.appendEvents(
      id,
      ending.map((event, index): ResponseEvent => ({ ...event, sequence_number: first + index })),
    );
    store.put({ response, input: stored.input });
  }
}

function allEvents(store: CallerStore, id: string): ResponseEvent[] {
  const all: ResponseEvent[] = [];
  for (;;) {
    const batch = store.events(id, all.at(-1)?.sequence_number ?? -1, READ_BATCH);
    if (batch.length === 0) return all;
    all.push(...batch);
  }
}

/** The items so far, and the events that close those that were open, with what their deltas said. */
function leftOpen(events: readonly ResponseEvent[]): {
  readonly output: readonly OutputItem[];
  readonly closing: readonly Unnumbered[];
} {
  const output: OutputItem[] = [];
  const open = new Map<number, { item: OutputItem; said: string; hasPart: boolean }>();
  for (const event of events) {
    if (!('output_index' in event)) continue;
    const growing = open.get(event.output_index);
    if (event.type === 'response.output_item.added') {
      output[event.output_index] = event.item;
      open.set(event.output_index, { item: event.item, said: '', hasPart: false });
    } else if (event.type === 'response.output_item.done') {
      output[event.output_index] = event.item;
      open.delete(event.output_index);
    } else if (growing !== undefined) {
      if ('delta' in event) growing.said += event.delta;
      else if (event.type === 'response.content_part.added') growing.hasPart = true;
    }
  }
  const closing: Unnumbered[] = [];
  for (const [index, { item, said, hasPart }] of open) {
    const at = { item_id: item.id, output_index: index, content_index: 0 };
    const cut = cutOff(item, said, hasPart);
    output[index] = cut;
    if (hasPart && cut.type === 'message') {
      const part = { type: 'output_text', text: said, annotations: [], logprobs: [] } as const;
      closing.push({ type: 'response.output_text.done', ...at, text: said, logprobs: [] });
      closing.push({ type: 'response.content_part.done', ...at, part });
    } else if (hasPart && cut.type === 'reasoning') {
      closing.push({ type: 'response.reasoning_text.done', ...at, text: said });
      closing.push({ type: 'response.content_part.done', ...at, part: { type: 'reasoning_text', text: said } });
    }
    closing.push({ type: 'response.output_item.done', output_index: index, item: cut });
  }
  return { output, closing };
}

/** Log-probabilities of the cut text are lost: they were only in its deltas. */
function cutOff(item: OutputItem, said: string, hasPart: boolean): OutputItem {
  switch (item.type) {
    case 'message': {
      const part = { type: 'output_text', text: said, annotations: [], logprobs: [] } as const;
      return { ...item, status: 'incomplete', content: hasPart ? [part] : [] };
    }
    case 'reasoning':
      return { ...item, status: 'incomplete', content: hasPart ? [{ type: 'reasoning_text', text: said }] : [] };
    case 'function_call':
    case 'mcp_call':
      return { ...item, status: 'incomplete', arguments: said };
    case 'mcp_list_tools':
    case 'mcp_approval_request':
      return item;
  }
}
