/** Output items that are still growing, and the events of their growth. Numbers come from the machine. */

import type { TokenInfo } from '../engine/types.js';
import { toWireLogprob } from '../chat/wire-usage.js';
import type { ResponseEvent } from '../protocol/response-events.js';
import type {
  FunctionCallItem,
  ItemLogprob,
  ItemStatus,
  McpCallError,
  McpCallItem,
  MessageItem,
  OutputItem,
  OutputTextPart,
  ReasoningItem,
  WithId,
} from '../protocol/response-items.js';

/** An event without its number. */
export type Unnumbered = ResponseEvent extends infer E
  ? E extends ResponseEvent
    ? Omit<E, 'sequence_number'>
    : never
  : never;

export type EndStatus = Exclude<ItemStatus, 'in_progress'>;

/** One item between `added` and `done`. `item` is a value: it is replaced, never changed. */
export interface OpenItem {
  readonly id: string;
  /** As it would be shown now. */
  readonly item: OutputItem;
  /** Events after `output_item.added`. */
  opened(): Unnumbered[];
  /** Events before `output_item.done`; `item` is final afterwards. */
  closed(status: EndStatus): Unnumbered[];
}

export class OpenMessage implements OpenItem {
  private text = '';
  private readonly logprobs: ItemLogprob[] = [];
  private hasPart = false;
  private status: ItemStatus = 'in_progress';
  private readonly at;

  constructor(
    readonly id: string,
    index: number,
  ) {
    this.at = { item_id: id, output_index: index, content_index: 0 };
  }

  get item(): WithId<MessageItem> {
    const content = this.hasPart ? [this.part()] : [];
    return { id: this.id, type: 'message', status: this.status, role: 'assistant', content };
  }

  opened(): Unnumbered[] {
    this.hasPart = true;
    return [{ type: 'response.content_part.added', ...this.at, part: this.part() }];
  }

  append(delta: string, tokens: readonly TokenInfo[] | undefined): Unnumbered[] {
    const logprobs = (tokens ?? []).map(toLogprob);
    if (delta === '' && logprobs.length === 0) return [];
    this.text += delta;
    this.logprobs.push(...logprobs);
    return [{ type: 'response.output_text.delta', ...this.at, delta, logprobs }];
  }

  closed(status: EndStatus): Unnumbered[] {
    this.status = status;
    const part = this.part();
    return [
      { type: 'response.output_text.done', ...this.at, text: part.text, logprobs: part.logprobs },
      { type: 'response.content_part.done', ...this.at, part },
    ];
  }

  private part(): OutputTextPart {
    return { type: 'output_text', text: this.text, annotations: [], logprobs: [...this.logprobs] };
  }
}

export class OpenReasoning implements OpenItem {
  private text = '';
  private hasPart = false;
  private status: ItemStatus = 'in_progress';
  private readonly at;

  /** @param encode what goes into `encrypted_content`; undefined: nothing does */
  constructor(
    readonly id: string,
    index: number,
    private readonly encode: ((text: string) => string) | undefined,
  ) {
    this.at = { item_id: id, output_index: index, content_index: 0 };
  }

  get item(): WithId<ReasoningItem> {
    const { encode, text, status } = this;
    return {
      id: this.id,
      type: 'reasoning',
      summary: [],
      content: this.hasPart ? [{ type: 'reasoning_text', text }] : [],
      ...(encode === undefined ? {} : { encrypted_content: status === 'in_progress' ? '' : encode(text) }),
      status,
    };
  }

  opened(): Unnumbered[] {
    this.hasPart = true;
    return [{ type: 'response.content_part.added', ...this.at, part: { type: 'reasoning_text', text: '' } }];
  }

  append(delta: string): Unnumbered[] {
    if (delta === '') return [];
    this.text += delta;
    return [{ type: 'response.reasoning_text.delta', ...this.at, delta }];
  }

