/**
 * The rules of a tool loop, without the reading of the model's answers: which servers are listed, what the model is asked
 * in each turn, which of its calls are run, and when it is over.
 *
 * Begin it, then alternate `nextRequest` and `endTurn`. A tool's failure is the model's to deal with, never the request's;
 * a server that cannot be listed is reported and left out, since the model may well answer without it. Only a cancellation
 * is thrown.
 */

import type { ChatMessage, ChatRequest, FinishReason, ToolChoice } from '../chat/types.js';
import { EngineError } from '../engine/types.js';
import { type ApprovalDecision, callIdOfApproval, denialText, SPENT_TEXT } from './approval.js';
import type { McpPool } from './client-pool.js';
import { errorText, toMcpError } from './errors.js';
import {
  type CallResult,
  historyName,
  toolMessage,
  unansweredCalls,
  withCurrentNames,
  withResults,
} from './history.js';
import type { ToolLoopEnd, ToolLoopEvent } from './loop-events.js';
import { type ListedServer, type OfferedTool, ToolCatalog } from './naming.js';
import { runCalls, type RunnableCall } from './run-calls.js';
import { matches, type McpOutcome, type McpToolInfo, type RequestedServer } from './tool.js';
import { afterFirstCall, type LoopToolChoice, permits, resolveChoice, withoutServers } from './tool-choice.js';

export interface SessionOptions {
  readonly pool: McpPool;
  readonly servers: readonly RequestedServer[];
  /** Lists that are in the conversation already, by label: those servers are not listed again. */
  readonly knownTools?: ReadonlyMap<string, readonly McpToolInfo[]>;
  /** Answered approvals (`pendingApprovals`); the calls' ids in the messages are `callIdOfApproval`. */
  readonly approvals?: readonly ApprovalDecision[];
  readonly toolChoice?: LoopToolChoice;
  /** Answers of the model; in the last one servers' tools are withheld, so that it has to answer. @default 10 */
  readonly maxTurns?: number;
  /** Calls that are run, over all turns and servers; further ones fail. Default: no bound but the turns'. */
  readonly maxToolCalls?: number;
  /** Calls under way at once. @default 4 */
  readonly parallel?: number;
}

/** Who a call of the model's is for. */
export type CallKind =
  | { readonly type: 'mcp'; readonly offered: OfferedTool }
  /** Held back until someone agrees. */
  | { readonly type: 'approval'; readonly offered: OfferedTool }
  /** The client's. */
  | { readonly type: 'function' }
  /** Of a tool that was not offered. */
  | { readonly type: 'unknown' };

/** A whole call of a turn. */
export interface SessionCall {
  /** `mcp_…`, or the model's own for a function. */
  readonly id: string;
  /** The model's name for it. */
  readonly name: string;
  readonly kind: CallKind;
  /** A JSON string. */
  readonly arguments: string;
}

export const DEFAULT_MAX_TURNS = 10;
export const DEFAULT_PARALLEL = 4;
/**
 * Small models that have called a tool call it again, whether it is offered or not, until somebody speaks to them. The
 * conversation does not keep it.
 */
const NO_MORE_CALLS: ChatMessage = {
  role: 'user',
  content: 'No more tools can be called. Answer with what they said.',
};
/** Calls of one answer that are looked at; more is a model that repeats itself. */
const MAX_CALLS_PER_TURN = 64;

export class ToolSession {
  private readonly functions: ReadonlySet<string>;
  private catalog = new ToolCatalog([]);
  private messages: readonly ChatMessage[];
  private before: number;
  private choice: ToolChoice | undefined;
  /** The choice in the turn at hand. */
  private turnChoice: ToolChoice | undefined;
  private withheld = false;
  private turns = 0;
  private callsRun = 0;

  /** @param request what the model would be asked without servers; earlier MCP calls are named by `historyName` */
  constructor(
    private readonly request: ChatRequest,
    private readonly options: SessionOptions,
    private readonly signal: AbortSignal,
  ) {
    this.functions = new Set(request.tools?.map(({ name }) => name));
    this.messages = request.messages;
    this.before = this.messages.length;
  }

  /** Lists the servers, runs what was allowed. */
  async *begin(): AsyncGenerator<ToolLoopEvent, void> {
    this.offerTools(yield* this.list());
    yield* this.settleApprovals();
  }

  /** What the model is offered and told first, without running anything: a call that waits counts as not answered. */
  async offer(): Promise<ChatRequest> {
    const listing = this.list();
    let step = await listing.next();
    while (step.done !== true) step = await listing.next();
    this.offerTools(step.value);
    const told = (this.options.approvals ?? []).flatMap((decision) => {
      const content = answerWithoutCall(decision);
      return content === undefined ? [] : [{ call: callOf(decision), content }];
    });
    this.tellAll(told);
    return this.nextRequest() ?? this.request;
  }

