/** Events of an answer added up. */

import type { ChatEvent } from '../../ts/chat/types.js';

export interface FoldedCall {
  readonly name: string;
  /** Parsed if the call is whole, else as far as it was written. */
  arguments: unknown;
  whole?: false;
}

export interface FoldedAnswer {
  reasoning?: string;
  content?: string;
  calls?: FoldedCall[];
  finish?: string;
}

/** Throws where the events are not in order: a call begins, then its arguments, then its end. */
export function foldEvents(events: Iterable<ChatEvent>): FoldedAnswer {
  const answer: FoldedAnswer = {};
  const calls: { name: string; json: string; done: boolean; id: string }[] = [];
  for (const event of events) {
    if (event.type === 'content' || event.type === 'reasoning') {
      if (event.text !== '') answer[event.type] = (answer[event.type] ?? '') + event.text;
    } else if (event.type === 'tool_call') {
      if (event.index !== calls.length) throw new Error(`call ${event.index} out of order`);
      calls.push({ name: event.name, json: '', done: false, id: event.id });
    } else if (event.type === 'tool_call_arguments' || event.type === 'tool_call_done') {
      const call = calls[event.index];
      if (call === undefined || call.done) throw new Error(`call ${event.index} is not open`);
      if (event.type === 'tool_call_done') call.done = true;
      else call.json += event.delta;
    } else if (event.type === 'finished') {
      answer.finish = event.reason;
    }
  }
  if (new Set(calls.map((call) => call.id)).size !== calls.length) throw new Error('ids are not unique');
  if (calls.length > 0) {
    answer.calls = calls.map(({ name, json, done }) =>
      done ? { name, arguments: JSON.parse(json) as unknown } : { name, arguments: json, whole: false },
    );
  }
  return answer;
}
