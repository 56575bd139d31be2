/** The items of the Responses API, in and out, as they go over the wire. */

import type { JsonObject } from './fields.js';

export type ItemStatus = 'in_progress' | 'completed' | 'incomplete';

export interface InputTextPart {
  readonly type: 'input_text';
  readonly text: string;
}

export interface InputImagePart {
  readonly type: 'input_image';
  /** http(s) or data URL, as it came. */
  readonly image_url: string;
  readonly detail: 'auto' | 'low' | 'high' | 'original';
}

export interface ItemTokenLogprob {
  readonly token: string;
  readonly logprob: number;
  readonly bytes: readonly number[];
}

export interface ItemLogprob extends ItemTokenLogprob {
  readonly top_logprobs: readonly ItemTokenLogprob[];
}

export interface OutputTextPart {
  readonly type: 'output_text';
  readonly text: string;
  /** Always empty: local models cite nothing. */
  readonly annotations: readonly JsonObject[];
  readonly logprobs: readonly ItemLogprob[];
}

export interface RefusalPart {
  readonly type: 'refusal';
  readonly refusal: string;
}

export interface ReasoningTextPart {
  readonly type: 'reasoning_text';
  readonly text: string;
}

export interface SummaryTextPart {
  readonly type: 'summary_text';
  readonly text: string;
}

export type MessagePart = InputTextPart | InputImagePart | OutputTextPart | RefusalPart;

/** Items that came without an id get one when they are stored. */
interface Item {
  readonly id?: string;
}

export interface MessageItem extends Item {
  readonly type: 'message';
  readonly role: 'user' | 'assistant' | 'system' | 'developer';
  readonly status: ItemStatus;
  /** An assistant's holds output_text and refusal parts, the others' input parts. */
  readonly content: readonly MessagePart[];
}

export interface FunctionCallItem extends Item {
  readonly type: 'function_call';
  readonly call_id: string;
  readonly name: string;
  /** A JSON string; cut off where the status is `incomplete`. */
  readonly arguments: string;
  readonly status: ItemStatus;
}

export interface FunctionCallOutputItem extends Item {
  readonly type: 'function_call_output';
  readonly call_id: string;
  readonly output: string | readonly (InputTextPart | InputImagePart)[];
  readonly status: ItemStatus;
}

export interface ReasoningItem extends Item {
  readonly type: 'reasoning';
  readonly summary: readonly SummaryTextPart[];
  readonly content?: readonly ReasoningTextPart[];
  readonly encrypted_content?: string | null;
  readonly status?: ItemStatus;
}

/** Stands for an item that is stored. */
export interface ItemReference {
  readonly type: 'item_reference';
  readonly id: string;
}

/** `description` and `annotations` are left out where there are none: some clients refuse null. */
export interface McpListedTool {
  readonly name: string;
  readonly input_schema: JsonObject;
  readonly description?: string;
  readonly annotations?: JsonObject;
}

export interface McpListToolsItem extends Item {
  readonly type: 'mcp_list_tools';
  readonly server_label: string;
  readonly tools: readonly McpListedTool[];
  readonly error?: string;
}

export type McpCallError =
  | { readonly type: 'mcp_protocol_error' | 'http_error'; readonly code: number; readonly message: string }
  | { readonly type: 'mcp_tool_execution_error'; readonly content: readonly JsonObject[] };

export interface McpCallItem extends Item {
  readonly type: 'mcp_call';
  readonly server_label: string;
  readonly name: string;
  readonly arguments: string;
  readonly output: string | null;
  /** Older clients send a string. */
  readonly error: McpCallError | JsonObject | string | null;
  readonly status: ItemStatus | 'calling' | 'failed';
  readonly approval_request_id: string | null;
}

export interface McpApprovalRequestItem extends Item {
  readonly type: 'mcp_approval_request';
  readonly server_label: string;
  readonly name: string;
  readonly arguments: string;
}

export interface McpApprovalResponseItem extends Item {
  readonly type: 'mcp_approval_response';
  readonly approval_request_id: string;
  readonly approve: boolean;
  readonly reason?: string;
}

/** Older items in one: only the server that made it can read it. */
export interface CompactionItem extends Item {
  readonly type: 'compaction';
  readonly encrypted_content: string;
}

/** What can stand in a conversation. */
export type ContextItem =
  | MessageItem
  | FunctionCallItem
  | FunctionCallOutputItem
  | ReasoningItem
  | McpListToolsItem
  | McpCallItem
  | McpApprovalRequestItem
  | McpApprovalResponseItem
  | CompactionItem;

export type InputItem = ContextItem | ItemReference;

export type WithId<T> = T & { readonly id: string };

export type StoredItem = WithId<ContextItem>;

/** What an answer consists of. */
export type OutputItem = WithId<
  MessageItem | FunctionCallItem | ReasoningItem | McpListToolsItem | McpCallItem | McpApprovalRequestItem
>;
