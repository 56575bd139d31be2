/** One answer of the model, read event by event: what goes out at once, and which calls there are at its end. */

import type { ChatEvent, ChatMessage, FinishReason, ToolCall, ToolCallEvent } from '../chat/types.js';
import type { Timings, Usage } from '../engine/types.js';
import { callIdOfApproval } from './approval.js';
import type { ToolLoopEvent } from './loop-events.js';
import type { OfferedTool } from './naming.js';

export interface TurnCall {
  /** `mcp_…`, or the model's own for a function. */
  readonly id: string;
  /** The model's name for it. */
  readonly name: string;
  readonly kind:
    | { readonly type: 'mcp'; readonly offered: OfferedTool }
    /** Held back; `id` is the call that the approval would lead to. */
    | { readonly type: 'approval'; readonly offered: OfferedTool; readonly requestId: string }
    /** The client's; `index` counts these alone. */
    | { readonly type: 'function'; readonly index: number }
    /** Of a tool that was not offered. */
    | { readonly type: 'unknown' };
  arguments: string;
  done: boolean;
}

export interface TurnContext {
  readonly isFunction: (name: string) => boolean;
  /** Undefined also for tools that may not be used now. */
  readonly offered: (name: string) => OfferedTool | undefined;
  /** A fresh suffix for ids. */
  readonly newId: () => string;
}

export interface TurnEnd {
  readonly reason: FinishReason;
  readonly usage: Usage;
  readonly timings: Timings;
}

export class Turn {
  readonly calls: TurnCall[] = [];
  end: TurnEnd | undefined;
  private text = '';
  private reasoning = '';
  private readonly byIndex = new Map<number, TurnCall>();

  constructor(private readonly context: TurnContext) {}

  /** What the outside hears of an event. */
  take(event: ChatEvent | ToolCallEvent): readonly ToolLoopEvent[] {
    switch (event.type) {
      case 'tool_call':
        return this.begin(event);
      case 'tool_call_arguments':
        return this.write(event);
      case 'tool_call_done':
        return this.close(event);
      case 'finished':
        this.end = { reason: event.reason, usage: event.usage, timings: event.timings };
        return [];
      case 'content':
        this.text += event.text;
        return [{ type: 'model', event }];
      case 'reasoning':
        this.reasoning += event.text;
        return [{ type: 'model', event }];
      default:
        return [{ type: 'model', event }];
    }
  }

  /** The answer as a message of the conversation. Calls that were cut off are not part of it. */
  get message(): ChatMessage {
    const toolCalls: ToolCall[] = this.calls
      .filter(({ done }) => done)
      .map((call) => ({ id: call.id, name: call.name, arguments: call.arguments }));
    return {
      role: 'assistant',
      content: this.text === '' && toolCalls.length > 0 ? null : this.text,
      ...(this.reasoning === '' ? {} : { reasoning: this.reasoning }),
      ...(toolCalls.length === 0 ? {} : { toolCalls }),
    };
  }

  private begin(event: Extract<ToolCallEvent, { type: 'tool_call' }>): ToolLoopEvent[] {
    const call = this.newCall(event);
    this.calls.push(call);
    this.byIndex.set(event.index, call);
    const { kind } = call;
    if (kind.type === 'function') return [{ type: 'function_call', event: { ...event, index: kind.index } }];
    if (kind.type !== 'mcp') return [];
    const { server, tool } = kind.offered;
    return [{ type: 'mcp_call_started', id: call.id, serverLabel: server.label, name: tool.name }];
  }

  private newCall({ id, name }: Extract<ToolCallEvent, { type: 'tool_call' }>): TurnCall {
    const { isFunction, offered, newId } = this.context;
    const fresh = { name, arguments: '', done: false };
    if (isFunction(name)) {
      const index = this.calls.filter(({ kind }) => kind.type === 'function').length;
      return { ...fresh, id, kind: { type: 'function', index } };
    }
    const tool = offered(name);
    if (tool === undefined) return { ...fresh, id, kind: { type: 'unknown' } };
    if (!tool.needsApproval) return { ...fresh, id: `mcp_${newId()}`, kind: { type: 'mcp', offered: tool } };
    const requestId = `mcpr_${newId()}`;
    return { ...fresh, id: callIdOfApproval(requestId), kind: { type: 'approval', offered: tool, requestId } };
  }

  private write(event: Extract<ToolCallEvent, { type: 'tool_call_arguments' }>): ToolLoopEvent[] {
    const call = this.byIndex.get(event.index);
    if (call === undefined) return [];
    call.arguments += event.delta;
    if (call.kind.type === 'function') return [{ type: 'function_call', event: { ...event, index: call.kind.index } }];
    return call.kind.type === 'mcp' ? [{ type: 'mcp_call_arguments_delta', id: call.id, delta: event.delta }] : [];
  }

  private close(event: Extract<ToolCallEvent, { type: 'tool_call_done' }>): ToolLoopEvent[] {
    const call = this.byIndex.get(event.index);
    if (call === undefined) return [];
    call.done = true;
    if (call.kind.type === 'function') return [{ type: 'function_call', event: { ...event, index: call.kind.index } }];
    return call.kind.type === 'mcp' ? [{ type: 'mcp_call_arguments', id: call.id, arguments: call.arguments }] : [];
  }
}
