/** The events of a streamed response. A frame's `event:` line is the event's type. */

import type { ItemLogprob, OutputItem, OutputTextPart, ReasoningTextPart, RefusalPart } from './response-items.js';
import type { ResponseObject } from './response-object.js';

interface Numbered {
  /** From 0, one more each. */
  readonly sequence_number: number;
}

interface OfItem extends Numbered {
  readonly item_id: string;
  readonly output_index: number;
}

interface OfContent extends OfItem {
  readonly content_index: number;
}

/** The whole response as it is now. */
export interface ResponseStateEvent extends Numbered {
  readonly type:
    | 'response.created'
    | 'response.queued'
    | 'response.in_progress'
    | 'response.completed'
    | 'response.incomplete'
    | 'response.failed';
  readonly response: ResponseObject;
}

export interface OutputItemEvent extends Numbered {
  readonly type: 'response.output_item.added' | 'response.output_item.done';
  readonly output_index: number;
  readonly item: OutputItem;
}

export interface ContentPartEvent extends OfContent {
  readonly type: 'response.content_part.added' | 'response.content_part.done';
  readonly part: OutputTextPart | RefusalPart | ReasoningTextPart;
}

export interface OutputTextDeltaEvent extends OfContent {
  readonly type: 'response.output_text.delta';
  readonly delta: string;
  readonly logprobs: readonly ItemLogprob[];
}

export interface OutputTextDoneEvent extends OfContent {
  readonly type: 'response.output_text.done';
  readonly text: string;
  readonly logprobs: readonly ItemLogprob[];
}

export interface ReasoningTextDeltaEvent extends OfContent {
  readonly type: 'response.reasoning_text.delta';
  readonly delta: string;
}

export interface ReasoningTextDoneEvent extends OfContent {
  readonly type: 'response.reasoning_text.done';
  readonly text: string;
}

export interface ArgumentsDeltaEvent extends OfItem {
  readonly type: 'response.function_call_arguments.delta' | 'response.mcp_call_arguments.delta';
  readonly delta: string;
}

export interface FunctionArgumentsDoneEvent extends OfItem {
  readonly type: 'response.function_call_arguments.done';
  readonly name: string;
  readonly arguments: string;
}

export interface McpArgumentsDoneEvent extends OfItem {
  readonly type: 'response.mcp_call_arguments.done';
  readonly arguments: string;
}

export interface McpStateEvent extends OfItem {
  readonly type:
    | 'response.mcp_list_tools.in_progress'
    | 'response.mcp_list_tools.completed'
    | 'response.mcp_list_tools.failed'
    | 'response.mcp_call.in_progress'
    | 'response.mcp_call.completed'
    | 'response.mcp_call.failed';
}

export type ResponseEvent =
  | ResponseStateEvent
  | OutputItemEvent
  | ContentPartEvent
  | OutputTextDeltaEvent
  | OutputTextDoneEvent
  | ReasoningTextDeltaEvent
  | ReasoningTextDoneEvent
  | ArgumentsDeltaEvent
  | FunctionArgumentsDoneEvent
  | McpArgumentsDoneEvent
  | McpStateEvent;

const TYPES = {
  'response.created': true,
  'response.queued': true,
  'response.in_progress': true,
  'response.completed': true,
  'response.incomplete': true,
  'response.failed': true,
  'response.output_item.added': true,
  'response.output_item.done': true,
  'response.content_part.added': true,
  'response.content_part.done': true,
  'response.output_text.delta': true,
  'response.output_text.done': true,
  'response.reasoning_text.delta': true,
  'response.reasoning_text.done': true,
  'response.function_call_arguments.delta': true,
  'response.function_call_arguments.done': true,
  'response.mcp_list_tools.in_progress': true,
  'response.mcp_list_tools.completed': true,
  'response.mcp_list_tools.failed': true,
  'response.mcp_call.in_progress': true,
  'response.mcp_call_arguments.delta': true,
  'response.mcp_call_arguments.done': true,
  'response.mcp_call.completed': true,
  'response.mcp_call.failed': true,
} as const satisfies Readonly<Record<ResponseEvent['type'], true>>;

/** All that are ever sent. */
export const RESPONSE_EVENT_TYPES = Object.keys(TYPES) as readonly ResponseEvent['type'][];

const TERMINAL: ReadonlySet<string> = new Set(['response.completed', 'response.incomplete', 'response.failed']);

/** Whether nothing follows this event. */
export function isTerminalEvent(event: ResponseEvent): event is ResponseStateEvent {
  return TERMINAL.has(event.type);
}