  closed(status: EndStatus): Unnumbered[] {
    this.status = status;
    const { text } = this;
    return [
      { type: 'response.reasoning_text.done', ...this.at, text },
      { type: 'response.content_part.done', ...this.at, part: { type: 'reasoning_text', text } },
    ];
  }
}

/** A call that the model is writing, of a function (the client runs it) or of an MCP tool (the server runs it). */
export interface OpenCall extends OpenItem {
  append(delta: string): Unnumbered[];
  /** The arguments are whole. */
  whole(): Unnumbered[];
}

export class OpenFunctionCall implements OpenCall {
  private args = '';
  private isWhole = false;
  private status: ItemStatus = 'in_progress';
  private readonly at;

  constructor(
    readonly id: string,
    index: number,
    private readonly callId: string,
    private readonly name: string,
  ) {
    this.at = { item_id: id, output_index: index };
  }

  get item(): WithId<FunctionCallItem> {
    const { id, status, callId, name, args } = this;
    return { id, type: 'function_call', status, call_id: callId, name, arguments: args };
  }

  opened(): Unnumbered[] {
    return [];
  }

  append(delta: string): Unnumbered[] {
    if (delta === '') return [];
    this.args += delta;
    return [{ type: 'response.function_call_arguments.delta', ...this.at, delta }];
  }

  whole(): Unnumbered[] {
    this.isWhole = true;
    return [{ type: 'response.function_call_arguments.done', ...this.at, name: this.name, arguments: this.args }];
  }

  /** A call that was cut off gets no `arguments.done`: a client that acts on it would act on half a call. */
  closed(status: EndStatus): Unnumbered[] {
    this.status = this.isWhole ? status : 'incomplete';
    return [];
  }
}

export interface McpOutcome {
  readonly output?: string;
  readonly error?: McpCallError;
}

export class OpenMcpCall implements OpenCall {
  private args = '';
  private isWhole = false;
  private status: McpCallItem['status'] = 'in_progress';
  private outcome: McpOutcome | undefined;
  private readonly at;

  constructor(
    readonly id: string,
    index: number,
    private readonly tool: { readonly serverLabel: string; readonly name: string },
    private readonly approvalRequestId: string | null,
  ) {
    this.at = { item_id: id, output_index: index };
  }

  get item(): WithId<McpCallItem> {
    return {
      id: this.id,
      type: 'mcp_call',
      status: this.status,
      server_label: this.tool.serverLabel,
      name: this.tool.name,
      arguments: this.args,
      output: this.outcome?.output ?? null,
      error: this.outcome?.error ?? null,
      approval_request_id: this.approvalRequestId,
    };
  }

  opened(): Unnumbered[] {
    return [{ type: 'response.mcp_call.in_progress', ...this.at }];
  }

  append(delta: string): Unnumbered[] {
    if (delta === '') return [];
    this.args += delta;
    return [{ type: 'response.mcp_call_arguments.delta', ...this.at, delta }];
  }

  whole(): Unnumbered[] {
    this.isWhole = true;
    return [{ type: 'response.mcp_call_arguments.done', ...this.at, arguments: this.args }];
  }

  /** What the tool answered, before `closed`. */
  answered(outcome: McpOutcome): void {
    this.outcome = outcome;
  }

  /** Without an answer the call is left incomplete. */
  closed(): Unnumbered[] {
    if (this.outcome === undefined || !this.isWhole) {
      this.status = 'incomplete';
      return [];
    }
    const failed = this.outcome.error !== undefined;
    this.status = failed ? 'failed' : 'completed';
    return [{ type: failed ? 'response.mcp_call.failed' : 'response.mcp_call.completed', ...this.at }];
  }
}

function toLogprob(token: TokenInfo): ItemLogprob {
  return {
    token: token.text,
    logprob: toWireLogprob(token.logprob),
    bytes: token.bytes,
    top_logprobs: (token.top ?? []).map((other) => ({
      token: other.text,
      logprob: toWireLogprob(other.logprob),
      bytes: other.bytes,
    })),
  };
}
