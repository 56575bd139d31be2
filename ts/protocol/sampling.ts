/** The fields that chat and text completions share. */

import { invalidValue } from './errors.js';
import {
  array,
  boolean,
  type Fields,
  fieldsOf,
  integer,
  nonEmptyString,
  number,
  object,
  type Parse,
  seed,
  shortened,
  string,
} from './fields.js';
import { equals, extras, type FieldTable, isEmpty } from './field-table.js';

/** How tokens are chosen; unset fields are the model's default. */
export interface SamplingFields {
  /** 0..2; 0 is greedy. */
  readonly temperature?: number;
  /** 0 keeps all. */
  readonly topK?: number;
  /** Above 0, up to 1. */
  readonly topP?: number;
  readonly minP?: number;
  /** Above 0, up to 1. */
  readonly typicalP?: number;
  readonly epsilonCutoff?: number;
  readonly etaCutoff?: number;
  /** Above 0. */
  readonly repetitionPenalty?: number;
  /** -2..2, as the next. */
  readonly presencePenalty?: number;
  readonly frequencyPenalty?: number;
  /** -100..100 by token id. */
  readonly logitBias?: Readonly<Record<number, number>>;
  readonly noRepeatNgramSize?: number;
  readonly badWords?: readonly (readonly number[])[];
  readonly suppressTokens?: readonly number[];
  readonly beginSuppressTokens?: readonly number[];
  /** Tokens before the answer may end. */
  readonly minTokens?: number;
  /** 0..2^53-1. */
  readonly seed?: number;
}

export interface StopFields {
  /** Texts that end the answer. */
  readonly stop: readonly string[];
  /** Tokens that do. */
  readonly stopTokenIds: readonly number[];
  /** The model's own end tokens do not. */
  readonly ignoreEos: boolean;
}

export interface StreamFields {
  readonly stream: boolean;
  /** A last chunk with the usage. */
  readonly includeUsage: boolean;
}

/** As at OpenAI. */
export const MAX_STOP_STRINGS = 4;
/** Of a request, and as many of its generation_config. */
export const MAX_STOP_TOKENS = 128;
export const MAX_TOP_LOGPROBS = 20;
/** Answers to one prompt, as at OpenAI. */
export const MAX_CHOICES = 128;
/** Our own. */
export const MAX_LOGIT_BIASES = 1024;
/** What the engine's counters hold. */
export const MAX_INT32 = 2 ** 31 - 1;

/** What vLLM, llama.cpp and transformers serve take too. */
const SHARED_EXTRAS = extras({
  top_k: { status: 'honoured', note: '0 and -1 keep all' },
  min_p: { status: 'honoured', note: '0..1' },
  typical_p: { status: 'honoured', note: '0..1' },
  repetition_penalty: { status: 'honoured', note: 'above 0, over prompt and answer' },
  no_repeat_ngram_size: { status: 'honoured', note: '0 is no limit' },
  min_tokens: { status: 'honoured', note: 'the answer ends no earlier' },
  generation_config: {
    status: 'honoured',
    note: 'transformers’ GenerationConfig as a JSON string; other fields go before it',
  },
  ignore_eos: { status: 'honoured', note: 'the model’s own end tokens do not end the answer' },
  cache_salt: { status: 'honoured', note: 'cached prefixes are shared only between equal salts' },
  stop_token_ids: {
    status: 'honoured',
    note: `up to ${MAX_STOP_TOKENS}, beside the model’s own end tokens; left out as stop is`,
  },
  skip_special_tokens: { status: 'refused', note: 'special tokens are always left out', harmless: equals(true) },
  include_stop_str_in_output: { status: 'refused', note: 'stop strings are always left out', harmless: equals(false) },
  use_beam_search: { status: 'refused', note: 'there is no beam search', harmless: equals(false) },
  guided_json: { status: 'honoured', note: 'a JSON schema, or its text' },
  guided_json_object: { status: 'honoured', note: 'true: any JSON object' },
  guided_regex: { status: 'honoured' },
  guided_choice: { status: 'honoured', note: 'one of these texts' },
  guided_grammar: { status: 'honoured', note: 'Lark' },
  structured_outputs: { status: 'honoured', note: 'json, json_object, regex, choice, grammar (Lark)' },
  grammar: { status: 'refused', note: 'GBNF is not read; send guided_grammar (Lark)', harmless: isEmpty },
  json_schema: { status: 'refused', note: 'send guided_json or response_format', harmless: isEmpty },
});

