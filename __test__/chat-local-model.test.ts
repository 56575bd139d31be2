import { expect } from 'chai';
import { createLocalModel, type LocalModel } from '../ts/chat/local-model.js';
import { unreadVariables } from '../ts/chat/template-defaults.js';
import { createTemplateRenderer, type TemplateRenderer } from '../ts/chat/template.js';
import type { ChatEvent, ChatMessage, ChatRequest } from '../ts/chat/types.js';
import { EngineError, type GenerationEvent, type LoadedModel, type TokenInfo } from '../ts/engine/types.js';
import { reasoningSwitch } from '../ts/protocol/reasoning-switch.js';
import { rejection } from './helpers/rejection.js';
import { say, ScriptedEngine, scriptedModel } from './helpers/scripted-engine.js';

const HI: ChatRequest = { messages: [{ role: 'user', content: 'Hi' }] };
/** Shows the messages as the template sees them. */
const DUMP = '{{ messages|tojson }}{{ tools|tojson }}';

const finished: GenerationEvent = {
  type: 'finished',
  reason: 'stop',
  usage: { promptTokens: 1, cachedTokens: 0, completionTokens: 2 },
  timings: { queued: 0, prefill: 0, decode: 0 },
};

async function collect(events: AsyncIterable<ChatEvent>): Promise<ChatEvent[]> {
  const all: ChatEvent[] = [];
  for await (const event of events) all.push(event);
  return all;
}

