/** `generation_config`: transformers' GenerationConfig as a JSON string, as `transformers serve` takes it. */

import { invalidType, invalidValue } from './errors.js';
import { array, boolean, type Fields, fieldsOf, integer, nonEmptyString, number, type Parse } from './fields.js';
import { checkFields, equals, type FieldTable, isEmpty, type ParseOptions } from './field-table.js';
import {
  defined,
  MAX_INT32,
  parseSamplingFields,
  type SamplingFields,
  STOP_TOKENS,
  type StopFields,
  TOKEN_LISTS,
} from './sampling.js';

/** What a generation config asks for. The request's own fields go before it, the checkpoint's config after it. */
export interface GenerationConfig extends StopFields {
  readonly sampling: SamplingFields;
  readonly maxTokens?: number;
}

/** What becomes of each of its fields. */
export const GENERATION_CONFIG_FIELDS = {
  do_sample: { status: 'honoured', note: 'false is greedy; true samples, at temperature 1 if none is given' },
  temperature: { status: 'honoured' },
  top_k: { status: 'honoured' },
  top_p: { status: 'honoured' },
  min_p: { status: 'honoured' },
  typical_p: { status: 'honoured' },
  epsilon_cutoff: { status: 'honoured' },
  eta_cutoff: { status: 'honoured' },
  repetition_penalty: { status: 'honoured' },
  no_repeat_ngram_size: { status: 'honoured' },
  bad_words_ids: { status: 'honoured' },
  suppress_tokens: { status: 'honoured' },
  begin_suppress_tokens: { status: 'honoured' },
  sequence_bias: { status: 'honoured', note: 'of single tokens' },
  min_new_tokens: { status: 'honoured' },
  max_new_tokens: { status: 'honoured' },
  stop_strings: { status: 'honoured' },
  num_beams: { status: 'refused', note: 'there is no beam search', harmless: equals(1) },
  num_beam_groups: { status: 'refused', note: 'there is no beam search', harmless: equals(1) },
  num_return_sequences: { status: 'refused', note: 'send n', harmless: equals(1) },
  guidance_scale: { status: 'refused', note: 'there is no guidance', harmless: equals(1) },
  penalty_alpha: { status: 'refused', note: 'there is no contrastive search', harmless: equals(0) },
  top_h: { status: 'refused', note: 'use top_p or min_p' },
  dola_layers: { status: 'refused', note: 'only the last layer is read' },
  forced_bos_token_id: { status: 'refused', note: 'no tokens are forced' },
  forced_eos_token_id: { status: 'refused', note: 'no tokens are forced' },
  exponential_decay_length_penalty: { status: 'refused', note: 'use max_new_tokens' },
  max_length: { status: 'refused', note: 'use max_new_tokens', harmless: equals(20) },
  min_length: { status: 'refused', note: 'use min_new_tokens', harmless: equals(0) },
  max_time: { status: 'refused', note: 'cancel the request instead' },
  watermarking_config: { status: 'refused', note: 'there is no watermark' },
  eos_token_id: { status: 'honoured', note: 'a token or several, instead of the model’s own' },
  bos_token_id: { status: 'ignored', note: 'the model’s own' },
  pad_token_id: { status: 'ignored', note: 'nothing is padded' },
  transformers_version: { status: 'ignored', note: 'says nothing about the answer' },
  use_cache: { status: 'ignored', note: 'there is always one' },
  cache_implementation: { status: 'ignored', note: 'changes speed only' },
  length_penalty: { status: 'refused', note: 'there is no beam search', harmless: equals(1) },
  early_stopping: { status: 'refused', note: 'there is no beam search', harmless: equals(false) },
  diversity_penalty: { status: 'refused', note: 'there is no beam search', harmless: equals(0) },
  encoder_repetition_penalty: { status: 'refused', note: 'there is no encoder', harmless: equals(1) },
  encoder_no_repeat_ngram_size: { status: 'refused', note: 'there is no encoder', harmless: equals(0) },
  force_words_ids: { status: 'refused', note: 'there is no beam search', harmless: isEmpty },
  constraints: { status: 'refused', note: 'there is no beam search', harmless: isEmpty },
} as const satisfies FieldTable;

const NOTHING: GenerationConfig = { sampling: {}, stop: [], stopTokenIds: [], ignoreEos: false };

/** The request's `generation_config`; nothing is set if it is absent. */
export function parseGenerationConfig(fields: Fields, options: ParseOptions): GenerationConfig {
  return fields.optional('generation_config', (value, path) => parse(value, path, options)) ?? NOTHING;
}

function parse(value: unknown, path: string, options: ParseOptions): GenerationConfig {
  if (typeof value !== 'string') throw invalidType(path, 'a JSON string', value);
  // What a client sends where it has nothing to say.
  if (value.trim() === '') return NOTHING;
  let json: unknown;
  try {
    json = JSON.parse(value);
  } catch {
    throw invalidValue(path, 'must hold JSON');
  }
  const config = fieldsOf(json, path);
  checkFields(config, GENERATION_CONFIG_FIELDS, options);
  const ends = config.optional('eos_token_id', endTokens);
  const doSample = config.optional('do_sample', boolean);
  const sampling = parseSamplingFields(config);
  const temperature = doSample === false ? 0 : (sampling.temperature ?? (doSample === true ? 1 : undefined));
  return {
    sampling: defined({
      ...sampling,
      temperature,
      epsilonCutoff: config.optional('epsilon_cutoff', number(0, 1)),
      etaCutoff: config.optional('eta_cutoff', number(0, 1)),
      badWords: config.optional('bad_words_ids', array(array(integer(0, MAX_INT32), 1))),
      suppressTokens: config.optional('suppress_tokens', TOKEN_LISTS),
      beginSuppressTokens: config.optional('begin_suppress_tokens', TOKEN_LISTS),
      logitBias: config.optional('sequence_bias', sequenceBias),
      minTokens: config.optional('min_new_tokens', integer(0, MAX_INT32)),
    }),
    ...defined({ maxTokens: config.optional('max_new_tokens', integer(1, MAX_INT32)) }),
    stop: config.optional('stop_strings', stopStrings) ?? [],
    stopTokenIds: ends ?? [],
    ignoreEos: ends !== undefined,
  };
}

const endTokens: Parse<readonly number[]> = (value, path) => STOP_TOKENS(Array.isArray(value) ? value : [value], path);

const stopStrings: Parse<readonly string[]> = (value, path) =>
  Array.isArray(value) ? array(nonEmptyString, 0, 16)(value, path) : [nonEmptyString(value, path)];

/** `[[[token], bias], …]`, the form that JSON can hold. */
const sequenceBias: Parse<Readonly<Record<number, number>>> = (value, path) => {
  const pairs = array((pair, at) => {
    if (!Array.isArray(pair) || pair.length !== 2) throw invalidType(at, 'a list of tokens and a bias', pair);
    const [token = 0] = array(integer(0, MAX_INT32), 1, 1)(pair[0], `${at}[0]`);
    return [token, number(-1000, 1000)(pair[1], `${at}[1]`)] as const;
  })(value, path);
  return Object.fromEntries(pairs);
};
