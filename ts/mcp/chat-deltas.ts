/**
 * What the server ran, as a chat completion shows it: `mcp_list_tools` and `mcp_calls` in a delta and in the message, built
 * like `tool_calls`. A list of objects with an `index` is what clients know to merge, and one that they do not know they
 * leave alone. `tool_calls` itself stays the client's: a call shown there would be run again by the client.
 */

import { type McpCallError } from './errors.js';
import type { ToolLoopEvent } from './loop-events.js';

/** One server's list: in one delta, whole. */
export interface ChatMcpList {
  readonly index: number;
  readonly server_label: string;
  /** Names of the tools that the model was offered. */
  readonly tools: readonly string[];
  readonly error?: McpCallError;
}

/** One call. In deltas: first id, type, server and name; then arguments, to be concatenated; then how it ended. */
export interface ChatMcpCallDelta {
  readonly index: number;
  readonly id?: string;
  readonly type?: 'mcp_call';
  readonly server_label?: string;
  readonly name?: string;
  readonly arguments?: string;
  readonly status?: 'completed' | 'failed' | 'incomplete';
  readonly output?: string;
  readonly error?: McpCallError;
}

export interface ChatMcpDelta {
  readonly mcp_list_tools?: readonly [ChatMcpList];
  readonly mcp_calls?: readonly [ChatMcpCallDelta];
}

/** The same in a message, whole. */
export interface ChatMcpMessage {
  readonly mcp_list_tools?: readonly ChatMcpList[];
  readonly mcp_calls?: readonly ChatMcpCallDelta[];
}

/** Makes the deltas of one answer and keeps their fold. */
export class ChatMcpDeltas {
  private readonly lists: ChatMcpList[] = [];
  private readonly calls: ChatMcpCallDelta[] = [];

  /** Undefined: nothing that a chat completion shows. */
  take(event: ToolLoopEvent): ChatMcpDelta | undefined {
    switch (event.type) {
      case 'list_tools_finished':
        return this.list({ server_label: event.serverLabel, tools: event.tools.map(({ name }) => name) });
      case 'list_tools_failed':
        return this.list({ server_label: event.serverLabel, tools: [], error: event.error });
      case 'mcp_call_started': {
        const { id, serverLabel: server_label, name } = event;
        const call = { index: this.calls.length, id, type: 'mcp_call', server_label, name, arguments: '' } as const;
        this.calls.push(call);
        return { mcp_calls: [call] };
      }
      case 'mcp_call_arguments_delta':
        return this.change(event.id, { arguments: event.delta });
      case 'mcp_call_completed':
        return this.change(event.id, { status: 'completed', output: event.output });
      case 'mcp_call_failed':
        return this.change(event.id, { status: 'failed', error: event.error });
      case 'mcp_call_incomplete':
        return this.change(event.id, { status: 'incomplete' });
      default:
        return undefined;
    }
  }

  /** Empty if no server was used. */
  get message(): ChatMcpMessage {
    return {
      ...(this.lists.length === 0 ? {} : { mcp_list_tools: this.lists }),
      ...(this.calls.length === 0 ? {} : { mcp_calls: this.calls }),
    };
  }

  private list(values: Omit<ChatMcpList, 'index'>): ChatMcpDelta {
    const list = { index: this.lists.length, ...values };
    this.lists.push(list);
    return { mcp_list_tools: [list] };
  }

  private change(id: string, values: Omit<ChatMcpCallDelta, 'index' | 'id'>): ChatMcpDelta | undefined {
    const index = this.calls.findIndex((call) => call.id === id);
    const call = this.calls[index];
    if (call === undefined) return undefined;
    const written = (call.arguments ?? '') + (values.arguments ?? '');
    this.calls[index] = { ...call, ...values, arguments: written };
    return { mcp_calls: [{ index, ...values }] };
  }
}
