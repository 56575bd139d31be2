/** Conversations with tools in them, as clients send them: the right prompt or a 400 that says why, whatever the template. */

import { readdirSync, readFileSync } from 'node:fs';

import { expect } from 'chai';

import { createRegistry } from '../ts/app/registry.js';
import { createLocalModel } from '../ts/chat/local-model.js';
import { createTemplateRenderer } from '../ts/chat/template.js';
import { EngineError } from '../ts/engine/types.js';
import { createApp } from '../ts/http/app.js';
import { closeServer, createHttpServer, listen } from '../ts/http/server.js';
import { parseChatCompletionRequest } from '../ts/protocol/chat-completions.js';
import { ScriptedEngine, scriptedModel } from './helpers/scripted-engine.js';

const TEMPLATES = new URL('../fixtures/golden/chat_templates/', import.meta.url);

interface Golden {
  readonly template: string;
  readonly special_tokens?: Readonly<Record<string, string>>;
}

function golden(name: string): Golden {
  return JSON.parse(readFileSync(new URL(`${name}.json`, TEMPLATES), 'utf8')) as Golden;
}

interface Answer {
  readonly status: number;
  /** The prompt of the request that reached the engine; empty if none did. */
  readonly prompt: string;
  readonly error?: { readonly message: string; readonly param: string | null; readonly code: string };
}

class HistoryServer implements AsyncDisposable {
  private constructor(
    private readonly url: string,
    private readonly engine: ScriptedEngine,
    private readonly close: () => Promise<void>,
  ) {}

  static async start(name: string): Promise<HistoryServer> {
    const { template, special_tokens: specialTokens = {} } = golden(name);
    const engine = new ScriptedEngine({ model: { chatTemplate: template, specialTokens, family: 'unknown' } });
    const registry = createRegistry({ engine, pinned: { model: 'm' }, defaults: {}, createLocalModel });
    const server = createHttpServer(createApp({ registry }));
    const { port } = await listen(server, { host: '127.0.0.1', port: 0 });
    return new HistoryServer(`http://127.0.0.1:${port}/v1/chat/completions`, engine, async () => {
      await closeServer(server);
      await registry.close();
      await engine.close();
    });
  }

