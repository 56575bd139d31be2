/** Tool calls from the engine's pieces to the wire, with the official client as an oracle. */

import { expect } from 'chai';
import OpenAI from 'openai';

import { createRegistry } from '../ts/app/registry.js';
import { createLocalModel } from '../ts/chat/local-model.js';
import { openModelEngine } from '../ts/app/create-engine.js';
import type { GenerateRequest, GenerationEvent, TextPiece } from '../ts/engine/types.js';
import { createApp } from '../ts/http/app.js';
import { closeServer, createHttpServer, listen } from '../ts/http/server.js';
import { CHATML, ScriptedEngine } from './helpers/scripted-engine.js';
import { watchServer } from './helpers/schemas/watch.js';
import { TIMINGS } from './helpers/scripted-events.js';

/** Shows tools and their results, and speaks of `<tool_call>`. */
const TEMPLATE =
  '{# <tool_call></tool_call> <think></think> #}' +
  "{% for t in tools or [] %}{{ '[' + t.function.name + ']' }}{% endfor %}" +
  CHATML;

const TOOLS = [
  {
    type: 'function' as const,
    function: {
      name: 'get_weather',
      parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
    },
  },
  { type: 'function' as const, function: { name: 'get_time', parameters: { type: 'object', properties: {} } } },
];
const MESSAGES = [{ role: 'user' as const, content: 'What is the weather in Paris?' }];
const CALL = ['<tool_call>\n{"name": "get_', 'weather", "arguments": {"city"', ': "Paris"}}', '\n</tool_call>'];
const THOUGHT = ['<think>', '\nUse the tool.', '\n</think>', '\n\n'];

/** One step per text, one token each. */
function* steps(
  texts: readonly (string | TextPiece)[],
  reason: 'stop' | 'length' = 'stop',
): Generator<GenerationEvent[]> {
  yield [{ type: 'started', promptTokens: 5, cachedTokens: 2 }];
  for (const text of texts) {
    yield [{ type: 'delta', pieces: [typeof text === 'string' ? { text } : text], nTokens: 1 }];
  }
  const usage = { promptTokens: 5, cachedTokens: 2, completionTokens: texts.length };
  yield [{ type: 'finished', reason, usage, timings: TIMINGS }];
}

class ToolServer implements AsyncDisposable {
  private constructor(
    readonly engine: ScriptedEngine,
    readonly client: OpenAI,
    private readonly close: () => Promise<void>,
  ) {}

