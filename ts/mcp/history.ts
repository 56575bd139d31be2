/**
 * Earlier MCP calls in a conversation.
 *
 * Under which names the model is offered the tools is known only once the servers were listed. Whoever makes messages of
 * earlier items writes `historyName(label, tool)` where a tool's name belongs; the loop puts the name of the day there.
 */

import type { ChatMessage, ToolCall } from '../chat/types.js';
import { prefixedName, type ToolCatalog } from './naming.js';

/** No function can have such a name: it holds a control character. */
const MARK = '\u0000mcp\u0000';

export function historyName(label: string, tool: string): string {
  return `${MARK}${label}\u0000${tool}`;
}

/** Puts names of the catalog in place of marks. A tool that is no longer there keeps a readable name. */
export function withCurrentNames(messages: readonly ChatMessage[], catalog: ToolCatalog): ChatMessage[] {
  const current = (name: string): string => {
    if (!name.startsWith(MARK)) return name;
    const [label = '', tool = ''] = name.slice(MARK.length).split('\u0000');
    return catalog.find(label, tool)?.name ?? prefixedName(label, tool).slice(0, 64);
  };
  return messages.map((message) => ({
    ...message,
    ...(message.name === undefined ? {} : { name: current(message.name) }),
    ...(message.toolCalls === undefined
      ? {}
      : { toolCalls: message.toolCalls.map((call) => ({ ...call, name: current(call.name) })) }),
  }));
}

export interface CallResult {
  readonly call: ToolCall;
  readonly content: string;
}

/**
 * Puts a result behind each call: after the assistant message that made it and the results that are there already. A call
 * that no message holds gets a message of its own at the end.
 */
export function withResults(messages: readonly ChatMessage[], results: readonly CallResult[]): ChatMessage[] {
  const whole = [...messages];
  const homeless = results.filter(({ call, content }) => {
    const at = whole.findIndex(({ toolCalls }) => toolCalls?.some(({ id }) => id === call.id) === true);
    if (at < 0) return true;
    let end = at + 1;
    while (whole[end]?.role === 'tool') end++;
    whole.splice(end, 0, toolMessage(call, content));
    return false;
  });
  if (homeless.length === 0) return whole;
  return [
    ...whole,
    { role: 'assistant', content: null, toolCalls: homeless.map(({ call }) => call) },
    ...homeless.map(({ call, content }) => toolMessage(call, content)),
  ];
}

/** The calls of earlier servers' tools that never got a result: the user went on without answering. */
export function unansweredCalls(messages: readonly ChatMessage[]): ToolCall[] {
  const answered = new Set(messages.map(({ toolCallId }) => toolCallId));
  return messages
    .flatMap(({ toolCalls }) => toolCalls ?? [])
    .filter(({ id, name }) => name.startsWith(MARK) && !answered.has(id));
}

export function toolMessage(call: ToolCall, content: string): ChatMessage {
  return { role: 'tool', name: call.name, toolCallId: call.id, content };
}
