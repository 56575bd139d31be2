/** Tool calls of real weights: what a small model makes of the prompts people try first. */

import { expect } from 'chai';
import OpenAI from 'openai';
import { zodFunction, zodResponseFormat, zodTextFormat } from 'openai/helpers/zod';
import { z } from 'zod';

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
type Example = (typeof CASES)[number];

type Tool = typeof WEATHER | typeof ADD;

/** As strict tools have to be. */
function strict(tool: Tool): Tool & { function: { strict: true } } {
  const parameters = { ...tool.function.parameters, additionalProperties: false };
  return { ...tool, function: { ...tool.function, parameters, strict: true } } as Tool & { function: { strict: true } };
}

const TOOLS: readonly Tool[] = [WEATHER, ADD];
const CHOICES = ['auto', 'required', 'named', 'strict'] as const;
type Choice = (typeof CHOICES)[number];

/** Tools and choice in the form of chat completions. */
function chatTools(choice: Choice, name: string): Pick<OpenAI.ChatCompletionCreateParams, 'tools' | 'tool_choice'> {
  if (choice === 'strict') return { tools: TOOLS.map(strict) };
  const tools = [...TOOLS];
  return { tools, tool_choice: choice === 'named' ? { type: 'function', function: { name } } : choice };
}

/** The same for Responses, which has them flat. */
function responseTools(
  choice: Choice,
  name: string,
): Pick<OpenAI.Responses.ResponseCreateParams, 'tools' | 'tool_choice'> {
  const flat = (tool: Tool): OpenAI.Responses.FunctionTool => {
    const definition = choice === 'strict' ? strict(tool).function : tool.function;
    return { type: 'function', strict: choice === 'strict', ...definition };
  };
  const tools = TOOLS.map(flat);
  if (choice === 'strict') return { tools };
  return { tools, tool_choice: choice === 'named' ? { type: 'function', name } : choice };
}