  /** Begins a turn. @returns what the model is asked; undefined: no turn is left */
  nextRequest(): ChatRequest | undefined {
    const { maxTurns = DEFAULT_MAX_TURNS } = this.options;
    if (this.turns >= maxTurns) return undefined;
    const last = this.turns > 0 && this.turns === maxTurns - 1;
    this.turns++;
    this.withheld = last || this.callsLeft() <= 0;
    this.turnChoice =
      this.choice !== undefined && this.withheld ? withoutServers(this.choice, this.catalog) : this.choice;
    const { tools: functions = [], ...request } = this.request;
    const tools = this.withheld ? functions : [...functions, ...this.catalog.definitions];
    return {
      ...request,
      messages: this.withheld && this.callsRun > 0 ? [...this.messages, NO_MORE_CALLS] : this.messages,
      ...(tools.length === 0 ? {} : { tools }),
      // Nothing can be demanded of nothing.
      ...(this.turnChoice === undefined ? {} : { toolChoice: tools.length === 0 ? 'auto' : this.turnChoice }),
    };
  }

  /** Who a call of that name would be for, in this turn. */
  kindOf(name: string): CallKind {
    if (this.functions.has(name)) return { type: 'function' };
    const offered = permits(this.turnChoice, name) ? this.catalog.named(name) : undefined;
    if (offered === undefined) return { type: 'unknown' };
    return { type: offered.needsApproval ? 'approval' : 'mcp', offered };
  }

  /**
   * Runs the calls of a turn and tells the model.
   * @param message the answer; it holds the calls
   * @param calls those that are whole
   * @returns why the loop ends, or undefined if it goes on
   */
  async *endTurn(
    message: ChatMessage,
    calls: readonly SessionCall[],
    reason: FinishReason,
  ): AsyncGenerator<ToolLoopEvent, ToolLoopEnd | undefined> {
    if (calls.length === 0) {
      this.append(message);
      return reason === 'length' ? 'length' : 'stop';
    }
    yield* this.runTurnCalls(message, calls);
    if (calls.some(({ kind }) => kind.type === 'function')) return 'function_calls';
    if (calls.some(({ kind }) => kind.type === 'approval')) return 'approval';
    if (this.choice !== undefined) this.choice = afterFirstCall(this.choice);
    return undefined;
  }

  /** What came after the request's messages. */
  get added(): readonly ChatMessage[] {
    return this.messages.slice(this.before);
  }

  /** All servers are asked at once and reported one after the other. */
  private async *list(): AsyncGenerator<ToolLoopEvent, ListedServer[]> {
    const { servers, pool, knownTools } = this.options;
    const pending = servers.map((requested) => {
      const known = knownTools?.get(requested.server.label);
      if (known !== undefined) return { requested, known, answer: undefined };
      const answer = pool.listTools(requested.server, this.signal).then(
        (tools) => ({ tools }),
        (error: unknown) => ({ error }),
      );
      return { requested, known, answer };
    });
    const listed: ListedServer[] = [];
    for (const { requested, known, answer } of pending) {
      const serverLabel = requested.server.label;
      if (known !== undefined) {
        listed.push({ requested, tools: known });
        continue;
      }
      yield { type: 'list_tools_started', serverLabel };
      const result = await answer;
      if ('tools' in result) {
        const { allowedTools } = requested;
        const tools = result.tools.filter((tool) => allowedTools === undefined || matches(allowedTools, tool));
        listed.push({ requested, tools });
        yield { type: 'list_tools_finished', serverLabel, tools };
      } else {
        this.throwIfCancelled(result.error);
        const { wire } = toMcpError(result.error, serverLabel, (text) => text);
        yield { type: 'list_tools_failed', serverLabel, error: wire };
      }
    }
    return listed;
  }

