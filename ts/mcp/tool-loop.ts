/**
 * The loop: ask the model, run the tools that it calls, tell it the results, ask again.
 *
 * It ends when the model answers, when something is the client's to do (a function, an approval), or when turns run out.
 * A tool's failure is the model's to deal with, never the request's; a server that cannot be listed is reported and left
 * out, since the model may well answer without it. Only the model's own failures and a cancellation are thrown.
 */

import { randomUUID } from 'node:crypto';

import type { ChatEvent, ChatMessage, ChatRequest, ToolCallEvent, ToolChoice } from '../chat/types.js';
import { EngineError, type Timings, type Usage } from '../engine/types.js';
import { type ApprovalDecision, callIdOfApproval, denialText } from './approval.js';
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
import { type ListedServer, ToolCatalog } from './naming.js';
import { runCalls, type RunnableCall } from './run-calls.js';
import { matches, type McpOutcome, type McpToolInfo, type RequestedServer } from './tool.js';
import { afterFirstCall, type LoopToolChoice, permits, resolveChoice, withoutServers } from './tool-choice.js';
import { Turn, type TurnCall } from './turn.js';

/** What the loop asks for in each turn. */
export type LoopRequest = ChatRequest & { readonly toolChoice?: ToolChoice };

/** A ChatModel, or anything that answers like one. */
export interface LoopModel {
  chat(request: LoopRequest, signal?: AbortSignal): AsyncIterable<ChatEvent | ToolCallEvent>;
}

export interface ToolLoopOptions {
  readonly model: LoopModel;
  readonly pool: McpPool;
  /** `tools`: the client's own functions. Earlier MCP calls are named by `historyName`. */
  readonly request: ChatRequest;
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
  readonly signal?: AbortSignal;
  /** Suffixes of ids, for tests. */
  readonly newId?: () => string;
}

export const DEFAULT_MAX_TURNS = 10;
export const DEFAULT_PARALLEL = 4;
/** Calls of one answer that are looked at; more is a model that repeats itself. */
const MAX_CALLS_PER_TURN = 64;

/** Leaving the loop, or aborting, ends the generation and tells servers to stop. @throws what the model throws */
export async function* runToolLoop(options: ToolLoopOptions): AsyncGenerator<ToolLoopEvent, void> {
  const own = new AbortController();
  const signal = options.signal === undefined ? own.signal : AbortSignal.any([options.signal, own.signal]);
  try {
    yield* new ToolLoop(options, signal).run();
  } finally {
    own.abort();
  }
}

class ToolLoop {
  private readonly functions: ReadonlySet<string>;
  private catalog = new ToolCatalog([]);
  private messages: readonly ChatMessage[];
  private before: number;
  private choice: ToolChoice | undefined;
  private callsRun = 0;
  private usage: Usage | undefined;
  private timings: Timings | undefined;

  constructor(
    private readonly options: ToolLoopOptions,
    private readonly signal: AbortSignal,
  ) {
    this.functions = new Set(options.request.tools?.map(({ name }) => name));
    this.messages = options.request.messages;
    this.before = this.messages.length;
  }

  async *run(): AsyncGenerator<ToolLoopEvent, void> {
    this.catalog = new ToolCatalog(yield* this.list(), [...this.functions]);
    const { toolChoice, maxTurns = DEFAULT_MAX_TURNS } = this.options;
    this.choice = toolChoice === undefined ? undefined : resolveChoice(toolChoice, this.catalog);
    yield* this.settleApprovals();
    for (let turn = 0; turn < maxTurns; turn++) {
      const end = yield* this.turn(turn, turn > 0 && turn === maxTurns - 1);
      if (end !== undefined) return yield* this.finish(end);
    }
    yield* this.finish('max_turns');
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
    const callOf = ({ id, serverLabel, name, arguments: args }: ApprovalDecision): CallResult['call'] => ({
      id: callIdOfApproval(id),
      name: historyName(serverLabel, name),
      arguments: args,
    });
    for (const decision of decisions) {
      const { id: approvalRequestId, serverLabel, name, approve, reason, arguments: args } = decision;
      const request = { id: approvalRequestId, serverLabel, name, arguments: args };
      if (!approve) {
        results.push({ call: callOf(decision), content: denialText(reason) });
        yield { type: 'approval_denied', request };
        continue;
      }
      const id = callIdOfApproval(approvalRequestId);
      yield { type: 'mcp_call_started', id, serverLabel, name, approvalRequestId };
      yield { type: 'mcp_call_arguments_delta', id, delta: args };
      yield { type: 'mcp_call_arguments', id, arguments: args };
      calls.push(this.runnable(id, args, this.catalog.find(serverLabel, name)));
    }
    const outcomes = yield* this.execute(calls);
    const approved = decisions.filter(({ approve }) => approve);
    approved.forEach((decision, index) =>
      results.push({ call: callOf(decision), content: contentOf(outcomes[index]) }),
    );
    const whole = withResults(this.messages, results);
    const unanswered = unansweredCalls(whole).map((call) => ({
      call,
      content: 'The user has not answered whether this call may be run; it was not run.',
    }));
    this.messages = withCurrentNames(withResults(whole, unanswered), this.catalog);
    // A result belongs behind its call, so a continued conversation starts from here.
    this.before = this.messages.length;
  }

