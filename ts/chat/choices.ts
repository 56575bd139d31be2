/**
 * Several answers to one conversation → chunks of one completion. Each answer has a machine of its own; here their chunks
 * get the choice's index, and their counts become one.
 */

import type { Usage } from '../engine/types.js';
import type { ChatCompletion, ChatCompletionChunk } from '../protocol/chat-completions.js';
import type { WireUsage } from '../protocol/usage.js';
import { ChatChunkMachine, type ChunkOptions, foldChatCompletion } from './chunk-machine.js';
import type { ChatEvent } from './types.js';

export class ChoicesMachine {
  private readonly machines: readonly ChatChunkMachine[];
  private readonly usages: WireUsage[] = [];

  /** @param n answers, at least 1 */
  constructor(
    private readonly options: ChunkOptions,
    n: number,
  ) {
    const { includeUsage } = options;
    // Of several answers each must tell its counts, so that they can be added up.
    this.machines = Array.from(
      { length: n },
      () => new ChatChunkMachine({ ...options, includeUsage: includeUsage || n > 1 }),
    );
  }

  /** The counts of all answers, once all are finished. The prompt counts once. */
  get usage(): Usage | undefined {
    const usages = this.machines.map(({ usage }) => usage);
    return usages.reduce((sum, usage) => {
      if (sum === undefined || usage === undefined) return undefined;
      return {
        promptTokens: sum.promptTokens,
        cachedTokens: Math.min(sum.cachedTokens, usage.cachedTokens),
        completionTokens: sum.completionTokens + usage.completionTokens,
      };
    });
  }

  /** @param index of the answer, below n */
  push(index: number, event: ChatEvent): ChatCompletionChunk[] {
    const machine = this.machines[index];
    if (machine === undefined) throw new RangeError(`there is no choice ${index}`);
    const chunks = machine.push(event);
    return this.machines.length === 1 ? chunks : chunks.flatMap((chunk) => this.ofChoice(index, chunk));
  }

  private ofChoice(index: number, chunk: ChatCompletionChunk): ChatCompletionChunk[] {
    // Without timings: answers overlap in time, their durations cannot be added up.
    const { id, object, created, model, choices, usage } = chunk;
    const head = { id, object, created, model };
    if (choices.length > 0) {
      const indexed = choices.map((choice) => ({ ...choice, index }));
      return [{ ...head, choices: indexed, ...(this.options.includeUsage ? { usage: null } : {}) }];
    }
    if (usage) this.usages.push(usage);
    if (!this.options.includeUsage || this.usages.length < this.machines.length) return [];
    return [{ ...head, choices: [], usage: this.usages.reduce(add) }];
  }
}

/**
 * The whole completion from its chunks, choices by index.
 * @param chunks of a machine with includeUsage, complete
 */
export function foldChoices(chunks: readonly ChatCompletionChunk[]): ChatCompletion {
  const byChoice: ChatCompletionChunk[][] = [];
  const heads = chunks.filter(({ choices }) => choices.length === 0);
  for (const chunk of chunks) {
    for (const { index } of chunk.choices) (byChoice[index] ??= []).push(chunk);
  }
  const [first, ...others] = byChoice.map((own) => foldChatCompletion([...own, ...heads]));
  if (first === undefined) throw new Error('the chunks are not complete');
  const choices = [first, ...others].flatMap((folded, index) => folded.choices.map((choice) => ({ ...choice, index })));
  return { ...first, choices };
}

function add(a: WireUsage, b: WireUsage): WireUsage {
  const completionTokens = a.completion_tokens + b.completion_tokens;
  const [x, y] = [a.completion_tokens_details, b.completion_tokens_details];
  return {
    prompt_tokens: a.prompt_tokens,
    completion_tokens: completionTokens,
    total_tokens: a.prompt_tokens + completionTokens,
    prompt_tokens_details: {
      cached_tokens: Math.min(a.prompt_tokens_details.cached_tokens, b.prompt_tokens_details.cached_tokens),
    },
    ...(x && y ? { completion_tokens_details: { reasoning_tokens: x.reasoning_tokens + y.reasoning_tokens } } : {}),
  };
}
