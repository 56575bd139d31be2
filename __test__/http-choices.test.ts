import { expect } from 'chai';

import type { ChatRequest } from '../ts/chat/types.js';
import type { GenerateRequest } from '../ts/engine/types.js';
import { content, delta, finished, reasoning, started } from './helpers/scripted-events.js';
import { ScriptedApp } from './helpers/scripted-app.js';
import { Gate } from './helpers/scripted-registry.js';

const CHAT = '/v1/chat/completions';
const ask = { model: 'org/one', messages: [{ role: 'user', content: 'hi' }] };
const seedOf = ({ sampling }: ChatRequest | GenerateRequest): string => String(sampling?.seed ?? '?');

/** Each answers with its seed. */
const MODEL = {
  id: 'org/one',
  chat: (request: ChatRequest) => [started, reasoning('hm'), content('seed '), content(seedOf(request)), finished()],
  generate: (request: GenerateRequest) => [
    started,
    delta(`${'text' in request.prompt ? request.prompt.text : ''}${seedOf(request)}`),
    finished(),
  ],
};

describe('several answers to one prompt', () => {
  it('are the choices of one chat completion, with seeds that count up', async () => {
    await using app = await ScriptedApp.start([MODEL]);
    const { json } = await app.post(CHAT, { ...ask, n: 3, seed: 7 });
    expect(
      json.choices.map(({ index, message, finish_reason }: any) => [index, message.content, finish_reason]),
    ).to.deep.equal([
      [0, 'seed 7', 'stop'],
      [1, 'seed 8', 'stop'],
      [2, 'seed 9', 'stop'],
    ]);
    expect(json.choices[1].message.reasoning).to.equal('hm');
    // The prompt counts once, the answers each; reasoning tokens are not known here.
    expect(json.usage).to.deep.equal({
      prompt_tokens: 5,
      completion_tokens: 9,
      total_tokens: 14,
      prompt_tokens_details: { cached_tokens: 2 },
    });
    expect(json).not.to.have.property('timings');
    expect(app.log.at(-1)).to.contain('5+9 tokens');
    const again = await app.post(CHAT, { ...ask, n: 1, seed: 8 });
    expect(again.json.choices[0].message.content).to.equal('seed 8');
  });

  it('differ where the server has a seed of its own, too', async () => {
    await using app = await ScriptedApp.start([{ ...MODEL, defaultSeed: 40 }]);
    const { json } = await app.post(CHAT, { ...ask, n: 3 });
    // The first leaves it to the engine, which has that seed.
    expect(json.choices.map(({ message }: any) => message.content)).to.deep.equal(['seed ?', 'seed 41', 'seed 42']);
    const { json: own } = await app.post('/v1/completions', { model: 'org/one', prompt: '', n: 2, seed: 5 });
    expect(own.choices.map(({ text }: any) => text)).to.deep.equal(['5', '6']);
  });

  it('stream with their index, one usage at the end if it is asked for', async () => {
    await using app = await ScriptedApp.start([MODEL]);
    const plain = (await app.stream(CHAT, { ...ask, n: 2, seed: 1 })) as any[];
    expect(plain.pop()).to.equal('[DONE]');
    for (const index of [0, 1]) {
      const own = plain.filter((chunk) => chunk.choices[0].index === index).map((chunk) => chunk.choices[0]);
      expect(own[0].delta.role).to.equal('assistant');
      expect(own.map((choice) => choice.delta.content ?? '').join('')).to.equal(`seed ${index + 1}`);
      expect(own.at(-1).finish_reason).to.equal('stop');
    }
    expect(plain.some((chunk) => 'usage' in chunk || 'timings' in chunk)).to.equal(false);
    const counted = (await app.stream(CHAT, { ...ask, n: 2, stream_options: { include_usage: true } })) as any[];
    const usages = counted.slice(0, -1).map((chunk) => chunk.usage);
    expect(usages.pop()).to.include({ prompt_tokens: 5, completion_tokens: 6, total_tokens: 11 });
    expect(usages.every((usage) => usage === null)).to.equal(true);
  });

  it('begin when the first has computed the prompt, and end with their client', async () => {
    const gate = new Gate();
    await using app = await ScriptedApp.start([
      {
        id: 'org/one',
        chat: () => [started, { wait: gate.opened }, content('a'), { wait: new Promise(() => undefined) }],
      },
    ]);
    const { first } = app.registry;
    const abort = new AbortController();
    const gone = fetch(`${app.url}${CHAT}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ ...ask, n: 3, stream: true }),
      signal: abort.signal,
    })
      .then((answer) => answer.text())
      .catch(() => undefined);
    await app.registry.until(() => first.played === 1);
    expect(first.chatRequests).to.have.length(1);
    gate.open();
    await app.registry.until(() => first.running === 3);
    abort.abort();
    await gone;
    await app.registry.until(() => first.running === 0 && first.held === 0);
    expect(first.cancelled).to.equal(3);
  });

  it('come in the order of the prompts for text completions, each prompt counted once', async () => {
    await using app = await ScriptedApp.start([MODEL]);
    const { json } = await app.post('/v1/completions', {
      model: 'org/one',
      prompt: ['x', 'y'],
      n: 2,
      seed: 3,
      echo: true,
    });
    expect(json.choices.map(({ index, text }: any) => [index, text])).to.deep.equal([
      [0, 'xx3'],
      [1, 'xx4'],
      [2, 'yy3'],
      [3, 'yy4'],
    ]);
    expect(json.usage).to.include({ prompt_tokens: 10, completion_tokens: 12 });
  });

  it('are bounded', async () => {
    await using app = await ScriptedApp.start([MODEL]);
    for (const n of [0, 129, 1.5, 'two']) {
      expect((await app.post(CHAT, { ...ask, n })).json.error, String(n)).to.include({ param: 'n' });
    }
  });
});
