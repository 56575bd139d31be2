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
const DUMP = '{# tool_calls #}{{ messages|tojson }}{{ tools|tojson }}';

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
    // As the model wrote it, spaces and all.
    expect(text).to.equal('f {"x": 1};');
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

  it('reads a demanded call as it is written also where the model was taught no syntax', async () => {
    const script = (): GenerationEvent[][] => [
      ...['{"name": "f", "argu', 'ments": {"x": ', '"a'].map((text): GenerationEvent[] => [
        { type: 'delta', pieces: [{ text }], nTokens: 1 },
      ]),
      [{ ...finished, reason: 'length' }],
    ];
    const chat = model({ chatTemplate: 'x' }, new ScriptedEngine({ script }));
    const tools = [{ name: 'f' }];
    const forced = await collect(chat.chat({ ...HI, tools, toolChoice: 'required' }));
    expect(forced.map((event) => ('delta' in event ? event.delta : event.type))).to.deep.equal([
      'tool_call',
      '{"x"',
      ': "a',
      'finished',
    ]);
    // Where it may also answer, it is an answer until it is known to be a call.
    const free = await collect(chat.chat({ ...HI, tools }));
    expect(free.map((event) => event.type)).to.deep.equal(['content', 'finished']);
  });

  describe('a schema that the engine cannot use', () => {
    const SPEAKS = '{# <tool_call></tool_call> #}x';
    const good = { name: 'good', parameters: { type: 'object', properties: { a: { type: 'string' } } } };
    const bad = { name: 'bad', parameters: { type: 'object', properties: { b: { type: 'thing' } } } };

    /** Refuses `thing` as llguidance does, with the line it is in. */
    function picky(
      says = (line: number) => `at ${line}(5): failed to compile JSON schema: Invalid type: thing 1 | x ^`,
    ) {
      return new ScriptedEngine({
        script: ({ constraint }) => {
          const grammar = constraint === undefined ? '' : JSON.stringify(constraint.grammar);
          const lines = constraint?.grammar.type === 'lark' ? constraint.grammar.grammar.split('\n') : [grammar];
          const line = lines.findIndex((text) => text.includes('"thing"')) + 1;
          if (line === 0) return say('ok') as Iterable<GenerationEvent[]>;
          throw new EngineError('invalid_request', `the grammar cannot be used: ${says(line)}`, 'constraint');
        },
      });
    }
    const grammars = (): string[] =>
      engine.requests.map(({ constraint }) => (constraint === undefined ? '' : JSON.stringify(constraint.grammar)));

    it('is given up under auto, for that tool only, and the next time at once', async () => {
      const chat = model({ chatTemplate: SPEAKS }, picky());
      for (const expected of [2, 1]) {
        engine.requests.length = 0;
        const events = await collect(chat.chat({ ...HI, tools: [good, bad] }));
        expect(events.at(-1)?.type).to.equal('finished');
        expect(engine.requests).to.have.length(expected);
        expect(grammars().at(-1)).to.contain('properties').and.contain('bad').and.not.contain('thing');
      }
    });

    it('is refused with its name and the reason where a call is demanded, or is strict', async () => {
      const demands: Partial<ChatRequest>[] = [
        { tools: [good, bad], toolChoice: 'required' },
        { tools: [good, bad], toolChoice: { name: 'bad' } },
        { tools: [good, bad], toolChoice: { allowed: ['bad'], mode: 'required' } },
        { tools: [good, { ...bad, strict: true }] },
      ];
      for (const demand of demands) {
        const chat = model({ chatTemplate: SPEAKS }, picky());
        const error = await rejection(collect(chat.chat({ ...HI, ...demand })), EngineError);
        expect(error).to.include({ code: 'invalid_request', param: 'tools' });
        expect(error.message).to.equal("the parameters of the tool 'bad' cannot be enforced: Invalid type: thing");
      }
    });

    it('is given up for all tools where nobody knows whose it is, and at last there is no grammar', async () => {
      const chat = model(
        { chatTemplate: SPEAKS },
        picky(() => 'it takes more than 5 s to compile'),
      );
      await collect(chat.chat({ ...HI, tools: [good, bad] }));
      expect(grammars()).to.have.length(2);
      expect(grammars().at(-1)).to.not.contain('properties');

      const unable = new ScriptedEngine({
        script: ({ constraint }) => {
          if (constraint === undefined) return say('ok') as Iterable<GenerationEvent[]>;
          throw new EngineError('invalid_request', 'the tokenizer has no text of its own', 'constraint');
        },
      });
      await collect(model({ chatTemplate: SPEAKS }, unable).chat({ ...HI, tools: [good] }));
      expect(grammars().map((text) => text !== '')).to.deep.equal([true, true, false]);
      const error = await rejection(
        collect(model({ chatTemplate: SPEAKS }, unable).chat({ ...HI, tools: [{ ...good, strict: true }] })),
        EngineError,
      );
      expect(error).to.include({ param: 'tools' });
    });

    it('of a response format is refused, tools or not', async () => {
      const schema = { type: 'thing' };
      for (const strict of [true, false]) {
        for (const tools of [undefined, [good]]) {
          const chat = model({ chatTemplate: SPEAKS }, picky());
          const responseFormat = { type: 'json_schema', name: 'n', schema, strict } as const;
          const request = { ...HI, responseFormat, ...(tools === undefined ? {} : { tools }) };
          const error = await rejection(collect(chat.chat(request)), EngineError);
          expect(error).to.include({ code: 'invalid_request', param: 'constraint' });
          expect(error.message).to.equal('the response format cannot be enforced: Invalid type: thing');
        }
      }
    });

    it('is nobody else’s error', async () => {
      const script = (): never => {
        throw new EngineError('invalid_request', 'too many', 'stop');
      };
      const chat = model({ chatTemplate: SPEAKS }, new ScriptedEngine({ script }));
      expect(await rejection(collect(chat.chat({ ...HI, tools: [good] })), EngineError)).to.include({ param: 'stop' });
      expect(engine.requests).to.have.length(1);
    });
  });

  it('refuses arguments that are not JSON', async () => {
    const toolCalls = [{ id: 'c1', name: 'f', arguments: '{x' }];
    const error = await rejection(seen([{ role: 'assistant', content: '', toolCalls }]), EngineError);
    expect(error).to.include({ code: 'invalid_request', param: 'messages[0].tool_calls' });
  });

  it('takes no arguments, or null, for none, and refuses others that are no object', async () => {
    for (const given of ['', ' ', 'null', '{}']) {
      const toolCalls = [{ id: 'c1', name: 'f', arguments: given }];
      const [message] = (await seen([{ role: 'assistant', content: '', toolCalls }])) as { tool_calls: unknown }[];
      expect(message?.tool_calls).to.deep.equal([
        { id: 'c1', type: 'function', function: { name: 'f', arguments: {} } },
      ]);
    }
    for (const given of ['5', '[1]', '"x"']) {
      const toolCalls = [{ id: 'c1', name: 'f', arguments: given }];
      const error = await rejection(seen([{ role: 'assistant', content: '', toolCalls }]), EngineError);
      expect(error.message).to.equal('the arguments of the tool call f are not a JSON object');
    }
  });

  it('gives each call its message and its result behind it where a template shows one call only', async () => {
    const template = `{{ messages|tojson }}{# message.tool_calls[0] #}`;
    const call = (id: string) => ({ id, name: 'f', arguments: '{}' });
    const result = (id: string) => ({ role: 'tool', content: id, toolCallId: id }) as const;
    const messages: ChatMessage[] = [
      { role: 'assistant', content: 'Both.', toolCalls: [call('a'), call('b')] },
      result('b'),
      result('a'),
      result('z'),
      { role: 'user', content: 'Thanks' },
    ];
    const shown = (await seen(messages, template)) as { content: string; tool_calls?: { id: string }[] }[];
    expect(shown.map(({ content, tool_calls: calls }) => [content, calls?.map(({ id }) => id)])).to.deep.equal([
      ['Both.', ['a']],
      ['a', undefined],
      ['', ['b']],
      ['b', undefined],
      ['z', undefined],
      ['Thanks', undefined],
    ]);
  });

  it('writes calls into the text where a template shows none', async () => {
    const template = '{# <tool_call></tool_call> #}{{ messages|tojson }}';
    const toolCalls = ['a', 'b'].map((id) => ({ id, name: 'f', arguments: `{"x":"${id}"}` }));
    const text = (id: string): string => `<tool_call>\n{"name": "f", "arguments": {"x": "${id}"}}\n</tool_call>`;
    const both = `${text('a')}\n${text('b')}`;
    expect(await seen([{ role: 'assistant', content: null, toolCalls }], template)).to.deep.equal([
      { role: 'assistant', content: both },
    ]);
    const content = [{ type: 'text', text: 'Look:' }] as const;
    expect(await seen([{ role: 'assistant', content, toolCalls }], template)).to.deep.equal([
      { role: 'assistant', content: `Look: ${both}` },
    ]);
  });

  it('names the tools as SmolLM3 wants them, unless the request does', async () => {
    const chat = model({ chatTemplate: '{{ xml_tools|tojson }}' });
    const tools = [{ name: 'f', parameters: { type: 'object' }, strict: true }];
    expect(JSON.parse(await chat.applyChatTemplate({ ...HI, tools }))).to.deep.equal([
      { name: 'f', parameters: { type: 'object' } },
    ]);
    expect(await chat.applyChatTemplate({ ...HI, tools, templateVariables: { xml_tools: [1] } })).to.equal('[1]');
  });

  it('tells how much to think in the words of every family', async () => {
    const shown = '{{ [enable_thinking, thinking, thinking_budget, reasoning_effort]|tojson }}';
    const seenBy = async (templateVariables: Record<string, unknown>, template = shown): Promise<unknown> =>
      JSON.parse(await model({ chatTemplate: template }).applyChatTemplate({ ...HI, templateVariables }));
    expect(await seenBy({ reasoning_effort: 'none' })).to.deep.equal([false, false, 0, 'none']);
    expect(await seenBy({ reasoning_effort: 'minimal' })).to.deep.equal([true, true, 512, 'minimal']);
    expect(await seenBy({ reasoning_effort: 'max', enable_thinking: false })).to.deep.equal([false, true, -1, 'max']);
    const harmony = `${shown}{# <|start|> <|channel|> <|message|> #}`;
    const efforts = ['none', 'minimal', 'low', 'medium', 'high', 'xhigh', 'max'];
    const told = await Promise.all(efforts.map((effort) => seenBy({ reasoning_effort: effort }, harmony)));
    expect(told.map((all) => (all as unknown[])[3])).to.deep.equal([
      ...['low', 'low', 'low', 'medium'],
      ...['high', 'high', 'high'],
    ]);
    // Nothing is said for a request that says nothing.
    const silent = '{{ [enable_thinking is defined, reasoning_effort is defined]|tojson }}';
    expect(await seenBy({}, silent)).to.deep.equal([false, false]);
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