  async ask(messages: readonly unknown[], extra: object = {}): Promise<Answer> {
    this.engine.requests.length = 0;
    const response = await fetch(this.url, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ messages, ...extra }),
    });
    const { error } = (await response.json()) as Pick<Answer, 'error'>;
    const prompt = this.engine.requests[0]?.prompt;
    return {
      status: response.status,
      prompt: prompt !== undefined && 'text' in prompt ? prompt.text : '',
      ...(error === undefined ? {} : { error }),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

const USER = { role: 'user', content: 'Weather?' };
const call = (id: string, args = '{"city": "Paris"}'): object => ({
  id,
  type: 'function',
  function: { name: 'get_weather', arguments: args },
});
const calls = (...toolCalls: object[]): object => ({ role: 'assistant', content: null, tool_calls: toolCalls });
const result = (id: string, content: unknown = `result of ${id}`): object => ({
  role: 'tool',
  tool_call_id: id,
  content,
});
const TOOLS = [
  {
    type: 'function',
    function: {
      name: 'get_weather',
      description: 'The weather',
      parameters: { type: 'object', properties: { city: { type: 'string', description: 'Where' } } },
    },
  },
];

describe('conversations with tools', () => {
  it('show calls and their results in their order', async () => {
    await using server = await HistoryServer.start('qwen2_5');
    const { status, prompt } = await server.ask([USER, calls(call('a'), call('b')), result('a'), result('b')]);
    expect(status).to.equal(200);
    const shown = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>';
    const results = ['a', 'b'].map((id) => `<tool_response>\nresult of ${id}\n</tool_response>`);
    expect(prompt).to.contain(`<|im_start|>assistant\n${shown}\n${shown}<|im_end|>`);
    expect(prompt).to.contain(`<|im_start|>user\n${results.join('\n')}<|im_end|>\n<|im_start|>assistant\n`);
  });

  it('show them one by one to models that know one call a message', async () => {
    await using server = await HistoryServer.start('llama3_1');
    const { status, prompt } = await server.ask([USER, calls(call('a'), call('b')), result('b'), result('a')]);
    expect(status).to.equal(200);
    const order = ['get_weather', 'result of a', 'get_weather', 'result of b'].map((text) => prompt.indexOf(text));
    expect(order.every((at) => at >= 0)).to.equal(true);
    expect(prompt.indexOf('result of a')).to.be.below(prompt.indexOf('result of b'));
    expect(prompt.split('get_weather')).to.have.length(3);
  });

  it('may hold a result whose call is not there, text in parts, calls of tools that are no longer offered', async () => {
    await using server = await HistoryServer.start('qwen2_5');
    const alone = await server.ask([USER, result('nobody')]);
    expect(alone.status).to.equal(200);
    expect(alone.prompt).to.contain('<tool_response>\nresult of nobody\n</tool_response>');
    const parts = await server.ask([
      USER,
      calls(call('a')),
      result('a', [
        { type: 'text', text: 'one' },
        { type: 'text', text: 'two' },
      ]),
    ]);
    expect(parts.prompt).to.contain('<tool_response>\none two\n</tool_response>');
    const spoken = { ...calls(call('a')), content: [{ type: 'text', text: 'Let me see.' }] };
    const both = await server.ask([USER, spoken, result('a')]);
    expect(both.prompt).to.contain('<|im_start|>assistant\nLet me see.\n<tool_call>');
    const none = await server.ask([USER, calls(call('a', '')), result('a')], { tools: TOOLS });
    expect(none.prompt).to.contain('"arguments": {}');
  });

  const refused: readonly [name: string, messages: readonly unknown[], param: string, message: RegExp][] = [
    ['arguments that are not JSON', [USER, calls(call('a', '{"city": "Par'))], 'messages[1].tool_calls', /not JSON/],
    ['arguments that are a list', [USER, calls(call('a', '[1]'))], 'messages[1].tool_calls', /not a JSON object/],
    [
      'arguments that are no string',
      [USER, calls({ ...call('a'), function: { name: 'f', arguments: {} } })],
      'messages[1].tool_calls[0].function.arguments',
      /string/,
    ],
    ['a result without an id', [USER, { role: 'tool', content: '1' }], 'messages[1].tool_call_id', /required/],
    ['a result without content', [USER, calls(call('a')), result('a', null)], 'messages[2].content', /required/],
    [
      'a result that is an object',
      [USER, calls(call('a')), result('a', { t: 22 })],
      'messages[2].content',
      /array of parts/,
    ],
    [
      'a picture as a result',
      [USER, calls(call('a')), result('a', [{ type: 'image_url', image_url: { url: 'data:,' } }])],
      'messages[2].content[0].type',
      /text parts only/,
    ],
    [
      'an assistant that says nothing',
      [USER, { role: 'assistant', content: null }],
      'messages[1].content',
      /content or tool_calls/,
    ],
    [
      'an assistant with no calls and no content',
      [USER, { role: 'assistant', content: null, tool_calls: [] }],
      'messages[1].content',
      /content or tool_calls/,
    ],
  ];
  for (const [name, messages, param, message] of refused) {
    it(`are refused for ${name}`, async () => {
      await using server = await HistoryServer.start('qwen2_5');
      const { status, error, prompt } = await server.ask(messages);
      expect(status).to.equal(400);
      expect(error?.param).to.equal(param);
      expect(error?.message).to.match(message);
      expect(prompt).to.equal('');
    });
  }

  it('are a prompt or a 400 with every template', async () => {
    const histories = [
      [USER, calls(call('a')), result('a')],
      [USER, calls(call('a'), call('b')), result('b'), result('a')],
      [USER, calls(call('a')), calls(call('b'))],
      [USER, result('nobody')],
      [result('nobody'), USER],
      [calls(call('a')), result('a'), USER],
      [
        { role: 'system', content: 'S' },
        { role: 'system', content: 'S' },
        USER,
        calls(call('a', '{"a": [1, {"b": null}]}')),
      ],
      [
        USER,
        { ...calls(call('a', '')), content: 'Let me see.', reasoning_content: 'Hm.' },
        result('a', [{ type: 'text', text: '' }]),
      ],
      [{ role: 'assistant', content: '' }],
    ];
    const names = readdirSync(TEMPLATES)
      .map((file) => file.replace('.json', ''))
      .filter((name) => name !== 'index');
    let [prompts, refusals] = [0, 0];
    const templates = createTemplateRenderer();
    const engine = new ScriptedEngine();
    try {
      for (const name of names) {
        const { template, special_tokens: specialTokens = {} } = golden(name);
        const model = createLocalModel({
          engine,
          info: scriptedModel({ chatTemplate: template, specialTokens }),
          templates,
        });
        for (const [index, messages] of histories.entries()) {
          const request = parseChatCompletionRequest(
            { messages, tools: TOOLS },
            { strict: false, warn: () => undefined },
          );
          try {
            expect(await model.applyChatTemplate(request), `${name} ${index}`).to.not.equal('');
            prompts++;
          } catch (error) {
            // Both are 400: what the request got wrong, and what the template refuses.
            if (!(error instanceof EngineError)) throw error;
            expect(['invalid_request', 'template_error'], `${name} ${index}: ${error.message}`).to.include(error.code);
            refusals++;
          }
        }
      }
    } finally {
      await templates.close();
    }
    expect(prompts).to.be.greaterThan(refusals);
  });
});
