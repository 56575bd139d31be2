/** Tool calls put together from their deltas. */

import type { ChatEvent, ToolCall, ToolCallEvent } from './types.js';

export function isToolCallEvent(event: ChatEvent): event is ToolCallEvent {
  return event.type === 'tool_call' || event.type === 'tool_call_arguments' || event.type === 'tool_call_done';
}

export class ToolCallFold {
  private readonly calls: { readonly id: string; readonly name: string; arguments: string; done: boolean }[] = [];

  push(event: ToolCallEvent): void {
    if (event.type === 'tool_call') {
      this.calls[event.index] = { id: event.id, name: event.name, arguments: '', done: false };
      return;
    }
    const call = this.calls[event.index];
    if (call === undefined) throw new RangeError(`tool call ${event.index} has not begun`);
    if (event.type === 'tool_call_done') call.done = true;
    else call.arguments += event.delta;
  }

  /** The calls that are complete, in order. */
  get whole(): ToolCall[] {
    return this.calls
      .filter(({ done }) => done)
      .map(({ id, name, arguments: json }) => ({ id, name, arguments: json }));
  }
}
