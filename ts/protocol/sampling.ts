/** The fields that chat and text completions share. */

import { invalidValue } from './errors.js';
import { boolean, type Fields, fieldsOf, integer, nonEmptyString, number, seed, string } from './fields.js';
import { equals, type FieldTable, isEmpty } from './field-table.js';

/** How tokens are chosen; unset fields are the model's default. */
export interface SamplingFields {
  /** 0..2; 0 is greedy. */
  readonly temperature?: number;
  /** 0 keeps all. */
  readonly topK?: number;
  /** Above 0, up to 1. */
  readonly topP?: number;
  readonly minP?: number;
  /** 0..2^53-1. */
  readonly seed?: number;
}

export interface StreamFields {
  readonly stream: boolean;
  /** A last chunk with the usage. */
  readonly includeUsage: boolean;
}

/** As at OpenAI. */
export const MAX_STOP_STRINGS = 4;
export const MAX_TOP_LOGPROBS = 20;
/** Answers to one prompt, as at OpenAI. */
export const MAX_CHOICES = 128;
/** What the engine's counters hold. */
export const MAX_INT32 = 2 ** 31 - 1;

export const SHARED_FIELDS = {
  model: { status: 'honoured', note: 'may be left out where one model is served' },
  max_tokens: { status: 'honoured' },
  temperature: { status: 'honoured', note: '0..2; above 0 turns sampling on' },
  top_p: { status: 'honoured', note: '0..1' },
  top_k: { status: 'honoured', note: '0 and -1 keep all' },
  min_p: { status: 'honoured', note: '0..1' },
  seed: { status: 'honoured' },
  stop: { status: 'honoured', note: `a string, or up to ${MAX_STOP_STRINGS}` },
  ignore_eos: { status: 'honoured' },
  stream: { status: 'honoured' },
  stream_options: { status: 'honoured', note: 'include_usage; only with stream' },
  logprobs: { status: 'honoured' },
  cache_salt: { status: 'honoured', note: 'cached prefixes are shared only between equal salts' },
  user: { status: 'ignored', note: 'no accounts' },
  n: { status: 'honoured', note: `1..${MAX_CHOICES}; with a seed, each answer takes the next one` },
  frequency_penalty: { status: 'refused', note: 'penalties are not available yet', harmless: equals(0) },
  presence_penalty: { status: 'refused', note: 'penalties are not available yet', harmless: equals(0) },
  repetition_penalty: { status: 'refused', note: 'penalties are not available yet', harmless: equals(1) },
  logit_bias: { status: 'refused', note: 'not available yet', harmless: isEmpty },
  typical_p: { status: 'refused', note: 'not available; use top_p or min_p', harmless: equals(1) },
  min_tokens: { status: 'refused', note: 'not available yet', harmless: equals(0) },
  stop_token_ids: { status: 'refused', note: 'not available yet; use stop', harmless: isEmpty },
  skip_special_tokens: { status: 'refused', note: 'special tokens are always left out', harmless: equals(true) },
  include_stop_str_in_output: { status: 'refused', note: 'stop strings are always left out', harmless: equals(false) },
  generation_config: { status: 'refused', note: 'not available yet; send its fields by themselves', harmless: isEmpty },
  use_beam_search: { status: 'refused', note: 'there is no beam search', harmless: equals(false) },
  guided_json: { status: 'refused', note: 'structured output is not available yet' },
  guided_regex: { status: 'refused', note: 'structured output is not available yet' },
  guided_choice: { status: 'refused', note: 'structured output is not available yet' },
  guided_grammar: { status: 'refused', note: 'structured output is not available yet' },
  structured_outputs: { status: 'refused', note: 'structured output is not available yet' },
  grammar: { status: 'refused', note: 'structured output is not available yet', harmless: isEmpty },
  json_schema: { status: 'refused', note: 'structured output is not available yet' },
} as const satisfies FieldTable;

/** The model's id; undefined if absent or blank. */
export function parseModel(fields: Fields): string | undefined {
  const model = fields.optional('model', string)?.trim();
  return model === '' ? undefined : model;
}

export function parseSampling(fields: Fields): SamplingFields {
  const topK = fields.optional('top_k', integer(-1, MAX_INT32));
  const topP = fields.optional('top_p', number(0, 1));
  const sampling = {
    temperature: fields.optional('temperature', number(0, 2)),
    topK: topK === undefined ? undefined : Math.max(topK, 0),
    topP,
    minP: fields.optional('min_p', number(0, 1)),
    seed: fields.optional('seed', seed),
  };
  // The smallest set that reaches a probability of 0 is the best token alone.
  return topP === 0 ? { ...sampling, topK: 1, topP: 1 } : sampling;
}

/** How many answers to each prompt. */
export function parseChoices(fields: Fields): number {
  return fields.optional('n', integer(1, MAX_CHOICES)) ?? 1;
}

/** `stop` as a list; empty if absent. */
export function parseStop(fields: Fields): readonly string[] {
  return (
    fields.optional('stop', (value, path) => {
      if (!Array.isArray(value)) return [nonEmptyString(value, path)];
      if (value.length > MAX_STOP_STRINGS) {
        throw invalidValue(path, `must hold at most ${MAX_STOP_STRINGS} strings, got ${value.length}`);
      }
      return value.map((item: unknown, index) => nonEmptyString(item, `${path}[${index}]`));
    }) ?? []
  );
}

export function parseStream(fields: Fields): StreamFields {
  const stream = fields.optional('stream', boolean) ?? false;
  const includeUsage = fields.optional('stream_options', (value, path) => {
    if (!stream) throw invalidValue(path, 'is only allowed when stream is true');
    return fieldsOf(value, path).optional('include_usage', boolean);
  });
  return { stream, includeUsage: includeUsage ?? false };
}
