/**
 * Chat events → the events of a response. The sole owner of `sequence_number`, `output_index` and item ids.
 *
 * One machine is one response, which may take several turns of the model: `start`, then per turn `push` of everything
 * the model says (the last being `finished`), between turns the items of whoever runs tools (`listedTools`, `openMcpCall`,
 * `mcpAnswered`, `approvalRequest`), then one of `finish`, `fail`, `cancel`. Every method answers with the events it
 * caused, in order. Events and snapshots are values: nothing in them changes afterwards.
 */

import type { ChatEvent, FinishReason, ToolCallEvent } from '../chat/types.js';
import type { Usage } from '../engine/types.js';
import type { ResponseEvent } from '../protocol/response-events.js';
import type { McpListedTool, OutputItem } from '../protocol/response-items.js';
import {
  isTerminal,
  type ResponseEcho,
  type ResponseError,
  type ResponseObject,
  type ResponseStatus,
  type ResponseUsage,
} from '../protocol/response-object.js';
import { type NewId, newId } from './ids.js';
import {
  type EndStatus,
  type McpOutcome,
  type OpenCall,
  OpenFunctionCall,
  type OpenItem,
  OpenMcpCall,
  OpenMessage,
  OpenReasoning,
  type Unnumbered,
} from './open-items.js';

export type ModelEvent = ChatEvent | ToolCallEvent;

/** How a call of that name is shown. */
export type CallRoute =
  /** The client runs it: a `function_call` item. */
  | { readonly kind: 'function' }
  /** The server runs it: an `mcp_call` item, open until `mcpAnswered`. */
  | { readonly kind: 'mcp'; readonly serverLabel: string; readonly name: string }
  /** Someone has to agree first: an `mcp_approval_request` item. */
  | { readonly kind: 'approval'; readonly serverLabel: string; readonly name: string };

/** A whole call of a finished turn. */
export interface TurnCall {
  readonly route: CallRoute;
  /** Id of its item; for `function`, `callId` is what its output will name. */
  readonly itemId: string;
  readonly callId: string;
  /** As the model wrote it. */
  readonly name: string;
  readonly arguments: string;
}

/** What a turn of the model came to. */
export interface Turn {
  readonly reason: FinishReason;
  readonly reasoning: string;
  readonly content: string;
  /** In the order they were begun; calls that were cut off are not among them. */
  readonly calls: readonly TurnCall[];
}

export interface MachineOptions {
  readonly id: string;
  /** Unix seconds. */
  readonly createdAt: number;
  readonly echo: ResponseEcho;
  /** @default every call is a function's */
  readonly route?: (name: string) => CallRoute;
  /** Text of reasoning → `encrypted_content`. @default there is none */
  readonly encodeReasoning?: (text: string) => string;
  /** Unix seconds; for tests. */
  readonly now?: () => number;
  readonly newId?: NewId;
}

interface Slot {
  readonly index: number;
  readonly open: OpenItem;
}

/** A call under way: `slot` is undefined for those that are shown only when whole. */
interface CallState {
  readonly route: CallRoute;
  readonly callId: string;
  readonly name: string;
  readonly slot: (Slot & { readonly open: OpenCall }) | undefined;
  args: string;
  done?: TurnCall;
}

export class ResponseMachine {
  private sequence = 0;
  private status: ResponseStatus = 'in_progress';
  /** By output_index; the value of an open item is made when it is looked at. */
  private readonly output: (OutputItem | undefined)[] = [];
  private readonly open = new Map<number, OpenItem>();
  private readonly newId: NewId;
  private echo: ResponseEcho;
  private completedAt: number | null = null;
  private error: ResponseError | null = null;
  private incomplete: ResponseObject['incomplete_details'] = null;
  private counts = { input: 0, cached: 0, output: 0, reasoning: 0 };

  private text: (Slot & { readonly open: OpenMessage | OpenReasoning }) | undefined;
  private calls = new Map<number, CallState>();
  private said = { reasoning: '', content: '' };
  private itemsBeforeTurn = 0;
  private ended: Turn | undefined;
  /** The terminal event is out. */
  private sealed = false;

