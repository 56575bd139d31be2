/** Stop tokens, vLLM's structured output in chat and default seeds, on real weights over HTTP. */

import { expect } from 'chai';

import { FORMATS } from '../ts/chat/formats/index.js';
import { formatTokens } from '../ts/chat/formats/vocabulary.js';
import { compileFormat } from '../ts/chat/output-parser.js';
import { guidedGrammar } from '../ts/chat/tool-grammar.js';
import type { Grammar } from '../ts/engine/types.js';
import { type RealServer, startRealServer } from './helpers/real-server.js';

const QUESTION = [{ role: 'user', content: 'Is the sky blue? Answer yes or no.' }];

describe('structured output and stop tokens of real weights', function () {
  this.timeout(300_000);
  let server: RealServer;

  const post = async (path: string, body: object): Promise<{ status: number; json: any }> => {
    const response = await fetch(`${server.url}${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    return { status: response.status, json: await response.json() };
  };
  const chat = async (body: object) => {
    const { status, json } = await post('/v1/chat/completions', { messages: QUESTION, max_tokens: 24, ...body });
    expect(status, JSON.stringify(json)).to.equal(200);
    return json.choices[0];
  };

  const idsOf = async (text: string): Promise<number[]> => {
    using lease = await server.registry.acquire(undefined);
    const { engine, info } = lease.model;
    return await engine.tokenize(info.handle, text, false);
  };

  before(async () => {
    server = await startRealServer('qwen2.5-coder-0.5b-instruct-q4_k_m', { maxModelLen: 1024, defaultSeed: 7 });
  });
  after(() => server.close());

  const GRAMMAR = 'start: "<" word ">"\nword: /[x-z]{2}/';
  const BLUE = { type: 'object', properties: { blue: { type: 'boolean' } }, required: ['blue'] };

  it('holds chat to a choice, an expression, a grammar and a schema', async () => {
    const contentOf = async (body: object): Promise<string> => {
      const { message, finish_reason: reason } = await chat(body);
      expect(reason).to.equal('stop');
      return message.content as string;
    };
    expect(await contentOf({ guided_choice: ['perhaps', 'maybe'] })).to.be.oneOf(['perhaps', 'maybe']);
    expect(await contentOf({ guided_regex: '[0-9]{2}/[a-c]{3}' })).to.match(/^[0-9]{2}\/[a-c]{3}$/);
    expect(await contentOf({ guided_grammar: GRAMMAR })).to.match(/^<[x-z]{2}>$/);
    expect(await contentOf({ structured_outputs: { grammar: GRAMMAR } })).to.match(/^<[x-z]{2}>$/);
    const closed = { ...BLUE, additionalProperties: false };
    expect(JSON.parse(await contentOf({ guided_json: closed }))).to.have.all.keys('blue');
  });

  // Where a model may think first the whole answer has a grammar of ours, with the request's inside.
  const wanted: readonly (readonly [Grammar, RegExp])[] = [
    [{ type: 'choice', choices: ['perhaps', 'may"be'] }, /^(perhaps|may"be)$/],
    [{ type: 'regex', pattern: '[0-9]{2}/[a-c]{3}' }, /^[0-9]{2}\/[a-c]{3}$/],
    [{ type: 'lark', grammar: GRAMMAR }, /^<[x-z]{2}>$/],
    [{ type: 'json_schema', schema: BLUE }, /^\{"blue": (true|false)/],
  ];
  for (const [grammar, pattern] of wanted) {
    it(`takes a ${grammar.type} inside of it`, async () => {
      using lease = await server.registry.acquire(undefined);
      const { engine, info } = lease.model;
      const hermes = FORMATS.find(({ name }) => name === 'hermes')!;
      const format = compileFormat(hermes, await formatTokens(engine, info.handle, hermes));
      const { grammar: whole } = guidedGrammar(format, grammar).constraint;
      expect(whole).to.have.property('type', 'lark');
      const request = {
        model: info.handle,
        prompt: { text: 'The sky is blue. True?', addSpecialTokens: false },
        maxTokens: 64,
        constraint: { grammar: whole },
        // It may think first, and shall not.
        sampling: { temperature: 0, badWords: [await idsOf('<think')] },
      };
      let text = '';
      for await (const event of engine.generate(request)) {
        if (event.type === 'delta')
          text += event.pieces.map((piece) => (piece.special === undefined ? piece.text : '')).join('');
      }
      expect(text).to.match(pattern);
    });
  }

  it('says what is wrong with a grammar before anything is generated', async () => {
    for (const body of [
      { guided_regex: '(' },
      { guided_grammar: 'no grammar' },
      { guided_json: { type: 'nothing' } },
    ]) {
      const { status, json } = await post('/v1/chat/completions', { messages: QUESTION, ...body });
      expect([status, json.error.type], JSON.stringify(json)).to.deep.equal([400, 'invalid_request_error']);
    }
  });

  it('ends at a stop token, whose text is left out, as well as at the model’s own', async () => {
    const ask = { prompt: 'one two three four', max_tokens: 12, temperature: 0 };
    const whole = (await post('/v1/completions', { ...ask, logprobs: 0 })).json.choices[0];
    const tokens: string[] = whole.logprobs.tokens;
    const [stop] = await idsOf(tokens[3]!);
    const first = tokens.indexOf(tokens[3]!);
    const cut = (await post('/v1/completions', { ...ask, stop_token_ids: [stop], logprobs: 0 })).json;
    expect(cut.choices[0].text).to.equal(tokens.slice(0, first).join(''));
    expect([cut.choices[0].finish_reason, cut.choices[0].logprobs.tokens.length]).to.deep.equal(['stop', first]);
    expect(cut.usage.completion_tokens).to.equal(first + 1);
    // Ignoring the model's own does not mean this one.
    const ignoring = (await post('/v1/completions', { ...ask, stop_token_ids: [stop], ignore_eos: true })).json;
    expect(ignoring.choices[0].text).to.equal(cut.choices[0].text);
    const config = JSON.stringify({ eos_token_id: stop, max_new_tokens: 12 });
    const { prompt, temperature } = ask;
    const configured = (await post('/v1/completions', { prompt, temperature, generation_config: config })).json;
    expect(configured.choices[0].text).to.equal(cut.choices[0].text);
    const refused = (await post('/v1/completions', { ...ask, stop_token_ids: [9e6] })).json;
    expect(refused.error).to.include({ param: 'stop_token_ids', type: 'invalid_request_error' });
    expect(refused.error.message).to.match(/9000000 is not in the vocabulary/);
  });

  it('stops chat and responses alike', async () => {
    const stops = await idsOf(' sky');
    const ask = { temperature: 0, stop_token_ids: stops };
    const messages = [{ role: 'user', content: 'Repeat exactly: The sky is blue.' }];
    const { message, finish_reason: reason } = await chat({ ...ask, messages });
    expect([message.content, reason]).to.deep.equal(['The', 'stop']);
    const { json } = await post('/v1/responses', { ...ask, input: messages[0]!.content, max_output_tokens: 24 });
    expect([json.status, json.output[0].content[0].text]).to.deep.equal(['completed', 'The']);
  });

  it('gives several answers different seeds, also where the seed is the server’s', async () => {
    const ask = { prompt: 'A random word:', n: 4, max_tokens: 8, temperature: 1.5 };
    const textsOf = async (body: object): Promise<string[]> =>
      (await post('/v1/completions', { ...ask, ...body })).json.choices.map(({ text }: { text: string }) => text);
    const texts = await textsOf({});
    expect(new Set(texts).size).to.be.greaterThan(1);
    expect(await textsOf({})).to.deep.equal(texts);
    expect(await textsOf({ seed: 7 })).to.deep.equal(texts);
  });
});