describe('real weights: tool calls of qwen2.5-coder-0.5b', function () {
  this.timeout(600_000);
  let server: RealServer;
  let client: OpenAI;

  before(async () => {
    server = await startRealServer('qwen2.5-coder-0.5b-instruct-q4_k_m', { maxModelLen: 2048 });
    client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'k', maxRetries: 0 });
  });
  after(() => server.close());

  const checkChat = (example: Example, choice: OpenAI.ChatCompletion.Choice | undefined): void => {
    expect(choice?.finish_reason).to.equal('tool_calls');
    expect(choice?.message.content ?? null).to.equal(null);
    const [call, ...more] = choice?.message.tool_calls ?? [];
    expect(more).to.deep.equal([]);
    if (call?.type !== 'function') throw new Error('no function was called');
    expect(call.id).to.match(/^call_/);
    expect(call.function.name).to.equal(example.name);
    expect(JSON.parse(call.function.arguments)).to.deep.equal(example.arguments);
  };
  const checkResponse = (example: Example, response: OpenAI.Responses.Response): void => {
    expect(response.status).to.equal('completed');
    const [item, ...more] = response.output;
    expect(more).to.deep.equal([]);
    if (item?.type !== 'function_call') throw new Error('no function was called');
    expect(item.name).to.equal(example.name);
    expect(JSON.parse(item.arguments)).to.deep.equal(example.arguments);
  };

  for (const example of CASES) {
    for (const choice of CHOICES) {
      describe(`${example.text} (${choice})`, () => {
        const chat = {
          model: '',
          messages: [{ role: 'user' as const, content: example.text }],
          ...chatTools(choice, example.name),
          temperature: 0,
          max_tokens: 200,
        };
        const response = {
          model: '',
          input: example.text,
          ...responseTools(choice, example.name),
          temperature: 0,
          max_output_tokens: 200,
          store: false,
        };
        it('chat', async () => {
          checkChat(example, (await client.chat.completions.create(chat)).choices[0]);
        });
        it('chat, streamed', async () => {
          const stream = client.chat.completions.stream(chat);
          let said = '';
          for await (const chunk of stream) {
            const [call] = chunk.choices[0]?.delta.tool_calls ?? [];
            if (call === undefined) continue;
            // Id, type and name come once, with the first delta of the call.
            expect([call.id, call.type, call.function?.name].map((part) => part !== undefined)).to.deep.equal(
              Array(3).fill(said === ''),
            );
            said += call.function?.arguments === '' ? ' ' : (call.function?.arguments ?? '');
          }
          expect(JSON.parse(said)).to.deep.equal(example.arguments);
          checkChat(example, (await stream.finalChatCompletion()).choices[0]);
        });
        it('Responses', async () => {
          checkResponse(example, await client.responses.create(response));
        });
        it('Responses, streamed', async () => {
          const stream = client.responses.stream(response);
          let said = '';
          for await (const event of stream) {
            if (event.type === 'response.function_call_arguments.delta') said += event.delta;
          }
          expect(JSON.parse(said)).to.deep.equal(example.arguments);
          checkResponse(example, await stream.finalResponse());
        });
      });
    }
  }

  it('a tool whose schema cannot be enforced is called under auto, and refused with the reason where it must be', async () => {
    const parameters = { type: 'object', properties: { city: { type: 'string', pattern: '(?=P)[A-Z]' } } };
    const odd = { ...WEATHER, function: { ...WEATHER.function, parameters } };
    const request = {
      model: '',
      messages: [{ role: 'user' as const, content: 'What is the weather in Paris? Use the tool.' }],
      temperature: 0,
      max_tokens: 200,
    };
    const answer = await client.chat.completions.create({ ...request, tools: [odd, ADD] });
    checkChat(CASES[0] as Example, answer.choices[0]);
    const demands = [
      { tools: [odd, ADD], tool_choice: 'required' as const },
      { tools: [ADD, odd], tool_choice: { type: 'function' as const, function: { name: 'get_weather' } } },
      { tools: [ADD, { ...odd, function: { ...odd.function, strict: true } }] },
    ];
    for (const demand of demands) {
      const error: unknown = await client.chat.completions.create({ ...request, ...demand }).catch((e: unknown) => e);
      if (!(error instanceof OpenAI.BadRequestError)) throw new Error('it was accepted');
      expect(error.param).to.equal('tools');
      expect(error.message).to.match(/the parameters of the tool 'get_weather' cannot be enforced: .*look-around/);
      expect(error.message).to.not.contain('start:');
    }
  });

  it('several calls in one answer, where several may be made', async () => {
    const content = 'What is the weather in Paris and in London? Use the tool for both.';
    const messages = [{ role: 'user' as const, content }];
    const choice = { tools: [WEATHER], tool_choice: 'required' as const };
    const request = { model: '', messages, ...choice, temperature: 0, max_tokens: 200 };
    const calls = async (parallel: boolean): Promise<unknown[]> => {
      const { choices } = await client.chat.completions.create({ ...request, parallel_tool_calls: parallel });
      expect(choices[0]?.finish_reason).to.equal('tool_calls');
      return (choices[0]?.message.tool_calls ?? []).map((call) =>
        call.type === 'function' ? (JSON.parse(call.function.arguments) as unknown) : undefined,
      );
    };
    expect(await calls(true)).to.deep.equal([{ city: 'Paris' }, { city: 'London' }]);
    expect(await calls(false)).to.deep.equal([{ city: 'Paris' }]);
  });

  describe('the openai client and zod', () => {
    const Person = z.object({
      name: z.string(),
      age: z.number().int(),
      level: z.enum(['junior', 'senior']),
      address: z.object({ city: z.string(), zip: z.string().nullable() }),
      tags: z.array(z.string()).max(3),
    });
    const content = 'Ann is 33, a senior engineer in Paris. She likes chess. Answer as JSON.';
    const limits = { temperature: 0, max_tokens: 300 };
    const checkPerson = (person: unknown): void => {
      const { name, age, level, address } = Person.parse(person);
      expect({ name, age, level, city: address.city }).to.deep.equal({
        name: 'Ann',
        age: 33,
        level: 'senior',
        city: 'Paris',
      });
    };

    it('parse an answer, streamed and not, in chat and in Responses', async () => {
      const chat = {
        model: '',
        messages: [{ role: 'user' as const, content }],
        response_format: zodResponseFormat(Person, 'person'),
        ...limits,
      };
      checkPerson((await client.chat.completions.parse(chat)).choices[0]?.message.parsed);
      const streamed = await client.chat.completions.stream(chat).finalChatCompletion();
      checkPerson(streamed.choices[0]?.message.parsed);
      const text = { format: zodTextFormat(Person, 'person') };
      const response = { model: '', input: content, text, temperature: 0, max_output_tokens: 300, store: false };
      checkPerson((await client.responses.parse(response)).output_parsed);
      checkPerson((await client.responses.stream(response).finalResponse()).output_parsed);
    });

    it('parse the arguments of a strict tool', async () => {
      const add = zodFunction({
        name: 'add',
        description: 'Add two numbers',
        parameters: z.object({ a: z.number(), b: z.number() }),
      });
      const messages = [{ role: 'user' as const, content: CASES[1]?.text ?? '' }];
      const { choices } = await client.chat.completions.parse({ model: '', messages, tools: [add], ...limits });
      const [call] = choices[0]?.message.tool_calls ?? [];
      expect(call?.function.parsed_arguments).to.deep.equal({ a: 12, b: 30 });
    });

    it('run tools', async () => {
      const seen: unknown[] = [];
      const parameters = z.object({ a: z.number(), b: z.number() });
      const callback = (given: z.infer<typeof parameters>): string => {
        seen.push(given);
        return String(given.a + given.b);
      };
      const add = zodFunction({ name: 'add', description: 'Add two numbers', parameters, function: callback });
      const request = {
        model: '',
        messages: [{ role: 'user' as const, content: CASES[1]?.text ?? '' }],
        tools: [add],
        // So small a model would call again and again: with a named function the client ends after it.
        tool_choice: { type: 'function' as const, function: { name: 'add' } },
        ...limits,
      };
      await client.chat.completions.runTools(request).done();
      const runner = client.chat.completions.runTools({ ...request, stream: true });
      expect(await runner.finalFunctionToolCallResult()).to.equal('42');
      expect(seen).to.deep.equal([
        { a: 12, b: 30 },
        { a: 12, b: 30 },
      ]);
    });
  });

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