  constructor(private readonly options: MachineOptions) {
    this.newId = options.newId ?? newId;
    this.echo = options.echo;
  }

  get id(): string {
    return this.options.id;
  }

  /** What the last turn came to, once it has finished. */
  get turn(): Turn | undefined {
    return this.ended;
  }

  get isTerminal(): boolean {
    return isTerminal(this.status);
  }

  /** Input and output tokens so far, as the engine counts them. */
  get usage(): Usage {
    return {
      promptTokens: this.counts.input,
      cachedTokens: this.counts.cached,
      completionTokens: this.counts.output,
    };
  }

  get snapshot(): ResponseObject {
    const { id, createdAt } = this.options;
    return {
      id,
      object: 'response',
      created_at: createdAt,
      completed_at: this.completedAt,
      status: this.status,
      error: this.error,
      incomplete_details: this.incomplete,
      ...this.echo,
      output: this.output.map((item, index) => item ?? (this.open.get(index) as OpenItem).item),
      usage: this.isTerminal ? this.wireUsage() : null,
    };
  }

  /** What is known once the model is there: its defaults. Events that are out keep what they said. */
  describe(echo: ResponseEcho): void {
    this.echo = echo;
  }

  /** The response is there, and waits. `start` follows. */
  queue(): ResponseEvent[] {
    this.status = 'queued';
    return this.numbered([this.state('response.created'), this.state('response.queued')]);
  }

  start(): ResponseEvent[] {
    const isNew = this.sequence === 0;
    this.status = 'in_progress';
    const events = [this.state('response.in_progress')];
    return this.numbered(isNew ? [this.state('response.created'), ...events] : events);
  }

  /**
   * What the model says. The first event after `finished` begins another turn.
   * @param reasoningTokens with `finished`: how many of the turn's tokens were reasoning
   */
  push(event: ModelEvent, reasoningTokens = 0): ResponseEvent[] {
    if (this.ended !== undefined) this.beginTurn();
    switch (event.type) {
      case 'started':
      case 'prefill':
        return [];
      case 'reasoning':
        this.said.reasoning += event.text;
        return this.numbered(this.reason(event.text));
      case 'content':
        this.said.content += event.text;
        return this.numbered(this.speak(event));
      case 'tool_call':
        return this.numbered(this.beginCall(event));
      case 'tool_call_arguments':
        return this.numbered(this.continueCall(event));
      case 'tool_call_done':
        return this.numbered(this.endCall(event.index));
      case 'finished':
        return this.numbered(this.endTurn(event.reason, event.usage, reasoningTokens));
    }
  }

  /** An `mcp_list_tools` item: what a server offers, or why it offers nothing. */
  listedTools(serverLabel: string, tools: readonly McpListedTool[], error?: string): ResponseEvent[] {
    const id = this.newId('mcpl');
    const base = { id, type: 'mcp_list_tools', server_label: serverLabel } as const;
    const at = { item_id: id, output_index: this.output.length };
    return this.numbered([
      this.add({ ...base, tools: [] }),
      { type: 'response.mcp_list_tools.in_progress', ...at },
      { type: error === undefined ? 'response.mcp_list_tools.completed' : 'response.mcp_list_tools.failed', ...at },
      this.done(at.output_index, { ...base, tools, ...(error === undefined ? {} : { error }) }),
    ]);
  }

  /**
   * An `mcp_call` that no turn of this response wrote: one that was approved. It is open until `mcpAnswered`.
   * @returns its events and its item's id
   */
  openMcpCall(call: {
    readonly serverLabel: string;
    readonly name: string;
    readonly arguments: string;
    readonly approvalRequestId: string;
  }): { readonly itemId: string; readonly events: ResponseEvent[] } {
    const itemId = this.newId('mcp');
    const item = new OpenMcpCall(itemId, this.output.length, call, call.approvalRequestId);
    const { events } = this.begin(item);
    return { itemId, events: this.numbered([...events, ...item.append(call.arguments), ...item.whole()]) };
  }

