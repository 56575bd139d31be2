/** One response from beginning to end: turns of a model, and what happens between them. */

import type { ChatMessage, ChatModel, ChatRequest } from '../chat/types.js';
import { EngineError } from '../engine/types.js';
import type { ResponseEvent } from '../protocol/response-events.js';
import type { ContextItem } from '../protocol/response-items.js';
import type { ResponseError } from '../protocol/response-object.js';
import type { CallRoute, ModelEvent, ResponseMachine, Turn } from './event-machine.js';

/** What a loop works with. */
export interface LoopContext {
  /** Its verbs make the items of tools; their events must be yielded at once, in order. */
  readonly machine: ResponseMachine;
  /** What the model was asked last, or is to be asked first. */
  readonly request: ChatRequest;
  /** The conversation before this answer: previous input and output, then the new input. */
  readonly items: readonly ContextItem[];
  /** Aborts when the client leaves or the response is cancelled. */
  readonly signal: AbortSignal;
}

/**
 * Runs tools on the server, around the turns of the model (the MCP loop). One per response; disposed at its end.
 * What it throws fails the response.
 */
export interface ResponseLoop extends AsyncDisposable {
  /** What earlier calls of servers' tools are named in the first request (`ToChatOptions`). */
  readonly mcpName?: (serverLabel: string, name: string) => string;
  /** What `begin` would return if no approved call waited; nothing is run. For counting. */
  offer(context: Omit<LoopContext, 'machine'>): Promise<ChatRequest>;
  /** Before the first turn, when `response.in_progress` is out: lists tools, runs approved calls. Returns the first request. */
  begin(context: LoopContext): AsyncGenerator<ResponseEvent, ChatRequest>;
  /** How a call of that name is shown. */
  route(name: string): CallRoute;
  /** After a turn: runs its calls. Returns the next request, or undefined where the response is over. */
  next(turn: Turn, context: LoopContext): AsyncGenerator<ResponseEvent, ChatRequest | undefined>;
}

export interface RunOptions {
  readonly machine: ResponseMachine;
  readonly chat: ChatModel;
  readonly request: ChatRequest;
  readonly items: readonly ContextItem[];
  readonly signal: AbortSignal;
  readonly loop?: ResponseLoop;
  /** `response.created` is out already (a response that was queued). */
  readonly announced?: boolean;
  /** Leave out the oldest turns of a conversation that is too long, instead of failing. */
  readonly truncate: boolean;
  /** Counts tokens of reasoning where the model's events do not say. */
  readonly countTokens: (text: string) => Promise<number>;
  /** What the wire says of a failure after the beginning. */
  readonly describe: (error: unknown) => ResponseError;
}

/**
 * Nothing is yielded before the model's first event, unless tools run first: a prompt that is too long is an ordinary
 * error, thrown from here. After that a failure is the response's end. Once the signal aborts, what fails is thrown.
 */
export async function* runResponse(options: RunOptions): AsyncGenerator<ResponseEvent, void> {
  const { machine, items, signal, loop } = options;
  let { request } = options;
  let begun = options.announced === true;
  try {
    if (begun) yield* machine.start();
    if (loop !== undefined) {
      if (!begun) yield* machine.start();
      begun = true;
      request = yield* loop.begin({ machine, request, items, signal });
    }
    for (;;) {
      for await (const [event, reasoningTokens] of turnOf(options, request)) {
        if (!begun) yield* machine.start();
        begun = true;
        yield* machine.push(event, reasoningTokens);
      }
      if (machine.turn === undefined) throw new EngineError('internal', 'the generation ended without a finish reason');
      const next = loop === undefined ? undefined : yield* loop.next(machine.turn, { machine, request, items, signal });
      if (next === undefined) break;
      request = next;
    }
    yield* machine.finish();
  } catch (error) {
    if (!begun || signal.aborted || machine.isTerminal) throw error;
    yield* machine.fail(options.describe(error));
  }
}

/** The events of one turn, `finished` with the number of its reasoning tokens. */
async function* turnOf(
  { chat, signal, truncate, countTokens }: RunOptions,
  request: ChatRequest,
): AsyncGenerator<readonly [ModelEvent, number]> {
  let counted = 0;
  let uncounted = '';
  for await (const event of fitting(chat, request, signal, truncate)) {
    if (event.type === 'reasoning') {
      if (event.tokens === undefined) uncounted += event.text;
      else counted += event.tokens.length;
    }
    if (event.type !== 'finished') {
      yield [event, 0];
      continue;
    }
    if (event.reasoningTokens !== undefined) {
      yield [event, event.reasoningTokens];
      continue;
    }
    const more = uncounted === '' ? 0 : await countTokens(uncounted);
    yield [event, Math.min(counted + more, event.usage.completionTokens)];
  }
}

async function* fitting(
  chat: ChatModel,
  request: ChatRequest,
  signal: AbortSignal,
  truncate: boolean,
): AsyncGenerator<ModelEvent> {
  let asked = request;
  // Doubled at each try: a long conversation takes few.
  for (let turns = 1; ; turns *= 2) {
    let begun = false;
    try {
      for await (const event of chat.chat(asked, signal) as AsyncIterable<ModelEvent>) {
        begun = true;
        yield event;
      }
      return;
    } catch (error) {
      const tooLong = error instanceof EngineError && error.code === 'context_length_exceeded';
      const messages = begun || !truncate || !tooLong ? undefined : withoutOldest(asked.messages, turns);
      if (messages === undefined) throw error;
      asked = { ...asked, messages };
    }
  }
}

/**
 * Without the first turns after the system's messages; a turn begins with a user's message. Undefined if only the last
 * turn is left.
 */
export function withoutOldest(messages: readonly ChatMessage[], turns: number): readonly ChatMessage[] | undefined {
  const isSystem = ({ role }: ChatMessage): boolean => role === 'system' || role === 'developer';
  const head = messages.findIndex((message) => !isSystem(message));
  if (head < 0) return undefined;
  const starts = messages.flatMap(({ role }, index) => (role === 'user' && index > head ? [index] : []));
  const from = starts[Math.min(turns, starts.length) - 1];
  return from === undefined ? undefined : [...messages.slice(0, head), ...messages.slice(from)];
}
