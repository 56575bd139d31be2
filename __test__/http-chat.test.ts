import { expect } from 'chai';

import {
  bytesToken,
  content,
  finished,
  reasoning,
  started,
  token,
  WIRE_TIMINGS,
  WIRE_USAGE,
} from './helpers/scripted-events.js';
import { dataOf, parseEvents, ScriptedApp } from './helpers/scripted-app.js';
import { Gate } from './helpers/scripted-registry.js';

const CHAT = '/v1/chat/completions';
const ASK = { model: 'm', messages: [{ role: 'user', content: 'hi' }] };

/** What all chunks of one answer have in common is checked and taken away. */
function bodies(events: readonly any[]): any[] {
  const [first] = events;
  expect(first.id).to.match(/^chatcmpl-[0-9a-f]{24}$/);
  expect(Math.abs(first.created - Date.now() / 1000)).to.be.below(60);
  return events.map((event) => {
    if (event === '[DONE]') return event;
    const { id, object, created, model, ...body } = event;
    expect({ id, object, created, model }).to.deep.equal({
      id: first.id,
      object: 'chat.completion.chunk',
      created: first.created,
      model: 'm',
    });
    return body;
  });
}

function choice(delta: object, finish_reason: string | null = null, logprobs: object | null = null) {
  return { index: 0, delta, logprobs, finish_reason };
}

