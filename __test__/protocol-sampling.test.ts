import { expect } from 'chai';

import { parseChatCompletionRequest } from '../ts/protocol/chat-completions.js';
import { parseCompletionRequest } from '../ts/protocol/completions.js';
import { ApiError } from '../ts/protocol/errors.js';
import { parseCreateResponse } from '../ts/protocol/responses.js';

const LENIENT = { strict: false, warn: () => undefined };
const MESSAGES = [{ role: 'user', content: 'hi' }];

function parse(fields: object) {
  const warned: string[] = [];
  const options = { strict: false, warn: (field: string) => void warned.push(field) };
  return { request: parseChatCompletionRequest({ messages: MESSAGES, ...fields }, options), warned };
}

function complete(fields: object) {
  return parseCompletionRequest({ prompt: 'a', ...fields }, { strict: false, warn: () => undefined });
}

function errorOf(call: () => unknown): ApiError {
  try {
    call();
  } catch (error) {
    if (error instanceof ApiError) return error;
    throw error;
  }
  throw new Error('it was accepted');
}

describe('sampling fields', () => {
  it('are all taken', () => {
    const { sampling } = parse({
      typical_p: 0.9,
      repetition_penalty: 1.1,
      presence_penalty: -2,
      frequency_penalty: 2,
      logit_bias: { '5': 10, '0': -100 },
      no_repeat_ngram_size: 3,
      min_tokens: 4,
    }).request;
    expect(sampling).to.deep.equal({
      typicalP: 0.9,
      repetitionPenalty: 1.1,
      presencePenalty: -2,
      frequencyPenalty: 2,
      logitBias: { 0: -100, 5: 10 },
      noRepeatNgramSize: 3,
      minTokens: 4,
    });
  });

  const invalid: readonly [fields: object, code: string, param: string][] = [
    [{ presence_penalty: 2.1 }, 'invalid_value', 'presence_penalty'],
    [{ frequency_penalty: '1' }, 'invalid_type', 'frequency_penalty'],
    [{ repetition_penalty: 0 }, 'invalid_value', 'repetition_penalty'],
    [{ typical_p: 0 }, 'invalid_value', 'typical_p'],
    [{ logit_bias: [1] }, 'invalid_type', 'logit_bias'],
    [{ logit_bias: { a: 1 } }, 'invalid_value', 'logit_bias'],
    [{ logit_bias: { '-1': 1 } }, 'invalid_value', 'logit_bias'],
    [{ logit_bias: { '5': 101 } }, 'invalid_value', 'logit_bias.5'],
    [{ logit_bias: { '5': null } }, 'invalid_type', 'logit_bias.5'],
    [
      { logit_bias: Object.fromEntries(Array.from({ length: 1025 }, (_, id) => [id, 1])) },
      'invalid_value',
      'logit_bias',
    ],
    [{ min_tokens: -1 }, 'invalid_value', 'min_tokens'],
    [{ no_repeat_ngram_size: 0.5 }, 'invalid_type', 'no_repeat_ngram_size'],
    [{ generation_config: { temperature: 1 } }, 'invalid_type', 'generation_config'],
    [{ generation_config: '{' }, 'invalid_value', 'generation_config'],
    [{ generation_config: '[]' }, 'invalid_type', 'generation_config'],
    [{ generation_config: '{"top_p": 2}' }, 'invalid_value', 'generation_config.top_p'],
    [{ generation_config: '{"num_beams": 4}' }, 'unsupported_parameter', 'generation_config.num_beams'],
    [{ generation_config: '{"bad_words_ids": [[]]}' }, 'invalid_value', 'generation_config.bad_words_ids[0]'],
    [
      { generation_config: '{"sequence_bias": [[[1, 2], 1]]}' },
      'invalid_value',
      'generation_config.sequence_bias[0][0]',
    ],
  ];
  for (const [fields, code, param] of invalid) {
    it(`cannot be ${JSON.stringify(fields).slice(0, 70)}`, () => {
      expect(errorOf(() => parse(fields))).to.include({ status: 400, code, param });
    });
  }
});