  /**
   * The tool has answered, or could not.
   * @throws TypeError if no such call is open
   */
  mcpAnswered(itemId: string, outcome: McpOutcome): ResponseEvent[] {
    for (const [index, item] of this.open) {
      if (item.id !== itemId || !(item instanceof OpenMcpCall)) continue;
      item.answered(outcome);
      return this.numbered(this.close({ index, open: item }, 'completed'));
    }
    throw new TypeError(`no MCP call ${itemId} is open`);
  }

  /** The end, by what the last turn came to. Items that are still open stay incomplete. */
  finish(): ResponseEvent[] {
    const cut = this.ended?.reason === 'length';
    const events = this.closeAll('incomplete');
    this.status = cut ? 'incomplete' : 'completed';
    this.incomplete = cut ? { reason: 'max_output_tokens' } : null;
    return this.end(events, cut ? 'response.incomplete' : 'response.completed');
  }

  fail(error: ResponseError): ResponseEvent[] {
    const events = this.closeAll('incomplete');
    this.status = 'failed';
    this.error = error;
    return this.end(events, 'response.failed');
  }

  /** OpenAI has no event for it: the stream ends with `response.incomplete`, whose response is `cancelled`. */
  cancel(): ResponseEvent[] {
    const events = this.closeAll('incomplete');
    this.status = 'cancelled';
    return this.end(events, 'response.incomplete');
  }

  private end(
    events: Unnumbered[],
    type: 'response.completed' | 'response.incomplete' | 'response.failed',
  ): ResponseEvent[] {
    if (type === 'response.completed') this.completedAt = (this.options.now ?? unixSeconds)();
    return this.numbered([...events, this.state(type)]);
  }

  private beginTurn(): void {
    this.ended = undefined;
    this.calls = new Map();
    this.said = { reasoning: '', content: '' };
    this.itemsBeforeTurn = this.output.length;
  }

  private endTurn(reason: FinishReason, usage: Usage, reasoningTokens: number): Unnumbered[] {
    this.counts = {
      input: this.counts.input + usage.promptTokens,
      cached: this.counts.cached + usage.cachedTokens,
      output: this.counts.output + usage.completionTokens,
      reasoning: this.counts.reasoning + reasoningTokens,
    };
    const events: Unnumbered[] = [];
    // Nothing at all was said: clients look for a message.
    if (reason !== 'length' && this.output.length === this.itemsBeforeTurn && this.calls.size === 0) {
      events.push(...this.message().events);
    }
    const calls = [...this.calls.values()];
    events.push(...this.closeText(reason === 'length' ? 'incomplete' : 'completed'));
    for (const { slot, done } of calls) {
      if (slot !== undefined && done === undefined) events.push(...this.close(slot, 'incomplete'));
    }
    const whole = calls.map(({ done }) => done).filter((call) => call !== undefined);
    this.ended = { reason, ...this.said, calls: whole };
    return events;
  }

  private reason(text: string): Unnumbered[] {
    if (text === '') return [];
    const { open, events } = this.reasoning();
    return [...events, ...open.append(text)];
  }

  private speak({ text, tokens }: Extract<ChatEvent, { type: 'content' }>): Unnumbered[] {
    if (text === '' && (tokens ?? []).length === 0) return [];
    const { open, events } = this.message();
    return [...events, ...open.append(text, tokens)];
  }

  private message(): { open: OpenMessage; events: Unnumbered[] } {
    if (this.text?.open instanceof OpenMessage) return { open: this.text.open, events: [] };
    const before = this.closeText('completed');
    const open = new OpenMessage(this.newId('msg'), this.output.length);
    const { slot, events } = this.begin(open);
    this.text = { ...slot, open };
    return { open, events: [...before, ...events] };
  }

  private reasoning(): { open: OpenReasoning; events: Unnumbered[] } {
    if (this.text?.open instanceof OpenReasoning) return { open: this.text.open, events: [] };
    const before = this.closeText('completed');
    const open = new OpenReasoning(this.newId('rs'), this.output.length, this.options.encodeReasoning);
    const { slot, events } = this.begin(open);
    this.text = { ...slot, open };
    return { open, events: [...before, ...events] };
  }

