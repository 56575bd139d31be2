import { expect } from 'chai';

import { EngineError } from '../ts/engine/types.js';
import { bytesToken, delta, finished, started, token, WIRE_TIMINGS, WIRE_USAGE } from './helpers/scripted-events.js';
import { ScriptedApp } from './helpers/scripted-app.js';
import { Gate } from './helpers/scripted-registry.js';

const PATH = '/v1/completions';
// Raw completions know no reasoning.
const USAGE: object = JSON.parse(JSON.stringify({ ...WIRE_USAGE, completion_tokens_details: undefined }));

describe('POST /v1/completions', () => {
  it('answers a prompt', async () => {
    await using app = await ScriptedApp.start([
      { id: 'm', generate: () => [started, { type: 'prefill', computed: 5 }, delta('Hel'), delta('lo'), finished()] },
    ]);
    const { id, created, ...body } = (await app.post(PATH, { model: 'm', prompt: 'Say' })).json;
    expect(id).to.match(/^cmpl-[0-9a-f]{24}$/);
    expect(created).to.be.a('number');
    expect(body).to.deep.equal({
      object: 'text_completion',
      model: 'm',
      choices: [{ index: 0, text: 'Hello', logprobs: null, finish_reason: 'stop' }],
      usage: USAGE,
      timings: WIRE_TIMINGS,
    });
    expect(JSON.parse(JSON.stringify(app.registry.first.generateRequests))).to.deep.equal([
      {
        model: 1,
        prompt: { text: 'Say', addSpecialTokens: true },
        maxTokens: 16,
        ignoreEos: false,
        sampling: {},
      },
    ]);
  });

  it('streams an answer', async () => {
    await using app = await ScriptedApp.start([
      { id: 'm', generate: () => [started, delta('a'), delta('b'), finished('length')] },
    ]);
    const fields = { model: 'm', prompt: [4, 5], stream_options: { include_usage: true }, seed: 3 };
    const events: any[] = await app.stream(PATH, fields);
    const { id, created } = events[0];
    const chunk = (choices: object[], rest: object) => ({
      id,
      object: 'text_completion',
      created,
      model: 'm',
      choices,
      ...rest,
    });
    const choice = (text: string, finish_reason: string | null = null) => ({
      index: 0,
      text,
      logprobs: null,
      finish_reason,
    });
    expect(events).to.deep.equal([
      chunk([choice('a')], { usage: null }),
      chunk([choice('b')], { usage: null }),
      chunk([choice('', 'length')], { usage: null }),
      chunk([], { usage: USAGE, timings: WIRE_TIMINGS }),
      '[DONE]',
    ]);
    expect(app.registry.first.generateRequests[0]).to.deep.include({ prompt: { ids: [4, 5] } });
  });

  it('echoes the prompt with its log-probabilities', async () => {
    await using app = await ScriptedApp.start([
      {
        id: 'm',
        generate: () => [
          started,
          { type: 'prompt', tokens: [token('<bos>'), token('Grü', -1, { Gra: -0.5 })] },
          { type: 'prompt', tokens: [token('n', -2, { n: -2, x: -3 })] },
          delta('', [bytesToken([0xe2, 0x82], -0.25)]),
          delta('€', [bytesToken([0xac], -0.125)]),
          {
            type: 'delta',
            pieces: [{ text: '!' }, { text: '<end>', special: 9 }],
            tokens: [token('!', -0.5), { ...token('<end>', -0.75), id: 9 }],
            nTokens: 2,
          },
          finished(),
        ],
      },
    ]);
    const fields = { model: 'm', prompt: 'Grün', echo: true, logprobs: 2 };
    const whole = (await app.post(PATH, fields)).json;
    const logprobs = {
      tokens: ['<bos>', 'Grü', 'n', 'bytes:\\xe2\\x82', 'bytes:\\xac', '!', '<end>'],
      token_logprobs: [null, -1, -2, -0.25, -0.125, -0.5, -0.75],
      top_logprobs: [
        null,
        { Gra: -0.5, Grü: -1 },
        { n: -2, x: -3 },
        { 'bytes:\\xe2\\x82': -0.25 },
        { 'bytes:\\xac': -0.125 },
        { '!': -0.5 },
        { '<end>': -0.75 },
      ],
      text_offset: [0, 0, 3, 4, 4, 5, 6],
    };
    expect(whole.choices).to.deep.equal([{ index: 0, text: 'Grün€!', logprobs, finish_reason: 'stop' }]);
    expect(app.registry.first.generateRequests[0]).to.include({ logprobs: 2, promptLogprobs: 2 });

    const events: any[] = await app.stream(PATH, fields);
    const choices = events.slice(0, -1).flatMap((event) => event.choices);
    expect(choices.map((choice) => choice.text).join('')).to.equal('Grün€!');
    for (const key of ['tokens', 'token_logprobs', 'top_logprobs', 'text_offset'] as const) {
      expect(choices.flatMap((choice) => choice.logprobs?.[key] ?? [])).to.deep.equal(logprobs[key]);
    }
  });

  it('counts offsets from a prompt whose tokenizer puts a space before it', async () => {
    await using app = await ScriptedApp.start([
      {
        id: 'm',
        generate: () => [started, { type: 'prompt', tokens: [token(' Hi'), token(' you', -1)] }, finished('length')],
      },
    ]);
    const answer = await app.post(PATH, { model: 'm', prompt: 'Hi you', echo: true, logprobs: 0, max_tokens: 0 });
    expect(answer.json.choices[0]).to.deep.include({ text: 'Hi you', finish_reason: 'length' });
    expect(answer.json.choices[0].logprobs.text_offset).to.deep.equal([0, 2]);
    expect(app.registry.first.generateRequests[0]).to.include({ maxTokens: 0, logprobs: 0, promptLogprobs: 0 });
  });

  it('echoes ids as their text', async () => {
    await using app = await ScriptedApp.start([{ id: 'm', generate: () => [started, delta('c'), finished()] }]);
    const answer = await app.post(PATH, { model: 'm', prompt: [1, 2], echo: true });
    expect(answer.json.choices[0].text).to.equal('<1><2>c');
    expect(app.registry.first.generateRequests[0]!.promptLogprobs).to.equal(undefined);
  });

  it('answers several prompts by index, with the sum of their usage', async () => {
    await using app = await ScriptedApp.start([
      {
        id: 'm',
        maxNumSeqs: 2,
        generate: ({ prompt }) => [started, delta('text' in prompt ? prompt.text.toUpperCase() : ''), finished()],
      },
    ]);
    const answer = await app.post(PATH, { model: 'm', prompt: ['a', 'b', 'c'] });
    expect(answer.json.choices.map((choice: any) => [choice.index, choice.text])).to.deep.equal([
      [0, 'A'],
      [1, 'B'],
      [2, 'C'],
    ]);
    expect(answer.json.usage).to.include({ prompt_tokens: 15, completion_tokens: 9, total_tokens: 24 });
    expect(answer.json).not.to.have.property('timings');
    expect(app.registry.first.mostRunning).to.equal(2);
  });

  it('streams several prompts as they come', async () => {
    const gate = new Gate();
    await using app = await ScriptedApp.start([
      {
        id: 'm',
        *generate({ prompt }) {
          const slow = 'text' in prompt && prompt.text === 'slow';
          yield started;
          if (slow) yield { wait: gate.opened };
          yield delta(slow ? 'late' : 'early');
          yield finished();
          gate.open();
        },
      },
    ]);
    const events: any[] = await app.stream(PATH, { model: 'm', prompt: ['slow', 'fast'] });
    const seen = events.slice(0, -1).map(({ choices: [choice] }) => [choice.index, choice.text, choice.finish_reason]);
    expect(seen).to.deep.equal([
      [1, 'early', null],
      [1, '', 'stop'],
      [0, 'late', null],
      [0, '', 'stop'],
    ]);
  });

  it('leaves all prompts when one fails', async () => {
    const never = new Gate();
    await using app = await ScriptedApp.start([
      {
        id: 'm',
        *generate({ prompt }) {
          yield started;
          if ('text' in prompt && prompt.text === 'bad') yield { fail: new EngineError('queue_full', 'full') };
          yield { wait: never.opened };
        },
      },
    ]);
    const answer = await app.post(PATH, { model: 'm', prompt: ['a', 'bad', 'b'] });
    expect([answer.status, answer.json.error.code]).to.deep.equal([429, 'rate_limit_exceeded']);
    expect(app.registry.first).to.include({ running: 0, cancelled: 3, held: 0 });
  });
});