describe('generation_config', () => {
  it('stands between the request and the checkpoint', () => {
    const config = {
      do_sample: true,
      temperature: 0.7,
      top_k: 50,
      repetition_penalty: 1.2,
      bad_words_ids: [[4, 5]],
      suppress_tokens: [1],
      begin_suppress_tokens: [2],
      sequence_bias: [[[9], -2.5]],
      epsilon_cutoff: 0.1,
      eta_cutoff: 0.2,
      min_new_tokens: 3,
      max_new_tokens: 30,
      stop_strings: ['END'],
      num_beams: 1,
      transformers_version: '5.18.0',
      frobnicate: null,
    };
    const { request, warned } = parse({ generation_config: JSON.stringify(config), top_k: 5 });
    expect(request.sampling).to.deep.equal({
      temperature: 0.7,
      topK: 5,
      repetitionPenalty: 1.2,
      badWords: [[4, 5]],
      suppressTokens: [1],
      beginSuppressTokens: [2],
      logitBias: { 9: -2.5 },
      epsilonCutoff: 0.1,
      etaCutoff: 0.2,
      minTokens: 3,
    });
    expect(request).to.deep.include({ maxTokens: 30, stop: ['END'] });
    expect(warned).to.deep.equal(['generation_config.transformers_version', 'generation_config.frobnicate']);
    const own = parse({ generation_config: JSON.stringify(config), max_completion_tokens: 7, stop: 'x' }).request;
    expect(own).to.deep.include({ maxTokens: 7, stop: ['x'] });
  });

  it('samples as do_sample says', () => {
    const temperatureOf = (config: object): number | undefined =>
      parse({ generation_config: JSON.stringify(config) }).request.sampling.temperature;
    expect(temperatureOf({ do_sample: false, temperature: 0.5 })).to.equal(0);
    expect(temperatureOf({ do_sample: true })).to.equal(1);
    expect(temperatureOf({ temperature: 0.5 })).to.equal(0.5);
    expect(temperatureOf({})).to.equal(undefined);
    expect(complete({ generation_config: '' }).sampling).to.deep.equal({});
    expect(complete({ generation_config: '{"max_new_tokens": 5}' }).maxTokens).to.equal(5);
  });
});

describe('what ends an answer', () => {
  const configOf = (config: object): object => ({ generation_config: JSON.stringify(config) });

  it('is the request’s, beside the model’s own end tokens', () => {
    expect(parse({}).request).to.deep.include({ stop: [], stopTokenIds: [], ignoreEos: false });
    expect(parse({ stop_token_ids: [3, 0] }).request).to.deep.include({ stopTokenIds: [3, 0], ignoreEos: false });
    expect(complete({ stop_token_ids: null }).stopTokenIds).to.deep.equal([]);
  });

  it('is what a generation_config says, instead of the model’s own', () => {
    expect(parse(configOf({ eos_token_id: 7 })).request).to.deep.include({ stopTokenIds: [7], ignoreEos: true });
    const { request } = parse({ ...configOf({ eos_token_id: [7, 8] }), stop_token_ids: [9] });
    expect(request).to.deep.include({ stopTokenIds: [7, 8, 9], ignoreEos: true });
    expect(parse(configOf({ eos_token_id: null })).request).to.deep.include({ stopTokenIds: [], ignoreEos: false });
    const both = { ...configOf({ eos_token_id: 7 }), ignore_eos: false };
    expect(parse(both).request).to.deep.include({ stopTokenIds: [7], ignoreEos: false });
  });

  it('is taken by responses too, with the rest of the generation_config', () => {
    const config = configOf({ eos_token_id: 7, max_new_tokens: 5, top_k: 3 });
    const request = parseCreateResponse({ input: 'x', ...config, stop_token_ids: [1] }, LENIENT);
    expect(request).to.deep.include({ stopTokenIds: [7, 1], ignoreEos: true, maxOutputTokens: 5 });
    expect(request.sampling).to.deep.equal({ topK: 3 });
    const { warned } = parse({ typical_p: 0.5, min_tokens: 1, no_repeat_ngram_size: 2, guided_json_object: false });
    expect(warned).to.deep.equal([]);
  });

  const invalid: readonly [fields: object, code: string, param: string][] = [
    [{ stop_token_ids: 5 }, 'invalid_type', 'stop_token_ids'],
    [{ stop_token_ids: [-1] }, 'invalid_value', 'stop_token_ids[0]'],
    [{ stop_token_ids: ['a'] }, 'invalid_type', 'stop_token_ids[0]'],
    [{ stop_token_ids: new Array<number>(129).fill(1) }, 'invalid_value', 'stop_token_ids'],
    [configOf({ eos_token_id: '</s>' }), 'invalid_type', 'generation_config.eos_token_id[0]'],
  ];
  for (const [fields, code, param] of invalid) {
    it(`cannot be ${JSON.stringify(fields).slice(0, 70)}`, () => {
      expect(errorOf(() => parse(fields))).to.include({ status: 400, code, param });
    });
  }
});