describe('chat: local model', () => {
  let templates: TemplateRenderer;
  let engine: ScriptedEngine;
  before(() => (templates = createTemplateRenderer()));
  after(async () => templates.close());

  function model(info: Partial<LoadedModel> = {}, scripted = new ScriptedEngine()): LocalModel {
    engine = scripted;
    return createLocalModel({ engine, info: scriptedModel(info), templates });
  }

  async function seen(messages: readonly ChatMessage[], template = DUMP): Promise<unknown> {
    const text = await model({ chatTemplate: template }).applyChatTemplate({ messages });
    return JSON.parse(text.replace(/null$/, ''));
  }

  it('takes the operator’s variables where the request does not say', async () => {
    const template = "{{ enable_thinking }}/{{ mood | default('none') }}";
    engine = new ScriptedEngine();
    const info = scriptedModel({ chatTemplate: template });
    const operators = { enable_thinking: false, mood: 'calm' };
    const chat = createLocalModel({ engine, info, templates, templateVariables: operators });
    expect(await chat.applyChatTemplate(HI)).to.equal('False/calm');
    const own = { ...HI, templateVariables: { enable_thinking: true } };
    expect(await chat.applyChatTemplate(own)).to.equal('True/calm');
    expect(unreadVariables(info, { ...operators, colour: 'red', ...reasoningSwitch(false) })).to.deep.equal(['colour']);
    const plain = scriptedModel({ chatTemplate: '{{ message.thinking }} enable_thinking_more' });
    expect(unreadVariables(plain, reasoningSwitch(true))).to.deep.equal(['enable_thinking', 'thinking']);
  });

  it('holds the answer to a grammar of the request', async () => {
    const grammar = { type: 'regex', pattern: 'a+' } as const;
    await collect(model().chat({ ...HI, grammar }));
    expect(engine.requests.at(-1)!.constraint).to.deep.equal({ grammar });
  });

  it('sends the rendered prompt without adding special tokens, and the fields of the request', async () => {
    const chat = model();
    await collect(
      chat.chat({
        ...HI,
        maxTokens: 3,
        stop: ['x'],
        stopTokenIds: [9],
        sampling: { temperature: 0.5 },
        ignoreEos: true,
        logprobs: 1,
        cacheSalt: 's',
      }),
    );
    expect(engine.requests).to.deep.equal([
      {
        model: 1,
        prompt: { text: '<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n', addSpecialTokens: false },
        maxTokens: 3,
        stop: ['x'],
        stopTokenIds: [9],
        sampling: { temperature: 0.5 },
        ignoreEos: true,
        logprobs: 1,
        cacheSalt: 's',
      },
    ]);
  });

  it('passes events on: started, content, one finished', async () => {
    const events = await collect(model().chat(HI));
    expect(events.map((event) => event.type)).to.deep.equal(['started', 'content', 'content', 'finished']);
    expect(events.map((event) => (event.type === 'content' ? event.text : '')).join('')).to.equal('Hello there!');
  });

  it('leaves special tokens and their log-probabilities out', async () => {
    const token = (id: number, text: string): TokenInfo => ({ id, text, bytes: [], logprob: -1 });
    const script = (): GenerationEvent[][] => [
      [
        {
          type: 'delta',
          pieces: [{ text: '<think>', special: 7 }, { text: 'a' }, { text: '<end>', special: 2 }],
          tokens: [token(7, '<think>'), token(10, 'a'), token(2, '<end>')],
          nTokens: 3,
        },
      ],
      [finished],
    ];
    const [content] = await collect(model({}, new ScriptedEngine({ script })).chat({ ...HI, logprobs: 0 }));
    expect(content).to.deep.equal({ type: 'content', text: 'a', tokens: [token(10, 'a')] });
  });

  it('keeps log-probabilities until their text comes', async () => {
    const token = (id: number): TokenInfo => ({ id, text: '\ufffd', bytes: [], logprob: -1 });
    const script = (): GenerationEvent[][] => [
      [{ type: 'delta', pieces: [], tokens: [token(10)], nTokens: 1 }],
      [{ type: 'delta', pieces: [{ text: 'é' }], tokens: [token(11)], nTokens: 1 }],
      [{ type: 'delta', pieces: [], tokens: [token(12)], nTokens: 1 }],
      [finished],
    ];
    const events = await collect(model({}, new ScriptedEngine({ script })).chat({ ...HI, logprobs: 0 }));
    expect(events.slice(0, -1)).to.deep.equal([
      { type: 'content', text: 'é', tokens: [token(10), token(11)] },
      { type: 'content', text: '', tokens: [token(12)] },
    ]);
  });

  it('cancels the generation when the loop is left, or on abort', async () => {
    const script = (): Iterable<GenerationEvent[]> => say('a b c d e f') as Iterable<GenerationEvent[]>;
    const chat = model({}, new ScriptedEngine({ script }));
    for await (const event of chat.chat(HI)) if (event.type === 'content') break;
    expect(engine.cancelled).to.equal(1);
    const abort = new AbortController();
    const read = async (): Promise<void> => {
      for await (const event of chat.chat(HI, abort.signal)) if (event.type === 'content') abort.abort();
    };
    expect((await rejection(read(), EngineError)).code).to.equal('cancelled');
    expect(engine.cancelled).to.equal(2);
  });

  it('throws what the engine says', async () => {
    const script = (): never => {
      throw new EngineError('context_length_exceeded', 'too long');
    };
    const error = await rejection(collect(model({}, new ScriptedEngine({ script })).chat(HI)), EngineError);
    expect(error.code).to.equal('context_length_exceeded');
  });

  it('says that a model without a template cannot chat', async () => {
    const error = await rejection(collect(model({ chatTemplate: undefined }).chat(HI)), EngineError);
    expect(error).to.include({ code: 'invalid_request', param: 'messages' });
    expect(error.message).to.contain('no chat template').and.contain('/v1/completions');
  });

  it('joins text parts with a space, as transformers serve does', async () => {
    const content = [
      { type: 'text', text: 'a' },
      { type: 'text', text: 'b' },
    ] as const;
    expect(await seen([{ role: 'user', content }])).to.deep.equal([{ role: 'user', content: 'a b' }]);
  });

  it('refuses pictures', async () => {
    const content = [{ type: 'image', url: 'data:,' }] as const;
    const error = await rejection(seen([{ role: 'user', content }]), EngineError);
    expect(error).to.include({ code: 'invalid_request', param: 'messages[0].content' });
  });

  it('gives tool calls as objects and absent content as an empty string', async () => {
    const toolCalls = [{ id: 'c1', name: 'f', arguments: '{"x": 1}' }];
    const messages: ChatMessage[] = [
      { role: 'assistant', content: null, toolCalls, reasoning: 'hm' },
      { role: 'tool', content: '2', toolCallId: 'c1' },
    ];
    expect(await seen(messages)).to.deep.equal([
      {
        role: 'assistant',
        content: '',
        reasoning_content: 'hm',
        tool_calls: [{ id: 'c1', type: 'function', function: { name: 'f', arguments: { x: 1 } } }],
      },
      { role: 'tool', content: '2', tool_call_id: 'c1' },
    ]);
  });

  it('gives arguments as text where a template adds them to text, and no content where it asks for none', async () => {
    const template =
      "{% for message in messages %}{% if message['role'] and message['content'] is none %}{% for tool in message['tool_calls'] %}" +
      "{{ tool['function']['name'] + ' ' + tool['function']['arguments'] + ';' }}{% endfor %}{% endif %}{% endfor %}";
    const toolCalls = [{ id: 'c1', name: 'f', arguments: '{"x": 1}' }];
    const text = await model({ chatTemplate: template }).applyChatTemplate({
      messages: [{ role: 'assistant', content: null, toolCalls }],
    });
    expect(text).to.equal('f {"x":1};');
  });

  it('gives Mistral ids of nine characters, the same for the call and its result', async () => {
    const template =
      '{% for m in messages %}{% if m.tool_call_id is defined %}{{ m.tool_call_id }}{% else %}' +
      "{% if m.tool_calls[0].id|length != 9 %}{{ raise_exception('bad id') }}{% endif %}{{ m.tool_calls[0].id }} " +
      '{% endif %}{% endfor %}';
    const toolCalls = [{ id: 'call_0123456789abcdef01234567', name: 'f', arguments: '{}' }];
    const text = await model({ chatTemplate: template }).applyChatTemplate({
      messages: [
        { role: 'assistant', content: null, toolCalls },
        { role: 'tool', content: '2', toolCallId: 'call_0123456789abcdef01234567' },
      ],
    });
    expect(text).to.match(/^([0-9a-f]{9}) \1$/);
  });

  it('takes special tokens for syntax only as such', async () => {
    class Vocabulary extends ScriptedEngine {
      override tokenize = async (_handle: number, text: string): Promise<number[]> =>
        text === '<tool_call>' ? [7] : text === '</tool_call>' ? [8] : [1, 2, 3];
      override detokenize = async (_handle: number, [id]: readonly number[], skip: boolean): Promise<string> =>
        skip ? '' : id === 7 ? '<tool_call>' : '</tool_call>';
    }
    const call = '{"name": "f", "arguments": {}}';
    const answers = [
      [{ text: '<tool_call>', special: 7 }, { text: call }, { text: '</tool_call>', special: 8 }],
      [{ text: `<tool_call>${call}</tool_call>` }],
    ];
    const events: string[][] = [];
    for (const pieces of answers) {
      const script = (): GenerationEvent[][] => [[{ type: 'delta', pieces, nTokens: 1 }], [finished]];
      const chat = model({ chatTemplate: '{# <tool_call></tool_call> #}x' }, new Vocabulary({ script }));
      const all = await collect(chat.chat({ ...HI, tools: [{ name: 'f' }] }));
      events.push(all.map((event) => event.type));
      expect(engine.requests[0]?.constraint?.trigger).to.deep.equal({ tokenIds: [7] });
    }
    expect(events).to.deep.equal([
      ['tool_call', 'tool_call_arguments', 'tool_call_done', 'finished'],
      ['content', 'finished'],
    ]);
  });

  it('refuses arguments that are not JSON', async () => {
    const toolCalls = [{ id: 'c1', name: 'f', arguments: '{x' }];
    const error = await rejection(seen([{ role: 'assistant', content: '', toolCalls }]), EngineError);
    expect(error).to.include({ code: 'invalid_request', param: 'messages[0].tool_calls' });
  });

  it('calls a developer system unless the template knows developers', async () => {
    expect(await seen([{ role: 'developer', content: 'd' }])).to.deep.equal([{ role: 'system', content: 'd' }]);
    expect(await seen([{ role: 'developer', content: 'd' }], `${DUMP}{# developer #}`)).to.deep.equal([
      { role: 'developer', content: 'd' },
    ]);
  });

  it('gives tools in the function shape, and takes the template for tools if there is one', async () => {
    const chatTemplates = { default: 'plain', tool_use: '{{ tools|tojson }}' };
    const chat = model({ chatTemplate: undefined, chatTemplates });
    const tools = [{ name: 'f', description: 'd', parameters: { type: 'object' } }];
    expect(JSON.parse(await chat.applyChatTemplate({ ...HI, tools }))).to.deep.equal([
      { type: 'function', function: { name: 'f', description: 'd', parameters: { type: 'object' } } },
    ]);
    expect(await chat.applyChatTemplate({ ...HI, tools: [] })).to.equal('plain');
  });

  it('continues the final message', async () => {
    const messages: ChatMessage[] = [...HI.messages, { role: 'assistant', content: 'One,' }];
    expect(await model().applyChatTemplate({ messages, continueFinalMessage: true })).to.equal(
      '<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nOne,',
    );
    const error = await rejection(model().applyChatTemplate({ ...HI, continueFinalMessage: true }), EngineError);
    expect(error.code).to.equal('invalid_request');
  });
});
