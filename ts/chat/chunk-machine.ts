/**
 * Chat events → `chat.completion.chunk` values, in the order that clients hold us to: the role first, then text and tool
 * calls, then an empty delta with the finish reason, then the usage. A non-streaming answer is the fold of the same chunks.
 */

import type { TokenInfo, Usage } from '../engine/types.js';
import type {
  ChatCompletion,
  ChatCompletionChunk,
  ChatDelta,
  ToolCallDelta,
  WireFinishReason,
  WireLogprob,
  WireLogprobs,
  WireToolCall,
} from '../protocol/chat-completions.js';
import type { WireTimings, WireUsage } from '../protocol/usage.js';
import type { ChatEvent } from './types.js';
import { toWireLogprob, toWireTimings, toWireUsage } from './wire-usage.js';

export interface ChunkOptions {
  readonly id: string;
  /** Unix seconds. */
  readonly created: number;
  readonly model: string;
  readonly includeUsage: boolean;
}

export class ChatChunkMachine {
  private started = false;
  private ended: Usage | undefined;
  /** Undefined once reasoning came whose tokens nobody counted. */
  private reasoningTokens: number | undefined = 0;

  constructor(private readonly options: ChunkOptions) {}

  /** The counts, once the answer is finished. */
  get usage(): Usage | undefined {
    return this.ended;
  }

  push(event: ChatEvent): ChatCompletionChunk[] {
    const first = this.started ? [] : [this.choice({ role: 'assistant', content: '' })];
    this.started = true;
    return [...first, ...this.body(event)];
  }

  private body(event: ChatEvent): ChatCompletionChunk[] {
    switch (event.type) {
      case 'started':
      case 'prefill':
        return [];
      case 'reasoning':
        this.countReasoning(event.tokens);
        return event.text === '' ? [] : [this.choice({ reasoning_content: event.text, reasoning: event.text })];
      case 'content':
        // A token may complete no character yet: its log-probability is news all the same.
        if (event.text === '' && event.tokens === undefined) return [];
        return [this.choice({ content: event.text }, event.tokens)];
      case 'tool_call':
        // Clients add up what repeats: id, type and name come once, and the arguments are a string from the start.
        return [
          this.toolCall({
            index: event.index,
            id: event.id,
            type: 'function',
            function: { name: event.name, arguments: '' },
          }),
        ];
      case 'tool_call_arguments':
        return [this.toolCall({ index: event.index, function: { arguments: event.delta } })];
      case 'tool_call_done':
        return [];
      case 'finished':
        return this.finish(event);
    }
  }

  private finish(event: Extract<ChatEvent, { type: 'finished' }>): ChatCompletionChunk[] {
    this.ended = event.usage;
    const last = this.choice({}, undefined, event.reason);
    const timings = toWireTimings(event.usage, event.timings);
    if (!this.options.includeUsage) return [{ ...last, timings }];
    const usage = toWireUsage(event.usage, event.reasoningTokens ?? this.reasoningTokens);
    return [last, { ...this.head(), choices: [], usage, timings }];
  }

  private countReasoning(tokens: readonly TokenInfo[] | undefined): void {
    if (tokens === undefined) this.reasoningTokens = undefined;
    else if (this.reasoningTokens !== undefined) this.reasoningTokens += tokens.length;
  }

  private toolCall(delta: ToolCallDelta): ChatCompletionChunk {
    return this.choice({ tool_calls: [delta] });
  }

  private choice(
    delta: ChatDelta,
    tokens?: readonly TokenInfo[],
    finishReason: WireFinishReason | null = null,
  ): ChatCompletionChunk {
    const logprobs = tokens === undefined ? null : toLogprobs(tokens);
    return {
      ...this.head(),
      choices: [{ index: 0, delta, logprobs, finish_reason: finishReason }],
      ...(this.options.includeUsage ? { usage: null } : {}),
    };
  }

  private head(): Pick<ChatCompletionChunk, 'id' | 'object' | 'created' | 'model'> {
    const { id, created, model } = this.options;
    return { id, object: 'chat.completion.chunk', created, model };
  }
}

/**
 * The whole answer from its chunks.
 * @param chunks of a machine with includeUsage, complete
 */
export function foldChatCompletion(chunks: Iterable<ChatCompletionChunk>): ChatCompletion {
  let head: ChatCompletionChunk | undefined;
  let content = '';
  let reasoning = '';
  let logprobs: WireLogprob[] | undefined;
  let finishReason: WireFinishReason | null = null;
  let usage: WireUsage | undefined;
  let timings: WireTimings | undefined;
  const calls: WireToolCall[] = [];
  for (const chunk of chunks) {
    head ??= chunk;
    for (const choice of chunk.choices) {
      content += choice.delta.content ?? '';
      reasoning += choice.delta.reasoning ?? '';
      for (const delta of choice.delta.tool_calls ?? []) foldToolCall(calls, delta);
      if (choice.logprobs !== null) (logprobs ??= []).push(...choice.logprobs.content);
      finishReason = choice.finish_reason ?? finishReason;
    }
    usage = chunk.usage ?? usage;
    timings = chunk.timings ?? timings;
  }
  if (head === undefined || finishReason === null || usage === undefined)
    throw new Error('the chunks are not complete');
  const { id, created, model } = head;
  const spoken = reasoning === '' ? {} : { reasoning_content: reasoning, reasoning };
  return {
    id,
    object: 'chat.completion',
    created,
    model,
    choices: [
      {
        index: 0,
        message: {
          role: 'assistant',
          content: content === '' && calls.length > 0 ? null : content,
          ...spoken,
          refusal: null,
          ...(calls.length === 0 ? {} : { tool_calls: calls }),
        },
        logprobs: logprobs === undefined ? null : { content: logprobs, refusal: null },
        finish_reason: finishReason,
      },
    ],
    usage,
    ...(timings === undefined ? {} : { timings }),
  };
}

function foldToolCall(calls: WireToolCall[], { index, id, function: part }: ToolCallDelta): void {
  const before = calls[index];
  if (before === undefined) {
    if (id === undefined || part.name === undefined) throw new Error(`tool call ${index} begins without id or name`);
    calls[index] = { id, type: 'function', function: { name: part.name, arguments: part.arguments } };
  } else {
    const { name, arguments: json } = before.function;
    calls[index] = { ...before, function: { name, arguments: json + part.arguments } };
  }
}

function toLogprobs(tokens: readonly TokenInfo[]): WireLogprobs {
  const content = tokens.map((token) => ({
    token: token.text,
    logprob: toWireLogprob(token.logprob),
    bytes: token.bytes,
    top_logprobs: (token.top ?? []).map((other) => ({
      token: other.text,
      logprob: toWireLogprob(other.logprob),
      bytes: other.bytes,
    })),
  }));
  return { content, refusal: null };
}