  static async start(script: (request: GenerateRequest) => Iterable<GenerationEvent[]>): Promise<ToolServer> {
    const engine = new ScriptedEngine({ script, model: { chatTemplate: TEMPLATE } });
    const registry = createRegistry({ engine, pinned: { model: 'm' }, defaults: {}, createLocalModel });
    const server = createHttpServer(createApp({ registry }));
    const watch = watchServer(server);
    const { port } = await listen(server, { host: '127.0.0.1', port: 0 });
    const client = new OpenAI({ baseURL: `http://127.0.0.1:${port}/v1`, apiKey: 'k', maxRetries: 0 });
    return new ToolServer(engine, client, async () => {
      await closeServer(server);
      await registry.close();
      await engine.close();
      watch.verify();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

describe('tool calls over HTTP', () => {
  it('stream with id, type and name once, the arguments as they come, and tool_calls at the end', async () => {
    await using app = await ToolServer.start(() => steps([...THOUGHT, ...CALL]));
    const stream = await app.client.chat.completions.create({
      model: 'm',
      messages: MESSAGES,
      tools: TOOLS,
      stream: true,
      stream_options: { include_usage: true },
    });
    const deltas: unknown[] = [];
    let usage;
    for await (const chunk of stream) {
      deltas.push(...chunk.choices.map(({ delta, finish_reason }) => finish_reason ?? delta));
      usage = chunk.usage ?? usage;
    }
    const id = (deltas[2] as { tool_calls: { id: string }[] }).tool_calls[0]!.id;
    expect(id).to.match(/^call_[0-9a-f]{24}$/);
    const call = (delta: object) => ({ tool_calls: [{ index: 0, ...delta }] });
    expect(deltas).to.deep.equal([
      { role: 'assistant', content: '' },
      { reasoning_content: 'Use the tool.', reasoning: 'Use the tool.' },
      call({ id, type: 'function', function: { name: 'get_weather', arguments: '' } }),
      call({ function: { arguments: '{"city"' } }),
      call({ function: { arguments: ': "Paris"}' } }),
      'tool_calls',
    ]);
    expect(usage?.completion_tokens_details).to.deep.equal({ reasoning_tokens: 3 });
  });

  it('are the same when they do not stream, and when the client gathers them', async () => {
    await using app = await ToolServer.start(() => steps([...THOUGHT, 'Let me look.\n\n', ...CALL, '\n', ...CALL]));
    const request = { model: 'm', messages: MESSAGES, tools: TOOLS };
    const whole = (await app.client.chat.completions.create(request)).choices[0]!;
    expect(whole.finish_reason).to.equal('tool_calls');
    expect(whole.message.content).to.equal('Let me look.');
    const calls = whole.message.tool_calls!.map((call) => (call.type === 'function' ? call.function : undefined));
    expect(calls).to.deep.equal(Array(2).fill({ name: 'get_weather', arguments: '{"city": "Paris"}' }));
    const gathered = (await app.client.chat.completions.stream(request).finalChatCompletion()).choices[0]!;
    expect(gathered.finish_reason).to.equal('tool_calls');
    expect(
      gathered.message
        .tool_calls!.map((call) => (call as { function: { name: string; arguments: string } }).function)
        .map(({ name, arguments: json }) => ({ name, arguments: json })),
    ).to.deep.equal(calls);
  });

  it('leave content null where there is none', async () => {
    await using app = await ToolServer.start(() => steps(CALL));
    const { message } = (await app.client.chat.completions.create({ model: 'm', messages: MESSAGES, tools: TOOLS }))
      .choices[0]!;
    expect(message.content).to.equal(null);
    expect(message.tool_calls).to.have.length(1);
  });

  for (const stream of [false, true]) {
    it(`run in the client's loop, ${stream ? 'streamed' : 'not streamed'}`, async () => {
      await using app = await ToolServer.start(({ prompt }) =>
        'text' in prompt && prompt.text.includes('22 degrees') ? steps(['It is ', '22 degrees.']) : steps(CALL),
      );
      const seen: unknown[] = [];
      const tool = {
        type: 'function' as const,
        function: {
          name: 'get_weather',
          description: 'The weather in a city',
          parameters: { type: 'object' as const, properties: { city: { type: 'string' as const } } },
          parse: (json: string): unknown => JSON.parse(json),
          function: (args: unknown): string => {
            seen.push(args);
            return '22 degrees';
          },
        },
      };
      const { completions } = app.client.chat;
      const runner = stream
        ? completions.runTools({ model: 'm', messages: MESSAGES, tools: [tool], stream: true })
        : completions.runTools({ model: 'm', messages: MESSAGES, tools: [tool] });
      expect(await runner.finalContent()).to.equal('It is 22 degrees.');
      expect(seen).to.deep.equal([{ city: 'Paris' }]);
    });
  }

  it('are turned from a bare object that is the whole message', async () => {
    await using app = await ToolServer.start(() =>
      steps(['```json\n', '{"name": "get_weather", ', '"arguments": {"city": "Paris"}}\n', '```']),
    );
    const request = { model: 'm', messages: MESSAGES, tools: TOOLS };
    const gathered = (await app.client.chat.completions.stream(request).finalChatCompletion()).choices[0]!;
    expect(gathered.message.tool_calls).to.have.length(1);
    const none = (await app.client.chat.completions.create({ ...request, tool_choice: 'none' })).choices[0]!;
    expect(none.finish_reason).to.equal('stop');
    expect(none.message.tool_calls).to.equal(undefined);
    expect(none.message.content).to.match(/^```json/);
  });

  it('that are cut off end with length, and those that are broken with stop', async () => {
    await using app = await ToolServer.start(({ maxTokens }) =>
      maxTokens === 2 ? steps(CALL.slice(0, 2), 'length') : steps([...CALL.slice(0, 2), '}}']),
    );
    for (const [limit, reason] of [
      [2, 'length'],
      [9, 'stop'],
    ] as const) {
      const request = { model: 'm', messages: MESSAGES, tools: TOOLS, max_tokens: limit };
      const { choices } = await app.client.chat.completions.create(request);
      expect(choices[0]!.finish_reason).to.equal(reason);
      const stream = await app.client.chat.completions.create({ ...request, stream: true });
      let last;
      for await (const chunk of stream) last = chunk.choices[0]?.finish_reason ?? last;
      expect(last).to.equal(reason);
    }
  });

  it('are shown to the model and constrained as the choice says', async () => {
    await using app = await ToolServer.start(() => steps(['ok']));
    const ask = async (choice: OpenAI.ChatCompletionToolChoiceOption, extra: object = {}): Promise<GenerateRequest> => {
      await app.client.chat.completions.create({
        model: 'm',
        messages: MESSAGES,
        tools: TOOLS,
        tool_choice: choice,
        ...extra,
      });
      return app.engine.requests.at(-1)!;
    };
    const shown = ({ prompt }: GenerateRequest): string => ('text' in prompt ? prompt.text.split('<|')[0]! : '');
    const grammar = ({ constraint }: GenerateRequest): string =>
      constraint?.grammar.type === 'lark' ? constraint.grammar.grammar : '';

    const auto = await ask('auto');
    expect(shown(auto)).to.equal('[get_weather][get_time]');
    expect(auto.constraint?.trigger).to.deep.equal({ texts: ['<tool_call>'] });
    const none = await ask('none');
    expect(shown(none)).to.equal('');
    expect(none.constraint).to.equal(undefined);
    const required = await ask('required');
    expect(required.constraint?.trigger).to.equal(undefined);
    expect(grammar(required)).to.contain('get_weather').and.contain('get_time').and.contain(')*');
    expect(grammar(await ask('required', { parallel_tool_calls: false }))).to.not.contain(')*');
    const named = await ask({ type: 'function', function: { name: 'get_time' } });
    expect(grammar(named)).to.contain('get_time').and.not.contain('get_weather');
    const allowed = await ask({
      type: 'allowed_tools',
      allowed_tools: { mode: 'auto', tools: [{ type: 'function', function: { name: 'get_time' } }] },
    });
    expect(shown(allowed)).to.equal('[get_time]');
    expect(allowed.constraint?.trigger).to.not.equal(undefined);
  });

  it('leave response_format its grammar', async () => {
    await using app = await ToolServer.start(() => steps(['{"a": 1}']));
    const json_schema = { name: 'n', schema: { type: 'object', properties: { a: { type: 'integer' } } }, strict: true };
    const answer = await app.client.chat.completions.parse({
      model: 'm',
      messages: MESSAGES,
      response_format: { type: 'json_schema', json_schema },
    });
    expect(answer.choices[0]!.message.content).to.equal('{"a": 1}');
    const grammar = app.engine.requests[0]!.constraint?.grammar;
    expect(grammar?.type === 'lark' && grammar.grammar).to.contain('%json {"type":"object"');
  });
});

describe('tool calls of createEngine', () => {
  it('come as parts and whole', async () => {
    const engine = new ScriptedEngine({ script: () => steps(['Wait. ', ...CALL]), model: { chatTemplate: TEMPLATE } });
    await using opened = await openModelEngine(engine, { model: 'm' });
    const tools = TOOLS.map((tool) => tool.function);
    const stream = opened.chat({ messages: MESSAGES, tools });
    const types: string[] = [];
    let text = '';
    for await (const part of stream) {
      types.push(part.type);
      text += part.text;
    }
    expect(text).to.equal('Wait.');
    expect([...new Set(types)]).to.deep.equal(['content', 'tool_call', 'tool_call_arguments', 'tool_call_done']);
    const { toolCalls, finishReason } = await stream;
    expect(finishReason).to.equal('tool_calls');
    expect(toolCalls.map(({ name, arguments: json }) => [name, json])).to.deep.equal([
      ['get_weather', '{"city": "Paris"}'],
    ]);
  });

  it('refuse a choice without tools', async () => {
    await using opened = await openModelEngine(new ScriptedEngine(), { model: 'm' });
    const answer = opened.chat({ messages: MESSAGES, toolChoice: 'required' });
    expect(await answer.result().catch((error: unknown) => error)).to.include({ code: 'invalid_request' });
  });
});
