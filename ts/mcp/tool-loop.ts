/**
 * The loop: ask the model, run the tools that it calls, tell it the results, ask again.
 *
 * It ends when the model answers, when something is the client's to do (a function, an approval), or when turns run out.
 * The rules are `ToolSession`'s; here the model is asked and its answers are read.
 */

import { randomUUID } from 'node:crypto';

import type { ChatModel, ChatRequest } from '../chat/types.js';
import { EngineError, type Timings, type Usage } from '../engine/types.js';
import type { ToolLoopEnd, ToolLoopEvent } from './loop-events.js';
import { type SessionOptions, ToolSession } from './tool-session.js';
import { Turn } from './turn.js';

export interface ToolLoopOptions extends SessionOptions {
  readonly model: ChatModel;
  /** `tools`: the client's own functions. Earlier MCP calls are named by `historyName`. */
  readonly request: ChatRequest;
  readonly signal?: AbortSignal;
  /** Suffixes of ids, for tests. */
  readonly newId?: () => string;
}

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
  private readonly session: ToolSession;
  private usage: Usage | undefined;
  private timings: Timings | undefined;
  private reasoningTokens: number | undefined = 0;

  constructor(
    private readonly options: ToolLoopOptions,
    private readonly signal: AbortSignal,
  ) {
    this.session = new ToolSession(options.request, options, signal);
  }

  async *run(): AsyncGenerator<ToolLoopEvent, void> {
    yield* this.session.begin();
    for (let turn = 0; ; turn++) {
      const request = this.session.nextRequest();
      const end = request === undefined ? 'max_turns' : yield* this.turn(turn, request);
      if (end !== undefined) return yield* this.finish(end);
    }
  }

  /** @returns why the loop ends, or undefined if it goes on */
  private async *turn(turn: number, request: ChatRequest): AsyncGenerator<ToolLoopEvent, ToolLoopEnd | undefined> {
    const { session } = this;
    const answer = new Turn({ kindOf: (name) => session.kindOf(name), newId: this.options.newId ?? randomId });
    yield { type: 'turn_started', turn };
    for await (const event of this.options.model.chat(request, this.signal)) yield* answer.take(event);
    const { end } = answer;
    if (end === undefined) throw new EngineError('internal', 'the model ended without saying so');
    this.usage = sum(this.usage, end.usage);
    this.timings = sum(this.timings, end.timings);
    this.reasoningTokens = add(this.reasoningTokens, end.reasoningTokens);
    yield { type: 'turn_finished', turn, usage: end.usage, timings: end.timings };

    const cutOff = answer.calls.filter(({ done }) => end.reason === 'length' || !done);
    for (const { kind, id } of cutOff) if (kind.type === 'mcp') yield { type: 'mcp_call_incomplete', id };
    const calls = answer.calls.filter((call) => !cutOff.includes(call));
    const ended = yield* session.endTurn(answer.message, calls, end.reason);
    for (const { kind, arguments: args } of calls) {
      if (kind.type !== 'approval') continue;
      const { server, tool } = kind.offered;
      const asked = { id: kind.requestId, serverLabel: server.label, name: tool.name, arguments: args };
      yield { type: 'approval_requested', request: asked };
    }
    return ended;
  }

  private *finish(reason: ToolLoopEnd): Generator<ToolLoopEvent, void> {
    yield {
      type: 'finished',
      reason,
      usage: this.usage ?? { promptTokens: 0, cachedTokens: 0, completionTokens: 0 },
      timings: this.timings ?? { queued: 0, prefill: 0, decode: 0 },
      ...(this.reasoningTokens === undefined ? {} : { reasoningTokens: this.reasoningTokens }),
      messages: this.session.added,
    };
  }
}

/** What is not known of one turn is not known of all. */
function add(a: number | undefined, b: number | undefined): number | undefined {
  return a === undefined || b === undefined ? undefined : a + b;
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