describe('the grammar of a chat request', () => {
  it('is said in vLLM’s way or as a response format, not both', () => {
    expect(parse({ guided_regex: 'a+' }).request.grammar).to.deep.equal({ type: 'regex', pattern: 'a+' });
    expect(parse({ structured_outputs: { choice: ['a'] } }).request.grammar).to.deep.equal({
      type: 'choice',
      choices: ['a'],
    });
    const formatted = parse({ response_format: { type: 'json_object' } }).request;
    expect([formatted.grammar, formatted.responseFormat]).to.deep.equal([undefined, { type: 'json_object' }]);
    const text = parse({ guided_choice: ['a'], response_format: { type: 'text' } }).request;
    expect(text.grammar).to.deep.equal({ type: 'choice', choices: ['a'] });
    const both = { guided_choice: ['a'], response_format: { type: 'json_object' } };
    expect(errorOf(() => parse(both))).to.include({ code: 'invalid_value', param: 'response_format' });
  });
});

describe('the grammar of a completion request', () => {
  const schema = { type: 'object' };
  const cases: readonly [fields: object, grammar: unknown][] = [
    [{}, undefined],
    [{ guided_json: schema }, { type: 'json_schema', schema }],
    [{ guided_json: JSON.stringify(schema) }, { type: 'json_schema', schema }],
    [{ guided_regex: 'a+' }, { type: 'regex', pattern: 'a+' }],
    [{ guided_choice: ['a', 'b'] }, { type: 'choice', choices: ['a', 'b'] }],
    [{ guided_grammar: 'start: "a"' }, { type: 'lark', grammar: 'start: "a"' }],
    [{ structured_outputs: { json: true } }, { type: 'json_schema', schema: true }],
    [{ structured_outputs: { json_object: true } }, { type: 'json_object' }],
    [{ structured_outputs: { json_object: false } }, undefined],
    [{ response_format: { type: 'text' } }, undefined],
    [{ response_format: { type: 'json_object' } }, { type: 'json_object' }],
    [{ response_format: { type: 'json_object', value: schema } }, { type: 'json_schema', schema }],
    [{ response_format: { type: 'json_schema', json_schema: { name: 'x', schema } } }, { type: 'json_schema', schema }],
  ];
  for (const [fields, grammar] of cases) {
    it(`comes from ${JSON.stringify(fields)}`, () => {
      expect(complete(fields).grammar).to.deep.equal(grammar);
    });
  }

  const invalid: readonly [fields: object, code: string, param: string][] = [
    [{ guided_json: 5 }, 'invalid_type', 'guided_json'],
    [{ guided_json: '{' }, 'invalid_value', 'guided_json'],
    [{ guided_choice: [] }, 'invalid_value', 'guided_choice'],
    [{ guided_choice: [''] }, 'invalid_value', 'guided_choice[0]'],
    [{ structured_outputs: { regex: 1 } }, 'invalid_type', 'structured_outputs.regex'],
    [{ guided_regex: 'a', response_format: { type: 'json_object' } }, 'invalid_value', 'response_format'],
    [{ response_format: { type: 'xml' } }, 'invalid_value', 'response_format.type'],
    [{ response_format: { type: 'json_schema' } }, 'missing_required_parameter', 'response_format.json_schema'],
  ];
  for (const [fields, code, param] of invalid) {
    it(`cannot be ${JSON.stringify(fields)}`, () => {
      expect(errorOf(() => complete(fields))).to.include({ status: 400, code, param });
    });
  }
});
