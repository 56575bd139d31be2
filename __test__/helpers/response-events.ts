/** What every legal stream of a response keeps to, and short ways to write down a model's events. */

import { expect } from 'chai';

import type { ChatEvent } from '../../ts/chat/types.js';
import type { ResponseEvent } from '../../ts/protocol/response-events.js';
import type { ResponseObject } from '../../ts/protocol/response-object.js';
import type { ModelEvent } from '../../ts/responses/event-machine.js';
import { problemOf } from './schemas/judge.js';

/** Held against what OpenAI and Open Responses publish. Events that leave a server of the tests are, without being asked. */
export function checkSchema(events: readonly ResponseEvent[]): void {
  for (const event of events) {
    const value: unknown = JSON.parse(JSON.stringify(event));
    const problem = problemOf({ method: 'POST', path: '/v1/responses', status: 200, value, as: 'event' });
    if (problem !== undefined) throw new Error(problem);
  }
}

/** A whole tool call; `arguments` in pieces. */
export function call(index: number, name: string, pieces: readonly string[], done = true): ModelEvent[] {
  return [
    { type: 'tool_call', index, id: `call_${index}`, name },
    ...pieces.map((delta) => ({ type: 'tool_call_arguments', index, delta }) as const),
    ...(done ? ([{ type: 'tool_call_done', index }] as const) : []),
  ];
}

/** For scripts of a model, whose events know no calls yet. */
export function asChat(events: readonly ModelEvent[]): ChatEvent[] {
  return events as ChatEvent[];
}

export function typesOf(events: readonly unknown[]): string[] {
  return events.map((event) =>
    typeof event === 'string' ? event : (event as ResponseEvent).type.replace('response.', ''),
  );
}

/** Consecutive equal types as one. */
export function collapsed(events: readonly unknown[]): string[] {
  return typesOf(events).filter((type, index, all) => type !== all[index - 1]);
}

/** Throws where the sequence breaks a rule of the protocol; answers with the last snapshot. */
export function checkLegal(events: readonly ResponseEvent[]): ResponseObject {
  const first = events[0]!;
  expect(first.type).to.equal('response.created');
  expect(events.map((event) => event.sequence_number)).to.deep.equal(events.map((_event, index) => index));
  const terminal = events.filter(({ type }) => /^response\.(completed|incomplete|failed)$/.test(type));
  expect(terminal).to.deep.equal([events.at(-1)]);
  const { response } = events.at(-1) as Extract<ResponseEvent, { response: ResponseObject }>;
  expect(foldOutput(events)).to.deep.equal(response.output);
  const ids = response.output.map(({ id }) => id);
  expect(new Set(ids).size).to.equal(ids.length);
  const states = events.flatMap((event) => ('response' in event ? [event.response.id] : []));
  expect(new Set(states).size).to.equal(1);
  return response;
}

interface Growing {
  id: string;
  type: string;
  status?: string;
  name: string;
  arguments: string;
  content: { type: string; text: string; logprobs: unknown[] }[];
}

/** What an accumulator makes of the stream, by its own rules; every inner event must fit the item it names. */
function foldOutput(events: readonly ResponseEvent[]): unknown[] {
  const items: Growing[] = [];
  const done = new Set<number>();
  for (const event of events) {
    if (!('output_index' in event)) continue;
    const { output_index: index } = event;
    expect(done.has(index), `${event.type} after done`).to.be.false;
    if (event.type === 'response.output_item.added') {
      expect(index).to.equal(items.length);
      items.push(structuredClone(event.item) as unknown as Growing);
      continue;
    }
    const item = items[index]!;
    if (!('item_id' in event)) {
      expect(event.item.id).to.equal(item.id);
      const { status, ...rest } = item;
      expect({ ...event.item, status }, 'the deltas make the item').to.deep.equal({
        ...rest,
        status,
        ...outcomeOf(event.item),
      });
      items[index] = event.item as unknown as Growing;
      done.add(index);
      continue;
    }
    expect(event.item_id).to.equal(item.id);
    switch (event.type) {
      case 'response.content_part.added':
        expect(event.content_index).to.equal(item.content.length);
        item.content.push(structuredClone(event.part) as unknown as Growing['content'][number]);
        break;
      case 'response.output_text.delta':
        expect(item.content[event.content_index]!.type).to.equal('output_text');
        item.content[event.content_index]!.text += event.delta;
        item.content[event.content_index]!.logprobs.push(...event.logprobs);
        break;
      case 'response.reasoning_text.delta':
        expect(item.content[event.content_index]!.type).to.equal('reasoning_text');
        item.content[event.content_index]!.text += event.delta;
        break;
      case 'response.output_text.done':
      case 'response.reasoning_text.done':
        expect(event.text).to.equal(item.content[event.content_index]!.text);
        break;
      case 'response.content_part.done':
        expect(event.part).to.deep.equal(item.content[event.content_index]);
        break;
      case 'response.function_call_arguments.delta':
      case 'response.mcp_call_arguments.delta':
        item.arguments += event.delta;
        break;
      case 'response.function_call_arguments.done':
        expect(event.name).to.equal(item.name);
        expect(event.arguments).to.equal(item.arguments);
        break;
      case 'response.mcp_call_arguments.done':
        expect(event.arguments).to.equal(item.arguments);
        break;
      default:
        expect(event.type).to.match(/^response\.mcp_(call|list_tools)\./);
        expect(event.type).to.include(item.type);
    }
  }
  expect(done.size).to.equal(items.length);
  return items;
}

/** What no delta carries. */
function outcomeOf(item: any): object {
  if (item.type === 'mcp_call') return { output: item.output, error: item.error };
  if (item.type === 'mcp_list_tools')
    return { tools: item.tools, ...(item.error === undefined ? {} : { error: item.error }) };
  return item.encrypted_content === undefined ? {} : { encrypted_content: item.encrypted_content };
}
