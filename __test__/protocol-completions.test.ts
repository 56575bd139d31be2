import { expect } from 'chai';

import { parseCompletionRequest } from '../ts/protocol/completions.js';
import { ApiError } from '../ts/protocol/errors.js';

function parse(body: unknown) {
  return parseCompletionRequest(body, { strict: false, warn: () => undefined });
}

describe('a completion request', () => {
  it('has defaults', () => {
    expect(parse({ prompt: 'a' })).to.deep.include({
      prompts: [{ text: 'a' }],
      maxTokens: 16,
      echo: false,
      addSpecialTokens: true,
      logprobs: undefined,
      stream: false,
    });
  });

  const prompts: readonly [name: string, prompt: unknown, expected: unknown][] = [
    ['a string', 'a', [{ text: 'a' }]],
    ['an empty string', '', [{ text: '' }]],
    ['strings', ['a', 'b'], [{ text: 'a' }, { text: 'b' }]],
    ['token ids', [1, 2, 0], [{ ids: [1, 2, 0] }]],
    ['lists of token ids', [[1], [2, 3]], [{ ids: [1] }, { ids: [2, 3] }]],
  ];
  for (const [name, prompt, expected] of prompts) {
    it(`takes ${name} as prompt`, () => {
      expect(parse({ prompt }).prompts).to.deep.equal(expected);
    });
  }

  it('takes every honoured field', () => {
    const request = parse({
      model: 'm',
      prompt: 'a',
      max_tokens: 0,
      echo: true,
      logprobs: 5,
      stream: true,
      stream_options: { include_usage: true },
      add_special_tokens: false,
      stop: 'x',
      seed: 1,
      temperature: 1,
      best_of: 1,
      n: 1,
      suffix: '',
    });
    expect(request).to.deep.include({
      model: 'm',
      maxTokens: 0,
      echo: true,
      logprobs: 5,
      stream: true,
      includeUsage: true,
      addSpecialTokens: false,
      stop: ['x'],
    });
  });

  const invalid: readonly [name: string, body: object, code: string, param: string][] = [
    ['no prompt', {}, 'missing_required_parameter', 'prompt'],
    ['a prompt of the wrong type', { prompt: 5 }, 'invalid_type', 'prompt'],
    ['an empty list', { prompt: [] }, 'invalid_value', 'prompt'],
    ['an empty list of ids', { prompt: [[]] }, 'invalid_value', 'prompt[0]'],
    ['ids and text', { prompt: [1, 'a'] }, 'invalid_type', 'prompt[1]'],
    ['objects', { prompt: ['a', {}] }, 'invalid_type', 'prompt[1]'],
    ['a negative id', { prompt: [1, -1] }, 'invalid_value', 'prompt[1]'],
    ['a broken id', { prompt: [[0.5]] }, 'invalid_type', 'prompt[0][0]'],
    ['too many prompts', { prompt: Array.from({ length: 129 }, () => 'a') }, 'invalid_value', 'prompt'],
    ['max_tokens 0 without echo', { prompt: 'a', max_tokens: 0 }, 'invalid_value', 'max_tokens'],
    ['negative max_tokens', { prompt: 'a', max_tokens: -1, echo: true }, 'invalid_value', 'max_tokens'],
    ['too many logprobs', { prompt: 'a', logprobs: 21 }, 'invalid_value', 'logprobs'],
    ['logprobs as a boolean', { prompt: 'a', logprobs: true }, 'invalid_type', 'logprobs'],
    ['a suffix', { prompt: 'a', suffix: 'b' }, 'unsupported_parameter', 'suffix'],
    ['best_of', { prompt: 'a', best_of: 2 }, 'unsupported_parameter', 'best_of'],
    ['no answers', { prompt: 'a', n: 0 }, 'invalid_value', 'n'],
    ['too many answers', { prompt: ['a', 'b'], n: 65 }, 'invalid_value', 'n'],
    ['five stop strings', { prompt: 'a', stop: ['1', '2', '3', '4', '5'] }, 'invalid_value', 'stop'],
  ];
  for (const [name, body, code, param] of invalid) {
    it(`cannot have ${name}`, () => {
      expect(() => parse(body))
        .to.throw(ApiError)
        .that.includes({ status: 400, code, param });
    });
  }
});
