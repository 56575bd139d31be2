/**
 * Generation events of one or more prompts → `text_completion` chunks, one choice per prompt, in whatever order the
 * events come. A non-streaming answer is the fold of the same chunks.
 */

import type { GenerationEvent, TokenInfo, Usage } from '../engine/types.js';
import type { TextChoice, TextCompletion, TextLogprobs } from '../protocol/completions.js';
import type { WireTimings, WireUsage } from '../protocol/usage.js';
import type { ChunkOptions } from './chunk-machine.js';
import { addUsage, toWireLogprob, toWireTimings, toWireUsage } from './wire-usage.js';

export interface TextChunkOptions extends ChunkOptions {
  /** One per choice: the text of the prompt, if it is to go before the answer. */
  readonly choices: readonly { readonly echo?: string }[];
  /** Whether log-probabilities were asked for. */
  readonly logprobs: boolean;
}

interface ChoiceState {
  readonly echo: string | undefined;
  readonly offsets: OffsetCounter;
  started: boolean;
  seenPrompt: boolean;
  finished: boolean;
}

export class TextCompletionMachine {
  private readonly states: readonly ChoiceState[];
  private running: number;
  private total: Usage = { promptTokens: 0, cachedTokens: 0, completionTokens: 0 };

  constructor(private readonly options: TextChunkOptions) {
    this.running = options.choices.length;
    this.states = options.choices.map(({ echo }) => ({
      echo,
      offsets: new OffsetCounter(),
      started: false,
      seenPrompt: false,
      finished: false,
    }));
  }

  /** The counts of all choices, once all are finished. */
  get usage(): Usage | undefined {
    return this.running === 0 ? this.total : undefined;
  }

  /** @param index of the choice, below the number of choices */
  push(index: number, event: GenerationEvent): TextCompletion[] {
    const state = this.states[index];
    if (state === undefined || state.finished) throw new RangeError(`choice ${index} takes no events`);
    const first = state.started || state.echo === undefined ? [] : [this.choice(index, { text: state.echo })];
    state.started = true;
    return [...first, ...this.body(index, state, event)];
  }

  private body(index: number, state: ChoiceState, event: GenerationEvent): TextCompletion[] {
    switch (event.type) {
      case 'started':
      case 'prefill':
        return [];
      case 'prompt':
        return this.prompt(index, state, event.tokens);
      case 'delta': {
        const text = event.pieces.map((piece) => (piece.special === undefined ? piece.text : '')).join('');
        const special = new Set(event.pieces.map((piece) => piece.special));
        const tokens = this.options.logprobs ? event.tokens : undefined;
        if (text === '' && tokens === undefined) return [];
        const offset = (token: TokenInfo): number => state.offsets.next(special.has(token.id) ? [] : token.bytes);
        return [this.choice(index, { text, logprobs: toTextLogprobs(tokens, offset) })];
      }
      case 'finished':
        state.finished = true;
        return this.finish(index, event);
    }
  }

  private prompt(index: number, state: ChoiceState, tokens: readonly TokenInfo[]): TextCompletion[] {
    if (state.echo === undefined || !this.options.logprobs) return [];
    const echo = state.echo;
    const offset = (token: TokenInfo): number => {
      const bytes = state.seenPrompt ? token.bytes : firstTokenBytes(token, echo);
      state.seenPrompt = true;
      return state.offsets.next(bytes);
    };
    return [this.choice(index, { text: '', logprobs: toTextLogprobs(tokens, offset) })];
  }

  private finish(index: number, event: Extract<GenerationEvent, { type: 'finished' }>): TextCompletion[] {
    this.total = addUsage(this.total, event.usage);
    this.running--;
    const last = this.choice(index, { text: '', finish_reason: event.reason });
    if (this.running > 0) return [last];
    // Several prompts overlap in time: their durations cannot be added up.
    const timings = this.states.length === 1 ? { timings: toWireTimings(event.usage, event.timings) } : {};
    if (!this.options.includeUsage) return [{ ...last, ...timings }];
    return [last, { ...this.head(), choices: [], usage: toWireUsage(this.total), ...timings }];
  }

  private choice(index: number, given: Partial<TextChoice> & { text: string }): TextCompletion {
    return {
      ...this.head(),
      choices: [{ index, logprobs: null, finish_reason: null, ...given }],
      ...(this.options.includeUsage ? { usage: null } : {}),
    };
  }

  private head(): Pick<TextCompletion, 'id' | 'object' | 'created' | 'model'> {
    const { id, created, model } = this.options;
    return { id, object: 'text_completion', created, model };
  }
}

