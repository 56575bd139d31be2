/** One answer of the model, read event by event: what goes out at once, and which calls there are at its end. */

import type { ChatEvent, ChatMessage, FinishReason, ToolCall, ToolCallEvent } from '../chat/types.js';
import type { Timings, Usage } from '../engine/types.js';
import { callIdOfApproval } from './approval.js';
import type { ToolLoopEvent } from './loop-events.js';
import type { CallKind } from './tool-session.js';

export interface TurnCall {
  /** `mcp_…`, or the model's own for a function. */
  readonly id: string;
  /** The model's name for it. */
  readonly name: string;
  readonly kind:
    | Extract<CallKind, { readonly type: 'mcp' | 'unknown' }>
    /** `id` is the call that the approval would lead to. */
    | (Extract<CallKind, { readonly type: 'approval' }> & { readonly requestId: string })
    /** `index` counts these alone. */
    | (Extract<CallKind, { readonly type: 'function' }> & { readonly index: number });
  arguments: string;
  done: boolean;
}

export interface TurnContext {
  readonly kindOf: (name: string) => CallKind;
  /** A fresh suffix for ids. */
  readonly newId: () => string;
}

export interface TurnEnd {
  readonly reason: FinishReason;
  readonly usage: Usage;
  readonly timings: Timings;
  readonly reasoningTokens: number | undefined;
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
        this.end = {
          reason: event.reason,
          usage: event.usage,
          timings: event.timings,
          reasoningTokens: event.reasoningTokens,
        };
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
    const fresh = { name, arguments: '', done: false };
    const kind = this.context.kindOf(name);
    switch (kind.type) {
      case 'function': {
        const index = this.calls.filter((call) => call.kind.type === 'function').length;
        return { ...fresh, id, kind: { ...kind, index } };
      }
      case 'unknown':
        return { ...fresh, id, kind };
      case 'mcp':
        return { ...fresh, id: `mcp_${this.context.newId()}`, kind };
      case 'approval': {
        const requestId = `mcpr_${this.context.newId()}`;
        return { ...fresh, id: callIdOfApproval(requestId), kind: { ...kind, requestId } };
      }
    }
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
