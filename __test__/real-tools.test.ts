/** Tool calls of real weights: what a small model makes of the prompts people try first. */

import { expect } from 'chai';
import OpenAI from 'openai';

import { startRealServer, type RealServer } from './helpers/real-server.js';

const WEATHER = {
  type: 'function' as const,
  function: {
    name: 'get_weather',
    description: 'Get the current weather in a city',
    parameters: {
      type: 'object',
      properties: { city: { type: 'string', description: 'The city' } },
      required: ['city'],
    },
  },
};
const ADD = {
  type: 'function' as const,
  function: {
    name: 'add',
    description: 'Add two numbers',
    parameters: {
      type: 'object',
      properties: { a: { type: 'number' }, b: { type: 'number' } },
      required: ['a', 'b'],
    },
  },
};

const CASES = [
  { text: 'What is the weather in Paris? Use the tool.', name: 'get_weather', arguments: { city: 'Paris' } },
  { text: 'Please add 12 and 30 with the add tool.', name: 'add', arguments: { a: 12, b: 30 } },
];

describe('real weights: tool calls of qwen2.5-coder-0.5b', function () {
  this.timeout(600_000);
  let server: RealServer;
  let client: OpenAI;

  before(async () => {
    server = await startRealServer('qwen2.5-coder-0.5b-instruct-q4_k_m', { maxModelLen: 2048 });
    client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'k', maxRetries: 0 });
  });
  after(() => server.close());

  for (const example of CASES) {
    const request = {
      model: '',
      messages: [{ role: 'user' as const, content: example.text }],
      tools: [WEATHER, ADD],
      temperature: 0,
      max_tokens: 200,
    };
    const check = (choice: OpenAI.ChatCompletion.Choice | undefined): void => {
      expect(choice?.finish_reason).to.equal('tool_calls');
      const [call, ...more] = choice?.message.tool_calls ?? [];
      expect(more).to.deep.equal([]);
      if (call?.type !== 'function') throw new Error('no function was called');
      expect(call.function.name).to.equal(example.name);
      expect(JSON.parse(call.function.arguments)).to.deep.equal(example.arguments);
    };

    it(`${example.text} (auto)`, async () => {
      check((await client.chat.completions.create(request)).choices[0]);
    });

    it(`${example.text} (auto, streamed)`, async () => {
      check((await client.chat.completions.stream(request).finalChatCompletion()).choices[0]);
    });
  }

  it('an answer uses what the tool gave', async () => {
    const ask = { model: '', tools: [WEATHER, ADD], temperature: 0, max_tokens: 200 };
    const user = { role: 'user' as const, content: CASES[1]?.text ?? '' };
    const { message } = (await client.chat.completions.create({ ...ask, messages: [user] })).choices[0] ?? {};
    const call = message?.tool_calls?.[0];
    if (message === undefined || call === undefined) throw new Error('no function was called');
    const result = { role: 'tool' as const, tool_call_id: call.id, content: '42' };
    // With the tools still before it, so small a model calls again and again.
    const messages = [user, message, result];
    const answer = await client.chat.completions.create({ ...ask, messages, tool_choice: 'none' });
    expect(answer.choices[0]?.finish_reason).to.equal('stop');
    expect(answer.choices[0]?.message.content).to.contain('42');
  });
});
