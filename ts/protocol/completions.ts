/** `POST /v1/completions`: what comes in, and what goes out. */

import { invalidType, invalidValue } from './errors.js';
import { array, boolean, fieldsOf, integer, string } from './fields.js';
import { checkFields, equals, extras, type FieldTable, isEmpty, type ParseOptions } from './field-table.js';
import { parseGenerationConfig } from './generation-config.js';
import { type GrammarFields, parseGrammar } from './grammar.js';
import {
  MAX_INT32,
  MAX_TOP_LOGPROBS,
  parseChoices,
  parseModel,
  parseSampling,
  parseStops,
  parseStream,
  type SamplingFields,
  SHARED_FIELDS,
  type StopFields,
  type StreamFields,
} from './sampling.js';
import type { WireTimings, WireUsage } from './usage.js';

export type Prompt = { readonly text: string } | { readonly ids: readonly number[] };

/** Prompts of one request; each is a generation of its own. */
export const MAX_PROMPTS = 128;

/** As at OpenAI. */
export const DEFAULT_MAX_TOKENS = 16;

/** A request that exists is valid. */
export interface CompletionRequest extends StreamFields, StopFields {
  /** Undefined: the one model that is served. */
  readonly model: string | undefined;
  /** 1..MAX_PROMPTS. */
  readonly prompts: readonly Prompt[];
  /** Answers to each prompt, at least 1. */
  readonly n: number;
  readonly sampling: SamplingFields;
  /** Undefined: the answer is free. */
  readonly grammar: GrammarFields | undefined;
  /** 0 only with echo. */
  readonly maxTokens: number;
  /** Alternatives per token, 0..20; undefined: no log-probabilities. */
  readonly logprobs: number | undefined;
  /** The prompt goes before the answer, with its own log-probabilities if they are asked for. */
  readonly echo: boolean;
  /** Whether text prompts get the tokenizer's own begin and end tokens. */
  readonly addSpecialTokens: boolean;
  readonly cacheSalt: string | undefined;
}

/** What becomes of each field of the request. */
export const COMPLETION_FIELDS = {
  ...SHARED_FIELDS,
  prompt: { status: 'honoured', note: `a string, strings, token ids or lists of them; up to ${MAX_PROMPTS}` },
  max_tokens: { status: 'honoured', note: `${DEFAULT_MAX_TOKENS} if absent; 0 with echo` },
  logprobs: { status: 'honoured', note: `0..${MAX_TOP_LOGPROBS}` },
  echo: { status: 'honoured' },
  suffix: { status: 'refused', note: 'there is no fill-in-the-middle', harmless: isEmpty },
  best_of: { status: 'refused', note: 'one answer per prompt (best_of = 1)', harmless: equals(1) },
  ...extras({
    add_special_tokens: { status: 'honoured', note: 'true if absent' },
    response_format: { status: 'honoured', note: 'text, json_object (also with a schema as `value`), json_schema' },
  }),
} as const satisfies FieldTable;

export function parseCompletionRequest(body: unknown, options: ParseOptions): CompletionRequest {
  const fields = fieldsOf(body, '');
  checkFields(fields, COMPLETION_FIELDS, options);
  const echo = fields.optional('echo', boolean) ?? false;
  const config = parseGenerationConfig(fields, options);
  const maxTokens = fields.optional('max_tokens', integer(0, MAX_INT32)) ?? config.maxTokens ?? DEFAULT_MAX_TOKENS;
  if (maxTokens === 0 && !echo) throw invalidValue('max_tokens', 'must be at least 1 without echo, got 0');
  const prompts = fields.required('prompt', parsePrompts);
  const n = parseChoices(fields);
  if (prompts.length * n > MAX_PROMPTS) {
    throw invalidValue(
      'n',
      `must be at most ${MAX_PROMPTS} answers to all prompts together, got ${prompts.length * n}`,
    );
  }
  return {
    ...parseStream(fields),
    model: parseModel(fields),
    prompts,
    n,
    sampling: { ...config.sampling, ...parseSampling(fields) },
    grammar: parseGrammar(fields),
    maxTokens,
    ...parseStops(fields, config),
    logprobs: fields.optional('logprobs', integer(0, MAX_TOP_LOGPROBS)),
    echo,
    addSpecialTokens: fields.optional('add_special_tokens', boolean) ?? true,
    cacheSalt: fields.optional('cache_salt', string),
  };
}

function parsePrompts(value: unknown, path: string): readonly Prompt[] {
  if (typeof value === 'string') return [{ text: value }];
  if (!Array.isArray(value)) throw invalidType(path, 'a string, an array of strings or token ids', value);
  // A list of numbers is one prompt, a list of anything else is several.
  if (typeof value[0] === 'number') return [{ ids: parseIds(value, path) }];
  return array(parseOneOfSeveral, 1, MAX_PROMPTS)(value, path);
}

function parseOneOfSeveral(value: unknown, path: string): Prompt {
  if (typeof value === 'string') return { text: value };
  if (Array.isArray(value)) return { ids: parseIds(value, path) };
  throw invalidType(path, 'a string or an array of token ids', value);
}

const parseIds = array(integer(0, MAX_INT32), 1);

export interface TextLogprobs {
  readonly tokens: readonly string[];
  /** null for the first token of an echoed prompt. */
  readonly token_logprobs: readonly (number | null)[];
  readonly top_logprobs: readonly (Readonly<Record<string, number>> | null)[];
  /** Where each token starts in the choice's text, in characters (code points). */
  readonly text_offset: readonly number[];
}

export interface TextChoice {
  readonly index: number;
  readonly text: string;
  readonly logprobs: TextLogprobs | null;
  readonly finish_reason: 'stop' | 'length' | null;
}

/** Chunks and the whole answer have one shape. */
export interface TextCompletion {
  readonly id: string;
  readonly object: 'text_completion';
  readonly created: number;
  readonly model: string;
  /** Empty in the usage chunk. */
  readonly choices: readonly TextChoice[];
  /** In chunks only if asked for: null in all but the last. */
  readonly usage?: WireUsage | null;
  /** With one prompt, in the last chunk. */
  readonly timings?: WireTimings;
}