  private beginCall({ index, id, name }: Extract<ToolCallEvent, { type: 'tool_call' }>): Unnumbered[] {
    const events = this.closeText('completed');
    const route = this.options.route?.(name) ?? { kind: 'function' };
    const callId = id.startsWith('call_') ? id : this.newId('call');
    const open =
      route.kind === 'function'
        ? new OpenFunctionCall(this.newId('fc'), this.output.length, callId, name)
        : route.kind === 'mcp'
          ? new OpenMcpCall(this.newId('mcp'), this.output.length, route, null)
          : undefined;
    if (open === undefined) {
      this.calls.set(index, { route, callId, name, slot: undefined, args: '' });
      return events;
    }
    const begun = this.begin(open);
    this.calls.set(index, { route, callId, name, slot: { ...begun.slot, open }, args: '' });
    return [...events, ...begun.events];
  }

  private continueCall({ index, delta }: Extract<ToolCallEvent, { type: 'tool_call_arguments' }>): Unnumbered[] {
    const call = this.callAt(index);
    call.args += delta;
    return call.slot?.open.append(delta) ?? [];
  }

  private endCall(index: number): Unnumbered[] {
    const call = this.callAt(index);
    const { route, slot, callId, name, args } = call;
    const itemId = slot?.open.id ?? this.newId('mcpr');
    call.done = { route, itemId, callId, name, arguments: args };
    if (slot === undefined) return route.kind === 'approval' ? this.askApproval(itemId, route, args) : [];
    const events = slot.open.whole();
    // An MCP call stays open: its answer is yet to come.
    return route.kind === 'function' ? [...events, ...this.close(slot, 'completed')] : events;
  }

  private askApproval(
    id: string,
    { serverLabel, name }: Extract<CallRoute, { kind: 'approval' }>,
    args: string,
  ): Unnumbered[] {
    const item = { id, type: 'mcp_approval_request', server_label: serverLabel, name, arguments: args } as const;
    const index = this.output.length;
    return [this.add(item), this.done(index, item)];
  }

  private callAt(index: number): CallState {
    const call = this.calls.get(index);
    if (call === undefined || call.done !== undefined) throw new TypeError(`no tool call ${index} is open`);
    return call;
  }

  /** Takes the next output_index. */
  private begin(open: OpenItem): { slot: Slot; events: Unnumbered[] } {
    const index = this.output.length;
    const added: Unnumbered = { type: 'response.output_item.added', output_index: index, item: open.item };
    this.output.push(undefined);
    this.open.set(index, open);
    return { slot: { index, open }, events: [added, ...open.opened()] };
  }

  private close({ index, open }: Slot, status: EndStatus): Unnumbered[] {
    const events = open.closed(status);
    this.open.delete(index);
    return [...events, this.done(index, open.item)];
  }

  private closeText(status: EndStatus): Unnumbered[] {
    const { text } = this;
    this.text = undefined;
    return text === undefined ? [] : this.close(text, status);
  }

  private closeAll(status: EndStatus): Unnumbered[] {
    this.text = undefined;
    return [...this.open].flatMap(([index, open]) => this.close({ index, open }, status));
  }

  private add(item: OutputItem): Unnumbered {
    this.output.push(item);
    return { type: 'response.output_item.added', output_index: this.output.length - 1, item };
  }

  private done(index: number, item: OutputItem): Unnumbered {
    this.output[index] = item;
    return { type: 'response.output_item.done', output_index: index, item };
  }

  private state(type: Extract<Unnumbered, { response: ResponseObject }>['type']): Unnumbered {
    return { type, response: this.snapshot };
  }

  private numbered(events: readonly Unnumbered[]): ResponseEvent[] {
    if (this.sealed && events.length > 0) throw new TypeError('the response has ended');
    this.sealed = this.isTerminal;
    return events.map((event): ResponseEvent => ({ ...event, sequence_number: this.sequence++ }));
  }

  private wireUsage(): ResponseUsage {
    const { input, cached, output, reasoning } = this.counts;
    return {
      input_tokens: input,
      input_tokens_details: { cached_tokens: cached, cache_write_tokens: 0 },
      output_tokens: output,
      output_tokens_details: { reasoning_tokens: reasoning },
      total_tokens: input + output,
    };
  }
}

export function unixSeconds(): number {
  return Math.floor(Date.now() / 1000);
}