/**
 * The whole answer from its chunks, choices by index.
 * @param chunks of a machine with includeUsage, complete
 */
export function foldTextCompletion(chunks: Iterable<TextCompletion>): TextCompletion {
  let head: TextCompletion | undefined;
  let usage: WireUsage | undefined;
  let timings: WireTimings | undefined;
  const choices: FoldedChoice[] = [];
  for (const chunk of chunks) {
    head ??= chunk;
    for (const choice of chunk.choices) foldChoice((choices[choice.index] ??= emptyChoice(choice.index)), choice);
    usage = chunk.usage ?? usage;
    timings = chunk.timings ?? timings;
  }
  if (head === undefined || usage === undefined) throw new Error('the chunks are not complete');
  const { id, object, created, model } = head;
  return { id, object, created, model, choices, usage, ...(timings === undefined ? {} : { timings }) };
}

interface FoldedLogprobs extends TextLogprobs {
  readonly tokens: string[];
  readonly token_logprobs: (number | null)[];
  readonly top_logprobs: (Readonly<Record<string, number>> | null)[];
  readonly text_offset: number[];
}

interface FoldedChoice extends TextChoice {
  text: string;
  logprobs: FoldedLogprobs | null;
  finish_reason: TextChoice['finish_reason'];
}

function emptyChoice(index: number): FoldedChoice {
  return { index, text: '', logprobs: null, finish_reason: null };
}

function foldChoice(whole: FoldedChoice, part: TextChoice): void {
  whole.text += part.text;
  whole.finish_reason = part.finish_reason ?? whole.finish_reason;
  if (part.logprobs === null) return;
  whole.logprobs ??= { tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] };
  append(whole.logprobs.tokens, part.logprobs.tokens);
  append(whole.logprobs.token_logprobs, part.logprobs.token_logprobs);
  append(whole.logprobs.top_logprobs, part.logprobs.top_logprobs);
  append(whole.logprobs.text_offset, part.logprobs.text_offset);
}

/** Not `push(...items)`: the prompt's tokens may be more than a call takes arguments. */
function append<T>(target: T[], items: readonly T[]): void {
  for (const item of items) target.push(item);
}

/** Counts characters (code points) by their bytes, since a token may hold a part of one. */
class OffsetCounter {
  private characters = 0;

  /** Where a token starts; moves on by its bytes. */
  next(bytes: readonly number[]): number {
    // A token that starts inside a character starts where that character does.
    const start = bytes[0] !== undefined && isContinuation(bytes[0]) ? this.characters - 1 : this.characters;
    for (const byte of bytes) {
      if (!isContinuation(byte)) this.characters++;
    }
    return Math.max(start, 0);
  }
}

function isContinuation(byte: number): boolean {
  return (byte & 0xc0) === 0x80;
}

/** What a prompt's first token takes of its text: a begin token nothing, a tokenizer's own leading space not that space. */
function firstTokenBytes(token: TokenInfo, echo: string): readonly number[] {
  if (echo.startsWith(token.text)) return token.bytes;
  const trimmed = token.text.trimStart();
  return trimmed !== '' && echo.startsWith(trimmed) ? [...Buffer.from(trimmed)] : [];
}

function toTextLogprobs(
  tokens: readonly TokenInfo[] | undefined,
  offset: (token: TokenInfo) => number,
): TextLogprobs | null {
  if (tokens === undefined) return null;
  return {
    tokens: tokens.map(nameOf),
    token_logprobs: tokens.map((token) => (token.logprob === undefined ? null : toWireLogprob(token.logprob))),
    top_logprobs: tokens.map(toAlternatives),
    text_offset: tokens.map(offset),
  };
}

/** The best ones by name, and the token itself even if it is not among them. */
function toAlternatives(token: TokenInfo): Record<string, number> | null {
  if (token.logprob === undefined) return null;
  const own = { text: token.text, bytes: token.bytes, logprob: token.logprob };
  const entries = new Map<string, number>();
  for (const other of [...(token.top ?? []), own]) {
    // Two tokens may read the same; the better one stays.
    const name = nameOf(other);
    if (!entries.has(name)) entries.set(name, toWireLogprob(other.logprob));
  }
  return Object.fromEntries(entries);
}

/** A part of a character has no text of its own: it goes by its bytes, as at OpenAI. */
function nameOf(token: { readonly text: string; readonly bytes: readonly number[] }): string {
  if (!token.text.includes('\ufffd')) return token.text;
  return `bytes:${token.bytes.map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('')}`;
}