describe('POST /v1/chat/completions', () => {
  it('streams the role, the text, the finish reason and [DONE]', async () => {
    await using app = await ScriptedApp.start([
      { id: 'm', chat: () => [started, { type: 'prefill', computed: 5 }, content('Hel'), content('lo'), finished()] },
    ]);
    expect(bodies(await app.stream(CHAT, ASK))).to.deep.equal([
      { choices: [choice({ role: 'assistant', content: '' })] },
      { choices: [choice({ content: 'Hel' })] },
      { choices: [choice({ content: 'lo' })] },
      { choices: [choice({}, 'stop')], timings: WIRE_TIMINGS },
      '[DONE]',
    ]);
  });

  it('streams the usage last, if asked, and null before', async () => {
    await using app = await ScriptedApp.start([{ id: 'm', chat: () => [started, content('a'), finished('length')] }]);
    const events = await app.stream(CHAT, { ...ASK, stream_options: { include_usage: true } });
    expect(bodies(events)).to.deep.equal([
      { choices: [choice({ role: 'assistant', content: '' })], usage: null },
      { choices: [choice({ content: 'a' })], usage: null },
      { choices: [choice({}, 'length')], usage: null },
      { choices: [], usage: WIRE_USAGE, timings: WIRE_TIMINGS },
      '[DONE]',
    ]);
  });

  it('answers at once with the fold of the same events', async () => {
    await using app = await ScriptedApp.start([
      {
        id: 'm',
        chat: () => [started, reasoning('th', []), reasoning('ink', []), content('Hel'), content('lo'), finished()],
      },
    ]);
    const answer = await app.post(CHAT, ASK);
    expect(answer.status).to.equal(200);
    const { id, created, ...body } = answer.json;
    expect(id).to.match(/^chatcmpl-/);
    expect(created).to.be.a('number');
    expect(body).to.deep.equal({
      object: 'chat.completion',
      model: 'm',
      choices: [
        {
          index: 0,
          message: {
            role: 'assistant',
            content: 'Hello',
            reasoning_content: 'think',
            reasoning: 'think',
            refusal: null,
          },
          logprobs: null,
          finish_reason: 'stop',
        },
      ],
      usage: WIRE_USAGE,
      timings: WIRE_TIMINGS,
    });
  });

  it('streams reasoning under both names, and counts it only where it can', async () => {
    const usage = { stream_options: { include_usage: true } };
    const counted = [token('a'), token('b')];
    await using app = await ScriptedApp.start([
      { id: 'm', chat: () => [started, reasoning('ab', counted), content('c'), finished()] },
      { id: 'uncounted', chat: () => [started, reasoning('ab'), content('c'), finished()] },
    ]);
    const events: any[] = await app.stream(CHAT, { ...ASK, ...usage });
    expect(events[1].choices[0].delta).to.deep.equal({ reasoning_content: 'ab', reasoning: 'ab' });
    expect(events.at(-2).usage.completion_tokens_details).to.deep.equal({ reasoning_tokens: 2 });
    const others: any[] = await app.stream(CHAT, { ...ASK, ...usage, model: 'uncounted' });
    expect(others.at(-2).usage).not.to.have.property('completion_tokens_details');
  });

  it('reports log-probabilities, streamed and whole', async () => {
    const tokens = [token('é', -0.5, { é: -0.5, e: -1.25 }), bytesToken([0xe2, 0x82], Number.NEGATIVE_INFINITY)];
    await using app = await ScriptedApp.start([
      { id: 'm', chat: () => [started, content('é', [tokens[0]!]), content('', [tokens[1]!]), finished()] },
    ]);
    const expected = [
      {
        token: 'é',
        logprob: -0.5,
        bytes: [0xc3, 0xa9],
        top_logprobs: [
          { token: 'é', logprob: -0.5, bytes: [0xc3, 0xa9] },
          { token: 'e', logprob: -1.25, bytes: [0x65] },
        ],
      },
      { token: '\ufffd', logprob: -9999, bytes: [0xe2, 0x82], top_logprobs: [] },
    ];
    const fields = { ...ASK, logprobs: true, top_logprobs: 2 };
    expect(bodies(await app.stream(CHAT, fields)).slice(1, 3)).to.deep.equal([
      { choices: [choice({ content: 'é' }, null, { content: [expected[0]], refusal: null })] },
      { choices: [choice({ content: '' }, null, { content: [expected[1]], refusal: null })] },
    ]);
    const whole = (await app.post(CHAT, fields)).json;
    expect(whole.choices[0].logprobs).to.deep.equal({ content: expected, refusal: null });
    expect(app.registry.first.chatRequests[0]!.logprobs).to.equal(2);
  });

  it('gives the model what the client asked', async () => {
    await using app = await ScriptedApp.start([{ id: 'm', chat: () => [started, finished()] }]);
    await app.post(CHAT, {
      model: 'm',
      messages: [{ role: 'system', content: 'be brief' }],
      max_tokens: 7,
      temperature: 0,
      top_k: 3,
      seed: 11,
      stop: 'END',
      ignore_eos: true,
      tools: [{ type: 'function', function: { name: 'f' } }],
      chat_template_kwargs: { enable_thinking: true },
      cache_salt: 'pepper',
    });
    expect(JSON.parse(JSON.stringify(app.registry.first.chatRequests))).to.deep.equal([
      {
        messages: [{ role: 'system', content: 'be brief' }],
        tools: [{ name: 'f' }],
        sampling: { temperature: 0, topK: 3, seed: 11 },
        maxTokens: 7,
        stop: ['END'],
        ignoreEos: true,
        templateVariables: { enable_thinking: true },
        addGenerationPrompt: true,
        continueFinalMessage: false,
        cacheSalt: 'pepper',
      },
    ]);
  });

  it('answers for the pinned model without an id, under its own', async () => {
    await using app = await ScriptedApp.start([{ id: 'org/pinned', chat: () => [started, finished()] }], {
      pinned: 'org/pinned',
    });
    expect((await app.post(CHAT, { messages: ASK.messages })).json.model).to.equal('org/pinned');
    expect(app.registry.asked).to.deep.equal([undefined]);
  });

  it('can be read from bytes that are cut anywhere', async () => {
    const text = 'Grüße, 世界! 👩‍🚀 "quoted" \r\n\u2028 data: [DONE]\n\n';
    await using app = await ScriptedApp.start([
      { id: 'm', chat: () => [started, ...Array.from(text, (character) => content(character)), finished()] },
    ]);
    const response = await fetch(`${app.url}${CHAT}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ ...ASK, stream: true }),
    });
    const bytes = new Uint8Array(await response.arrayBuffer());
    const random = seeded(7);
    for (let round = 0; round < 100; round++) {
      const events: any[] = dataOf(parseEvents(cutAtRandom(bytes, random)));
      expect(events.at(-1)).to.equal('[DONE]');
      const spoken = events.slice(0, -1).map((event) => event.choices[0].delta.content ?? '');
      expect(spoken.join('')).to.equal(text);
    }
  });

  it('has the headers of an event stream, sent with the first event', async () => {
    const gate = new Gate();
    await using app = await ScriptedApp.start([
      { id: 'm', chat: () => [started, content('a'), { wait: gate.opened }, finished()] },
    ]);
    const response = await fetch(`${app.url}${CHAT}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'x-request-id': 'my-id.1' },
      body: JSON.stringify({ ...ASK, stream: true }),
    });
    expect(response.status).to.equal(200);
    expect(Object.fromEntries(response.headers)).to.include({
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache',
      'x-accel-buffering': 'no',
      'x-request-id': 'my-id.1',
      'openai-version': '2020-10-01',
    });
    expect(response.headers.get('openai-processing-ms')).to.match(/^\d+$/);
    gate.open();
    expect(await response.text()).to.match(/data: \[DONE\]\n\n$/);
  });

  it('logs one line per request, with the tokens, and each field without effect once', async () => {
    await using app = await ScriptedApp.start([{ id: 'm', chat: () => [started, finished()] }]);
    for (let i = 0; i < 2; i++) await app.post(`${CHAT}?key=secret`, { ...ASK, user: 'u', 'odd\n': 1 });
    const lines = app.log.map((line) => line.replace(/\d+ ms/, 'N ms').replace(/[0-9a-f-]{36}/, 'ID'));
    expect(lines).to.have.members([
      'warn /v1/chat/completions: "user" has no effect',
      'warn /v1/chat/completions: "odd\\n" has no effect',
      'info POST /v1/chat/completions 200 N ms 5+3 tokens ID',
      'info POST /v1/chat/completions 200 N ms 5+3 tokens ID',
    ]);
  });
});

/** A small generator of numbers in [0, 1), the same for the same seed. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

function* cutAtRandom(bytes: Uint8Array, random: () => number): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length;) {
    const next = at + 1 + Math.floor(random() * 40);
    yield bytes.subarray(at, next);
    at = next;
  }
}