export const SHARED_FIELDS = {
  model: { status: 'honoured', note: 'may be left out where one model is served' },
  max_tokens: { status: 'honoured' },
  temperature: { status: 'honoured', note: '0..2; above 0 turns sampling on' },
  top_p: { status: 'honoured', note: '0..1' },
  frequency_penalty: { status: 'honoured', note: '-2..2, over the answer' },
  presence_penalty: { status: 'honoured', note: '-2..2, over the answer' },
  logit_bias: { status: 'honoured', note: `-100..100 by token id, up to ${MAX_LOGIT_BIASES} tokens` },
  seed: { status: 'honoured', note: 'the same seed gives the same answer, whatever else runs' },
  stop: { status: 'honoured', note: `a string, or up to ${MAX_STOP_STRINGS}` },
  stream: { status: 'honoured' },
  stream_options: { status: 'honoured', note: 'include_usage; only with stream' },
  logprobs: { status: 'honoured' },
  user: { status: 'ignored', note: 'no accounts' },
  n: { status: 'honoured', note: `1..${MAX_CHOICES}; with a seed, each answer takes the next one` },
  ...SHARED_EXTRAS,
} as const satisfies FieldTable;

/** The model's id; undefined if absent or blank. */
export function parseModel(fields: Fields): string | undefined {
  const model = fields.optional('model', string)?.trim();
  return model === '' ? undefined : model;
}

/** The request's own fields. What is unset is left out, so that these can go before others. */
export function parseSampling(fields: Fields): SamplingFields {
  return defined({
    ...parseSamplingFields(fields),
    presencePenalty: fields.optional('presence_penalty', number(-2, 2)),
    frequencyPenalty: fields.optional('frequency_penalty', number(-2, 2)),
    logitBias: fields.optional('logit_bias', parseLogitBias),
    minTokens: fields.optional('min_tokens', integer(0, MAX_INT32)),
    seed: fields.optional('seed', seed),
  });
}

/** Those that a request and transformers' GenerationConfig have under one name. */
export function parseSamplingFields(fields: Fields): SamplingFields {
  const topK = fields.optional('top_k', integer(-1, MAX_INT32));
  const topP = fields.optional('top_p', number(0, 1));
  const sampling = {
    temperature: fields.optional('temperature', number(0, 2)),
    topK: topK === undefined ? undefined : Math.max(topK, 0),
    topP,
    minP: fields.optional('min_p', number(0, 1)),
    typicalP: fields.optional('typical_p', share),
    repetitionPenalty: fields.optional('repetition_penalty', factor),
    noRepeatNgramSize: fields.optional('no_repeat_ngram_size', integer(0, MAX_INT32)),
  };
  // The smallest set that reaches a probability of 0 is the best token alone.
  return defined(topP === 0 ? { ...sampling, topK: 1, topP: 1 } : sampling);
}

/** How many answers to each prompt. */
export function parseChoices(fields: Fields): number {
  return fields.optional('n', integer(1, MAX_CHOICES)) ?? 1;
}

/** Without the fields that are not set. */
export function defined<T extends object>(fields: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  const set = Object.entries(fields).filter(([, value]) => value !== undefined);
  return Object.fromEntries(set) as { [K in keyof T]?: Exclude<T[K], undefined> };
}

const share: Parse<number> = (value, path) => aboveZero(number(0, 1)(value, path), path);
const factor: Parse<number> = (value, path) => aboveZero(number(0, 1000)(value, path), path);

function aboveZero(value: number, path: string): number {
  if (value === 0) throw invalidValue(path, 'must be above 0');
  return value;
}

const parseLogitBias: Parse<Readonly<Record<number, number>>> = (value, path) => {
  const entries = Object.entries(object(value, path));
  if (entries.length > MAX_LOGIT_BIASES) {
    throw invalidValue(path, `must hold at most ${MAX_LOGIT_BIASES} tokens, got ${entries.length}`);
  }
  const parsed = entries.map(([token, bias]) => {
    if (!/^\d{1,9}$/.test(token)) throw invalidValue(path, `must be a map from token ids, got ${shortened(token)}`);
    return [Number(token), number(-100, 100)(bias, `${path}.${token}`)] as const;
  });
  return Object.fromEntries(parsed);
};

/** A list of token ids. */
export const TOKEN_LISTS = array(integer(0, MAX_INT32));

export const STOP_TOKENS = array(integer(0, MAX_INT32), 0, MAX_STOP_TOKENS);

/** `stop` as a list; empty if absent. */
function parseStop(fields: Fields): readonly string[] {
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

/** What ends the answer; the request's own fields go before its generation_config. */
export function parseStops(fields: Fields, config: StopFields): StopFields {
  const stop = parseStop(fields);
  const own = fields.optional('stop_token_ids', STOP_TOKENS) ?? [];
  return {
    stop: stop.length > 0 ? stop : config.stop,
    stopTokenIds: [...config.stopTokenIds, ...own],
    ignoreEos: fields.optional('ignore_eos', boolean) ?? config.ignoreEos,
  };
}

export function parseStream(fields: Fields): StreamFields {
  const stream = fields.optional('stream', boolean) ?? false;
  const includeUsage = fields.optional('stream_options', (value, path) => {
    if (!stream) throw invalidValue(path, 'is only allowed when stream is true');
    return fieldsOf(value, path).optional('include_usage', boolean);
  });
  return { stream, includeUsage: includeUsage ?? false };
}