  /** Runs what was allowed, and makes the conversation whole: every earlier call gets a result. */
  private async *settleApprovals(): AsyncGenerator<ToolLoopEvent, void> {
    const decisions = this.options.approvals ?? [];
    const calls: RunnableCall[] = [];
    const results: CallResult[] = [];
    const allowed: ApprovalDecision[] = [];
    for (const decision of decisions) {
      const { id: approvalRequestId, serverLabel, name, approve, arguments: args } = decision;
      const content = answerWithoutCall(decision);
      if (content !== undefined) {
        results.push({ call: callOf(decision), content });
        const request = { id: approvalRequestId, serverLabel, name, arguments: args };
        if (!approve) yield { type: 'approval_denied', request };
        continue;
      }
      allowed.push(decision);
      const id = callIdOfApproval(approvalRequestId);
      yield { type: 'mcp_call_started', id, serverLabel, name, approvalRequestId };
      yield { type: 'mcp_call_arguments_delta', id, delta: args };
      yield { type: 'mcp_call_arguments', id, arguments: args };
      calls.push(this.runnable(id, args, this.catalog.find(serverLabel, name)));
    }
    const outcomes = yield* this.execute(calls);
    allowed.forEach((decision, index) => results.push({ call: callOf(decision), content: contentOf(outcomes[index]) }));
    this.tellAll(results);
  }

  private offerTools(listed: readonly ListedServer[]): void {
    this.catalog = new ToolCatalog(listed, [...this.functions]);
    const { toolChoice } = this.options;
    this.choice = toolChoice === undefined ? undefined : resolveChoice(toolChoice, this.catalog);
  }

  /** Every earlier call gets a result, and the name it goes by now. */
  private tellAll(results: readonly CallResult[]): void {
    const whole = withResults(this.messages, results);
    const unanswered = unansweredCalls(whole).map((call) => ({
      call,
      content: 'The user has not answered whether this call may be run; it was not run.',
    }));
    this.messages = withCurrentNames(withResults(whole, unanswered), this.catalog);
    // A result belongs behind its call, so a continued conversation starts from here.
    this.before = this.messages.length;
  }

  private async *runTurnCalls(
    message: ChatMessage,
    calls: readonly SessionCall[],
  ): AsyncGenerator<ToolLoopEvent, void> {
    const mcp = calls.filter(({ kind }) => kind.type === 'mcp');
    const refusal = this.withheld ? 'no further calls of tools are run for this request' : undefined;
    const outcomes = yield* this.execute(
      mcp.map(({ id, kind, arguments: args }, index) =>
        this.runnable(
          id,
          args,
          kind.type === 'mcp' ? kind.offered : undefined,
          index < MAX_CALLS_PER_TURN ? refusal : 'these are too many calls at once',
        ),
      ),
    );
    const results = new Map<SessionCall, string>(mcp.map((call, index) => [call, contentOf(outcomes[index])]));
    for (const call of calls) {
      if (call.kind.type === 'unknown')
        results.set(call, `There is no tool named ${JSON.stringify(call.name.slice(0, 64))}.`);
    }
    this.append(
      message,
      ...calls.flatMap((call) => {
        const content = results.get(call);
        return content === undefined ? [] : [toolMessage(call, content)];
      }),
    );
  }

  /** Counts a call, or says why it is not run. */
  private runnable(id: string, args: string, offered: RunnableCall['offered'], refusal?: string): RunnableCall {
    if (refusal !== undefined || offered === undefined)
      return { id, offered: undefined, arguments: args, refusal: refusal ?? 'the server does not offer this tool' };
    if (this.callsLeft() <= 0) {
      const limit = `this request allows ${this.options.maxToolCalls ?? 0} calls of tools; this one was not run`;
      return { id, offered: undefined, arguments: args, refusal: limit };
    }
    this.callsRun++;
    return { id, offered, arguments: args };
  }

  private execute(calls: readonly RunnableCall[]): AsyncGenerator<ToolLoopEvent, McpOutcome[]> {
    const { pool, parallel = DEFAULT_PARALLEL } = this.options;
    return runCalls(calls, pool, parallel, this.signal);
  }

  private callsLeft(): number {
    return (this.options.maxToolCalls ?? Number.POSITIVE_INFINITY) - this.callsRun;
  }

  private append(...messages: readonly ChatMessage[]): void {
    this.messages = [...this.messages, ...messages];
  }

  private throwIfCancelled(error: unknown): void {
    if (error instanceof EngineError || this.signal.aborted) throw error;
  }
}

/** As the conversation names it. */
function callOf({ id, serverLabel, name, arguments: args }: ApprovalDecision): CallResult['call'] {
  return { id: callIdOfApproval(id), name: historyName(serverLabel, name), arguments: args };
}

/** What the model is told of a call that is not run. */
function answerWithoutCall({ approve, reason, spent }: ApprovalDecision): string | undefined {
  if (!approve) return denialText(reason);
  return spent === true ? SPENT_TEXT : undefined;
}

function contentOf(outcome: McpOutcome | undefined): string {
  if (outcome === undefined) return '';
  return outcome.ok ? outcome.output : `Error: ${errorText(outcome.error)}`;
}
