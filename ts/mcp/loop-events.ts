/** Everything that a tool loop says, in one union. `ts/responses` and chat's chunk machine are made of these. */

import type { ChatEvent, ChatMessage, ToolCallEvent } from '../chat/types.js';
import type { Timings, Usage } from '../engine/types.js';
import type { ApprovalRequest } from './approval.js';
import type { McpCallError } from '../protocol/response-items.js';
import type { McpProgress, McpToolInfo } from './tool.js';

/** What the model says besides calls of tools. */
export type ModelEvent = Exclude<ChatEvent, { readonly type: 'finished' } | ToolCallEvent>;

/**
 * The order: listings, one server after the other; the answered approvals' calls; then turns. A turn is `turn_started`,
 * the model's events, `turn_finished`, the ends of its calls in their order, its approval requests. The last event is
 * `finished`.
 *
 * `id` of a call is `mcp_…` and unique. Each call has one `mcp_call_started`, then either `mcp_call_arguments` and one of
 * `mcp_call_completed` and `mcp_call_failed`, or `mcp_call_incomplete`.
 */
export type ToolLoopEvent =
  | { readonly type: 'list_tools_started'; readonly serverLabel: string }
  /** `tools`: those that the request allows. */
  | { readonly type: 'list_tools_finished'; readonly serverLabel: string; readonly tools: readonly McpToolInfo[] }
  /** The loop goes on without this server. */
  | { readonly type: 'list_tools_failed'; readonly serverLabel: string; readonly error: McpCallError }
  /** From 0. */
  | { readonly type: 'turn_started'; readonly turn: number }
  | { readonly type: 'model'; readonly event: ModelEvent }
  /** A call of the client's own function, as the model writes it. Indices count the functions of one turn from 0. */
  | { readonly type: 'function_call'; readonly event: ToolCallEvent }
  | {
      readonly type: 'mcp_call_started';
      readonly id: string;
      readonly serverLabel: string;
      /** The tool's own name, not the model's. */
      readonly name: string;
      /** The approval that this call goes back to. */
      readonly approvalRequestId?: string;
    }
  | { readonly type: 'mcp_call_arguments_delta'; readonly id: string; readonly delta: string }
  /** A JSON string: all that was written. */
  | { readonly type: 'mcp_call_arguments'; readonly id: string; readonly arguments: string }
  | { readonly type: 'mcp_call_progress'; readonly id: string; readonly progress: McpProgress }
  | { readonly type: 'mcp_call_completed'; readonly id: string; readonly output: string }
  /** The model was told of it and goes on. */
  | { readonly type: 'mcp_call_failed'; readonly id: string; readonly error: McpCallError }
  /** The answer ended within the call's arguments; it was not run. */
  | { readonly type: 'mcp_call_incomplete'; readonly id: string }
  /** Nothing was run; the loop ends with the turn. */
  | { readonly type: 'approval_requested'; readonly request: ApprovalRequest }
  /** The user said no; the model was told. */
  | { readonly type: 'approval_denied'; readonly request: ApprovalRequest }
  | { readonly type: 'turn_finished'; readonly turn: number; readonly usage: Usage; readonly timings: Timings }
  | ToolLoopFinished;

export interface ToolLoopFinished {
  readonly type: 'finished';
  readonly reason: ToolLoopEnd;
  /** Over all turns. */
  readonly usage: Usage;
  readonly timings: Timings;
  /** Over all turns; unset where one was not counted. */
  readonly reasoningTokens?: number;
  /** What came after the request's messages, as a continued conversation would hold it. */
  readonly messages: readonly ChatMessage[];
}

export type ToolLoopEnd =
  /** The model has answered. */
  | 'stop'
  /** The answer was cut off. */
  | 'length'
  /** The client's functions are to be run (approvals may wait too). */
  | 'function_calls'
  /** Only approvals wait. */
  | 'approval'
  /** The last turn was given, and the model still called tools. */
  | 'max_turns';