  /** @returns why the loop ends, or undefined if it goes on */
  private async *turn(turn: number, last: boolean): AsyncGenerator<ToolLoopEvent, ToolLoopEnd | undefined> {
    const withheld = last || this.callsLeft() <= 0;
    const choice = this.choice !== undefined && withheld ? withoutServers(this.choice, this.catalog) : this.choice;
    const answer = new Turn({
      isFunction: (name) => this.functions.has(name),
      offered: (name) => (permits(choice, name) ? this.catalog.named(name) : undefined),
      newId: this.options.newId ?? randomId,
    });
    yield { type: 'turn_started', turn };
    for await (const event of this.options.model.chat(this.requestOf(withheld, choice), this.signal)) {
      yield* answer.take(event);
    }
    const { end } = answer;
    if (end === undefined) throw new EngineError('internal', 'the model ended without saying so');
    this.usage = sum(this.usage, end.usage);
    this.timings = sum(this.timings, end.timings);
    yield { type: 'turn_finished', turn, usage: end.usage, timings: end.timings };

    const cutOff = answer.calls.filter(({ done }) => end.reason === 'length' || !done);
    for (const { kind, id } of cutOff) if (kind.type === 'mcp') yield { type: 'mcp_call_incomplete', id };
    const calls = answer.calls.filter((call) => !cutOff.includes(call));
    if (calls.length > 0) return yield* this.runTurnCalls(answer.message, calls, withheld);
    this.append(answer.message);
    return end.reason === 'length' ? 'length' : 'stop';
  }

  private async *runTurnCalls(
    message: ChatMessage,
    calls: readonly TurnCall[],
    withheld: boolean,
  ): AsyncGenerator<ToolLoopEvent, ToolLoopEnd | undefined> {
    const mcp = calls.filter(({ kind }) => kind.type === 'mcp');
    const refusal = withheld ? 'no further calls of tools are run for this request' : undefined;
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
    const results = new Map<TurnCall, string>(mcp.map((call, index) => [call, contentOf(outcomes[index])]));
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

    let approvals = 0;
    for (const { kind, arguments: args } of calls) {
      if (kind.type !== 'approval') continue;
      approvals++;
      const { server, tool } = kind.offered;
      const request = { id: kind.requestId, serverLabel: server.label, name: tool.name, arguments: args };
      yield { type: 'approval_requested', request };
    }
    if (calls.some(({ kind }) => kind.type === 'function')) return 'function_calls';
    if (approvals > 0) return 'approval';
    if (this.choice !== undefined) this.choice = afterFirstCall(this.choice);
    return undefined;
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

  private requestOf(withheld: boolean, toolChoice: ToolChoice | undefined): LoopRequest {
    const { tools: functions = [], ...request } = this.options.request;
    const tools = withheld ? functions : [...functions, ...this.catalog.definitions];
    return {
      ...request,
      messages: this.messages,
      ...(tools.length === 0 ? {} : { tools }),
      ...(toolChoice === undefined ? {} : { toolChoice }),
    };
  }

  private append(...messages: readonly ChatMessage[]): void {
    this.messages = [...this.messages, ...messages];
  }

  private *finish(reason: ToolLoopEnd): Generator<ToolLoopEvent, void> {
    yield {
      type: 'finished',
      reason,
      usage: this.usage ?? { promptTokens: 0, cachedTokens: 0, completionTokens: 0 },
      timings: this.timings ?? { queued: 0, prefill: 0, decode: 0 },
      messages: this.messages.slice(this.before),
    };
  }

  private throwIfCancelled(error: unknown): void {
    if (error instanceof EngineError || this.signal.aborted) throw error;
  }
}

function contentOf(outcome: McpOutcome | undefined): string {
  if (outcome === undefined) return '';
  return outcome.ok ? outcome.output : `Error: ${errorText(outcome.error)}`;
}

/** Adds figure by figure; whatever figures there are. */
function sum<T extends Usage | Timings>(a: T | undefined, b: T): T {
  if (a === undefined) return b;
  const before = a as unknown as Record<string, number | undefined>;
  const entries = Object.entries(b).map(([key, value]): [string, number] => [key, Number(value) + (before[key] ?? 0)]);
  return Object.fromEntries(entries) as unknown as T;
}

function randomId(): string {
  return randomUUID().replaceAll('-', '');
}
