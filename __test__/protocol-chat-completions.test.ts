import { expect } from 'chai';

import { CHAT_COMPLETION_FIELDS, parseChatCompletionRequest } from '../ts/protocol/chat-completions.js';
import { ApiError } from '../ts/protocol/errors.js';

const USER = { role: 'user', content: 'hi' };

function parse(body: unknown, strict = false) {
  const warned: string[] = [];
  const request = parseChatCompletionRequest(body, { strict, warn: (field) => warned.push(field) });
  return { request, warned };
}

function parseFields(fields: object) {
  return parse({ model: 'm', messages: [USER], ...fields });
}

function errorOf(body: unknown, strict = false): ApiError {
  try {
    parse(body, strict);
  } catch (error) {
    expect(error).to.be.instanceOf(ApiError);
    return error as ApiError;
  }
  throw new Error('it was accepted');
}

describe('a chat completion request', () => {
  it('has defaults', () => {
    expect(parse({ messages: [USER] })).to.deep.equal({
      warned: [],
      request: {
        model: undefined,
        messages: [{ role: 'user', content: 'hi', name: undefined }],
        tools: [],
        mcpTools: [],
        toolChoice: undefined,
        parallelToolCalls: undefined,
        responseFormat: undefined,
        grammar: undefined,
        n: 1,
        sampling: {},
        maxTokens: undefined,
        stop: [],
        stopTokenIds: [],
        ignoreEos: false,
        logprobs: undefined,
        stream: false,
        includeUsage: false,
        templateVariables: {},
        addGenerationPrompt: true,
        continueFinalMessage: false,
        cacheSalt: undefined,
      },
    });
  });

  it('takes every honoured field', () => {
    const { request, warned } = parseFields({
      max_tokens: 9,
      temperature: 0.5,
      top_p: 0.9,
      top_k: 40,
      min_p: 0.05,
      seed: 42,
      stop: ['a', 'b'],
      ignore_eos: true,
      logprobs: true,
      top_logprobs: 3,
      stream: true,
      stream_options: { include_usage: true, include_obfuscation: false },
      chat_template_kwargs: { enable_thinking: false },
      reasoning_effort: 'low',
      cache_salt: 's',
    });
    expect(warned).to.deep.equal([]);
    expect(request).to.deep.include({
      model: 'm',
      sampling: { temperature: 0.5, topP: 0.9, topK: 40, minP: 0.05, seed: 42 },
      maxTokens: 9,
      stop: ['a', 'b'],
      ignoreEos: true,
      logprobs: 3,
      stream: true,
      includeUsage: true,
      templateVariables: { reasoning_effort: 'low', enable_thinking: false },
      cacheSalt: 's',
    });
  });

  it('treats null as absent, in every field', () => {
    for (const field of Object.keys(CHAT_COMPLETION_FIELDS)) {
      if (field === 'messages') continue;
      expect(parse({ messages: [USER], [field]: null }), field).to.deep.equal(parse({ messages: [USER] }));
    }
  });

  it('prefers max_completion_tokens to max_tokens', () => {
    expect(parseFields({ max_tokens: 5, max_completion_tokens: 7 }).request.maxTokens).to.equal(7);
    expect(parseFields({ max_completion_tokens: 7 }).request.maxTokens).to.equal(7);
  });

  it('reads a blank model as none', () => {
    expect(parseFields({ model: '  ' }).request.model).to.equal(undefined);
  });

  it('keeps all of the vocabulary for top_k 0 and -1, and the best token alone for top_p 0', () => {
    expect(parseFields({ top_k: -1 }).request.sampling.topK).to.equal(0);
    expect(parseFields({ top_k: 0 }).request.sampling.topK).to.equal(0);
    expect(parseFields({ top_p: 0 }).request.sampling).to.include({ topK: 1, topP: 1 });
  });

  it('makes any 64-bit seed a safe whole number, the same for the same seed', () => {
    const seedOf = (seed: number): number => parseFields({ seed }).request.sampling.seed ?? Number.NaN;
    expect(seedOf(0)).to.equal(0);
    expect(seedOf(Number.MAX_SAFE_INTEGER)).to.equal(Number.MAX_SAFE_INTEGER);
    const seeds = [-1, -2, -(2 ** 63), 2 ** 63, 2 ** 53, 2 ** 60 + 2 ** 10].map(seedOf);
    for (const seed of seeds) expect(Number.isSafeInteger(seed) && seed >= 0, String(seed)).to.equal(true);
    expect(seedOf(-1)).to.equal(seedOf(-1));
    expect(seedOf(-1)).not.to.equal(seedOf(-2));
  });

  it('takes messages of every role', () => {
    const { request } = parse({
      messages: [
        { role: 'developer', content: [{ type: 'text', text: 'd' }] },
        { role: 'system', content: 's', name: 'n' },
        {
          role: 'user',
          content: [
            { type: 'text', text: 'look' },
            { type: 'image_url', image_url: { url: 'data:image/png;base64,AA==', detail: 'low' } },
            { type: 'image_url', image_url: 'http://localhost/a.png' },
            { type: 'input_text', text: '!' },
          ],
        },
        {
          role: 'assistant',
          content: null,
          reasoning_content: 'hm',
          tool_calls: [{ id: 'c1', type: 'function', function: { name: 'f', arguments: '{"a":1}' } }],
        },
        { role: 'tool', content: '42', tool_call_id: 'c1' },
        { role: 'assistant', content: [{ type: 'refusal', refusal: 'no' }], reasoning: 'r', tool_calls: [] },
        { role: 'assistant', refusal: 'never' },
      ],
    });
    expect(JSON.parse(JSON.stringify(request.messages))).to.deep.equal([
      { role: 'developer', content: [{ type: 'text', text: 'd' }] },
      { role: 'system', content: 's', name: 'n' },
      {
        role: 'user',
        content: [
          { type: 'text', text: 'look' },
          { type: 'image', url: 'data:image/png;base64,AA==' },
          { type: 'image', url: 'http://localhost/a.png' },
          { type: 'text', text: '!' },
        ],
      },
      {
        role: 'assistant',
        content: null,
        reasoning: 'hm',
        toolCalls: [{ id: 'c1', name: 'f', arguments: '{"a":1}' }],
      },
      { role: 'tool', content: '42', toolCallId: 'c1' },
      { role: 'assistant', content: [{ type: 'text', text: 'no' }], reasoning: 'r' },
      { role: 'assistant', content: 'never' },
    ]);
  });

  it('may be system messages alone', () => {
    expect(parse({ messages: [{ role: 'system', content: 's' }] }).request.messages).to.have.length(1);
  });

  it('passes tools on and drops those that run elsewhere', () => {
    const definition = { name: 'f', description: 'd', parameters: { type: 'object' }, strict: true };
    const tools = [{ type: 'function', function: definition }, { type: 'web_search' }];
    const { request, warned } = parseFields({ tools, tool_choice: 'auto' });
    expect(request.tools).to.deep.equal([definition]);
    expect(warned).to.deep.equal(['tools[].type="web_search"']);
  });

  it('reads every form of tool_choice', () => {
    const tools = ['f', 'g'].map((name) => ({ type: 'function', function: { name } }));
    const choice = (tool_choice: unknown): unknown => parseFields({ tools, tool_choice }).request.toolChoice;
    for (const word of ['none', 'auto', 'required']) expect(choice(word)).to.equal(word);
    expect(choice(null)).to.equal(undefined);
    expect(choice({ type: 'function', function: { name: 'g' } })).to.deep.equal({ name: 'g' });
    const allowed_tools = { mode: 'required', tools: [{ type: 'function', function: { name: 'f' } }] };
    expect(choice({ type: 'allowed_tools', allowed_tools })).to.deep.equal({ allowed: ['f'], mode: 'required' });
    expect(parseFields({ tools, parallel_tool_calls: false }).request.parallelToolCalls).to.equal(false);
    expect(parseFields({ tool_choice: 'none' }).request.toolChoice).to.equal('none');
  });

  it('reads every form of response_format', () => {
    const format = (response_format: unknown): unknown => parseFields({ response_format }).request.responseFormat;
    expect(format({ type: 'text' })).to.deep.equal({ type: 'text' });
    expect(format({ type: 'json_object' })).to.deep.equal({ type: 'json_object' });
    const schemaOnly = { type: 'json_schema', name: 'response', schema: { type: 'object' }, strict: true };
    expect(format({ type: 'json_object', value: { type: 'object' } })).to.deep.equal(schemaOnly);
    expect(format({ type: 'json_object', schema: { type: 'object' } })).to.deep.equal(schemaOnly);
    const schema = { type: 'object' };
    expect(format({ type: 'json_schema', json_schema: { name: 'n', schema, strict: true } })).to.deep.equal({
      type: 'json_schema',
      name: 'n',
      schema,
      strict: true,
    });
    expect(format({ type: 'json_schema', json_schema: { name: 'n', strict: null } })).to.deep.equal({
      type: 'json_schema',
      name: 'n',
      schema: true,
      strict: false,
    });
  });

  it('continues the last message', () => {
    const messages = [USER, { role: 'assistant', content: 'I am' }];
    expect(parse({ messages, continue_final_message: true }).request).to.include({
      continueFinalMessage: true,
      addGenerationPrompt: false,
    });
    expect(parse({ messages, add_generation_prompt: false }).request.addGenerationPrompt).to.equal(false);
  });

  it('warns of fields without effect and of unknown ones', () => {
    expect(
      parseFields({ user: 'u', store: true, metadata: {}, service_tier: 'auto', frobnicate: 1 }).warned,
    ).to.have.members(['user', 'store', 'metadata', 'service_tier', 'frobnicate']);
  });

  it('refuses unknown fields when strict, by name', () => {
    expect(errorOf({ messages: [USER], frobnicate: null }, true)).to.include({
      status: 400,
      code: 'unknown_parameter',
      param: 'frobnicate',
    });
    expect(parse({ messages: [USER], user: 'u' }, true).warned).to.deep.equal(['user']);
  });

  it('accepts refused fields whose value asks for nothing', () => {
    const harmless = {
      n: 1,
      response_format: { type: 'text' },
      modalities: ['text'],
      functions: [],
      function_call: 'none',
      stop_token_ids: [],
      grammar: '',
    };
    expect(parseFields(harmless).warned).to.deep.equal([]);
  });

  const refused = {
    modalities: ['text', 'audio'],
    audio: { voice: 'alloy', format: 'wav' },
    functions: [{ name: 'f' }],
    function_call: { name: 'f' },
    grammar: 'root ::= "a"',
    json_schema: { type: 'object' },
    chat_template: '{{ messages }}',
  };
  for (const [field, value] of Object.entries(refused)) {
    it(`is refused by name for ${field}`, () => {
      const error = errorOf({ messages: [USER], [field]: value });
      expect(error).to.include({ status: 400, code: 'unsupported_parameter', param: field });
      expect(error.message).to.include(`'${field}' is not supported`);
    });
  }

  const invalid: readonly [name: string, body: unknown, code: string, param: string | null][] = [
    ['an array', [], 'invalid_type', null],
    [
      'arguments that are no object',
      { messages: [USER], tools: [{ type: 'function', function: { name: 'f', parameters: { type: 'string' } } }] },
      'invalid_value',
      'tools[0].function.parameters.type',
    ],
    ['a string', 'hi', 'invalid_type', null],
    ['null', null, 'invalid_type', null],
    ['no messages', { model: 'm' }, 'missing_required_parameter', 'messages'],
    ['messages of the wrong type', { messages: 'hi' }, 'invalid_type', 'messages'],
    ['an empty message list', { messages: [] }, 'invalid_value', 'messages'],
    ['a message that is no object', { messages: ['hi'] }, 'invalid_type', 'messages[0]'],
    ['a message without role', { messages: [{ content: 'a' }] }, 'missing_required_parameter', 'messages[0].role'],
    ['an unknown role', { messages: [USER, { role: 'king', content: 'a' }] }, 'invalid_value', 'messages[1].role'],
    ['missing content', { messages: [{ role: 'user' }] }, 'missing_required_parameter', 'messages[0].content'],
    [
      'null content',
      { messages: [{ role: 'system', content: null }] },
      'missing_required_parameter',
      'messages[0].content',
    ],
    ['content of the wrong type', { messages: [{ role: 'user', content: 5 }] }, 'invalid_type', 'messages[0].content'],
    ['no parts', { messages: [{ role: 'user', content: [] }] }, 'invalid_value', 'messages[0].content'],
    [
      'a part without type',
      { messages: [{ role: 'user', content: [{}] }] },
      'missing_required_parameter',
      'messages[0].content[0].type',
    ],
    [
      'a part without text',
      { messages: [{ role: 'user', content: [{ type: 'text' }] }] },
      'missing_required_parameter',
      'messages[0].content[0].text',
    ],
    [
      'text of the wrong type',
      { messages: [USER, USER, { role: 'user', content: [{ type: 'text', text: 1 }] }] },
      'invalid_type',
      'messages[2].content[0].text',
    ],
    [
      'an audio part',
      { messages: [{ role: 'user', content: [{ type: 'input_audio', input_audio: {} }] }] },
      'invalid_value',
      'messages[0].content[0].type',
    ],
    [
      'an image in a system message',
      { messages: [{ role: 'system', content: [{ type: 'image_url', image_url: 'x' }] }] },
      'invalid_value',
      'messages[0].content[0].type',
    ],
    [
      'an image without url',
      { messages: [{ role: 'user', content: [{ type: 'image_url', image_url: {} }] }] },
      'missing_required_parameter',
      'messages[0].content[0].image_url.url',
    ],
    [
      'a tool message without id',
      { messages: [{ role: 'tool', content: 'a' }] },
      'missing_required_parameter',
      'messages[0].tool_call_id',
    ],
    [
      'an assistant message without anything',
      { messages: [{ role: 'assistant' }] },
      'missing_required_parameter',
      'messages[0].content',
    ],
    [
      'a tool call whose arguments are an object',
      { messages: [{ role: 'assistant', tool_calls: [{ id: 'a', function: { name: 'f', arguments: {} } }] }] },
      'invalid_type',
      'messages[0].tool_calls[0].function.arguments',
    ],
    [
      'a deprecated call',
      { messages: [{ role: 'assistant', content: '', function_call: {} }] },
      'unsupported_parameter',
      'messages[0].function_call',
    ],
    ['a model of the wrong type', { messages: [USER], model: 5 }, 'invalid_type', 'model'],
    ['temperature as text', { messages: [USER], temperature: '1' }, 'invalid_type', 'temperature'],
    ['temperature too high', { messages: [USER], temperature: 2.1 }, 'invalid_value', 'temperature'],
    ['temperature below 0', { messages: [USER], temperature: -0.1 }, 'invalid_value', 'temperature'],
    [
      'temperature without end',
      { messages: [USER], temperature: Number.POSITIVE_INFINITY },
      'invalid_type',
      'temperature',
    ],
    ['top_p above 1', { messages: [USER], top_p: 1.5 }, 'invalid_value', 'top_p'],
    ['top_k as a fraction', { messages: [USER], top_k: 1.5 }, 'invalid_type', 'top_k'],
    ['top_k below -1', { messages: [USER], top_k: -2 }, 'invalid_value', 'top_k'],
    ['min_p above 1', { messages: [USER], min_p: 2 }, 'invalid_value', 'min_p'],
    ['a seed beyond 64 bits', { messages: [USER], seed: 1e20 }, 'invalid_value', 'seed'],
    ['max_tokens 0', { messages: [USER], max_tokens: 0 }, 'invalid_value', 'max_tokens'],
    [
      'max_completion_tokens as text',
      { messages: [USER], max_completion_tokens: 'all' },
      'invalid_type',
      'max_completion_tokens',
    ],
    ['max_tokens beyond counting', { messages: [USER], max_tokens: 1e10 }, 'invalid_value', 'max_tokens'],
    ['an empty stop string', { messages: [USER], stop: '' }, 'invalid_value', 'stop'],
    ['an empty stop string among others', { messages: [USER], stop: ['a', ''] }, 'invalid_value', 'stop[1]'],
    ['five stop strings', { messages: [USER], stop: ['a', 'b', 'c', 'd', 'e'] }, 'invalid_value', 'stop'],
    ['a stop of the wrong type', { messages: [USER], stop: 5 }, 'invalid_type', 'stop'],
    ['logprobs as a number', { messages: [USER], logprobs: 3 }, 'invalid_type', 'logprobs'],
    ['top_logprobs alone', { messages: [USER], top_logprobs: 3 }, 'invalid_value', 'top_logprobs'],
    ['too many top_logprobs', { messages: [USER], logprobs: true, top_logprobs: 21 }, 'invalid_value', 'top_logprobs'],
    ['stream as text', { messages: [USER], stream: 'true' }, 'invalid_type', 'stream'],
    ['stream_options without stream', { messages: [USER], stream_options: {} }, 'invalid_value', 'stream_options'],
    [
      'include_usage as text',
      { messages: [USER], stream: true, stream_options: { include_usage: 1 } },
      'invalid_type',
      'stream_options.include_usage',
    ],
    ['tools of the wrong type', { messages: [USER], tools: {} }, 'invalid_type', 'tools'],
    [
      'a tool without name',
      { messages: [USER], tools: [{ type: 'function', function: {} }] },
      'missing_required_parameter',
      'tools[0].function.name',
    ],
    [
      'a tool with a bad name',
      { messages: [USER], tools: [{ type: 'function', function: { name: 'a b' } }] },
      'invalid_value',
      'tools[0].function.name',
    ],
    [
      'a custom tool',
      { messages: [USER], tools: [{ type: 'custom', custom: {} }] },
      'unsupported_value',
      'tools[0].type',
    ],
    [
      'tool_choice required without tools',
      { messages: [USER], tool_choice: 'required' },
      'invalid_value',
      'tool_choice',
    ],
    [
      'a tool_choice that names no tool',
      {
        messages: [USER],
        tools: [{ type: 'function', function: { name: 'g' } }],
        tool_choice: { type: 'function', function: { name: 'f' } },
      },
      'invalid_value',
      'tool_choice',
    ],
    [
      'a custom tool_choice',
      { messages: [USER], tool_choice: { type: 'custom', custom: { name: 'f' } } },
      'unsupported_value',
      'tool_choice.type',
    ],
    [
      'allowed_tools without a mode',
      { messages: [USER], tool_choice: { type: 'allowed_tools', allowed_tools: { tools: [] } } },
      'missing_required_parameter',
      'tool_choice.allowed_tools.mode',
    ],
    [
      'an unknown response_format',
      { messages: [USER], response_format: { type: 'xml' } },
      'invalid_value',
      'response_format.type',
    ],
    [
      'a json_schema without a name',
      { messages: [USER], response_format: { type: 'json_schema', json_schema: {} } },
      'missing_required_parameter',
      'response_format.json_schema.name',
    ],
    ['an unknown tool_choice', { messages: [USER], tool_choice: 'maybe' }, 'invalid_value', 'tool_choice'],
    [
      'template variables as text',
      { messages: [USER], chat_template_kwargs: '{}' },
      'invalid_type',
      'chat_template_kwargs',
    ],
    [
      'continuing a user message',
      { messages: [USER], continue_final_message: true },
      'invalid_value',
      'continue_final_message',
    ],
    [
      'continuing and beginning',
      { messages: [{ role: 'assistant', content: 'a' }], continue_final_message: true, add_generation_prompt: true },
      'invalid_value',
      'continue_final_message',
    ],
  ];
  for (const [name, body, code, param] of invalid) {
    it(`cannot have ${name}`, () => {
      const error = errorOf(body);
      expect({ status: error.status, code: error.code, param: error.param }).to.deep.equal({
        status: 400,
        code,
        param,
      });
      if (param !== null) expect(error.message).to.include(`'${param}'`);
    });
  }

  it('cannot reach Object.prototype', () => {
    const body: unknown = JSON.parse(
      '{"messages":[{"role":"user","content":"a"}],"constructor":1,"__proto__":{"stream":true}}',
    );
    const { request, warned } = parse(body);
    expect(request.stream).to.equal(false);
    expect(warned).to.have.members(['constructor', '__proto__']);
  });
});
