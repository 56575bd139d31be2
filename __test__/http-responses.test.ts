/** `/v1/responses` over HTTP, with a scripted model; the official client is the oracle. */

import { expect } from 'chai';
import OpenAI from 'openai';

import type { ChatRequest } from '../ts/chat/types.js';
import { EngineError } from '../ts/engine/types.js';
import type { ResponseEvent } from '../ts/protocol/response-events.js';
import { asChat, call, checkLegal, checkSchema, collapsed } from './helpers/response-events.js';
import { content, finished, reasoning, started } from './helpers/scripted-events.js';
import { dataOf, parseEvents, ScriptedApp } from './helpers/scripted-app.js';
import { Gate, type ScriptedModelOptions } from './helpers/scripted-registry.js';

const ID = 'org/model';
const PATH = '/v1/responses';

const echoes: ScriptedModelOptions = {
  id: ID,
  chat: ({ messages }) => [
    started,
    reasoning('let me see'),
    content(`heard ${messages.length}`),
    content('!'),
    finished(),
  ],
};

function clientOf(app: ScriptedApp): OpenAI {
  return new OpenAI({ baseURL: `${app.url}/v1`, apiKey: 'k', maxRetries: 0 });
}

async function failureOf(promise: PromiseLike<unknown>): Promise<any> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error('it succeeded');
}

async function eventsOf(app: ScriptedApp, body: object): Promise<ResponseEvent[]> {
  const all = await app.stream(PATH, { model: ID, ...body });
  expect(all.at(-1)).to.equal('[DONE]');
  return all.slice(0, -1) as ResponseEvent[];
}

const TOOL = {
  type: 'function',
  name: 'add',
  description: null,
  parameters: { type: 'object', properties: {} },
  strict: true,
} as const;

describe('POST /v1/responses', () => {
  it('streams events with their names, each in its place, then [DONE]', async () => {
    await using app = await ScriptedApp.start([echoes]);
    const answer = await app.post(PATH, { model: ID, input: 'hi', stream: true });
    expect(answer.headers['content-type']).to.match(/^text\/event-stream/);
    const messages = parseEvents([Buffer.from(answer.text)]);
    const events = dataOf(messages) as ResponseEvent[];
    expect(messages.map(({ event }) => event)).to.deep.equal([
      ...events.slice(0, -1).map(({ type }) => type),
      undefined,
    ]);
    expect(messages.at(-1)!.data).to.equal('[DONE]');
    expect(messages.every(({ id }) => id === undefined)).to.be.true;
    events.pop();
    checkSchema(events);
    const response = checkLegal(events);
    expect(response.output.map(({ id, type }) => [id.replace(/_[0-9a-f]{48}$/, ''), type])).to.deep.equal([
      ['rs', 'reasoning'],
      ['msg', 'message'],
    ]);
    expect(response.usage?.output_tokens_details.reasoning_tokens).to.equal(3);
    expect(collapsed(events)).to.deep.equal([
      ...['created', 'in_progress', 'output_item.added', 'content_part.added', 'reasoning_text.delta'],
      ...['reasoning_text.done', 'content_part.done', 'output_item.done', 'output_item.added', 'content_part.added'],
      ...['output_text.delta', 'output_text.done', 'content_part.done', 'output_item.done', 'completed'],
    ]);
  });

  it('reads the same wherever the bytes are cut', async () => {
    await using app = await ScriptedApp.start([
      { id: ID, chat: () => [started, content('Grüße 👋🏽\n\ndata: x'), content('…'), finished()] },
    ]);
    const { text } = await app.post(PATH, { model: ID, input: 'hi', stream: true });
    const bytes = Buffer.from(text);
    const whole = dataOf(parseEvents([bytes]));
    for (let cut = 1; cut < bytes.length; cut += 7) {
      expect(dataOf(parseEvents([bytes.subarray(0, cut), bytes.subarray(cut)]))).to.deep.equal(whole);
    }
  });

  it('answers without a stream with what would be the last snapshot', async () => {
    await using app = await ScriptedApp.start([echoes]);
    const { status, json } = await app.post(PATH, {
      model: ID,
      input: 'hi',
      instructions: 'be kind',
      metadata: { a: 'b' },
    });
    expect(status).to.equal(200);
    const streamed = checkLegal(await eventsOf(app, { input: 'hi', instructions: 'be kind', metadata: { a: 'b' } }));
    const plain = (value: object): unknown =>
      JSON.parse(
        JSON.stringify(value, (key, item: unknown) => (['id', 'created_at', 'completed_at'].includes(key) ? 0 : item)),
      );
    expect(plain(json)).to.deep.equal(plain(streamed));
    expect(json.model).to.equal(ID);
    expect(app.registry.first.chatRequests[0]!.messages[0]).to.deep.equal({ role: 'system', content: 'be kind' });
  });

  it('is incomplete where the limit cut it, with 200', async () => {
    await using app = await ScriptedApp.start([{ id: ID, chat: () => [started, content('a'), finished('length')] }]);
    const { status, json } = await app.post(PATH, { model: ID, input: 'hi', max_output_tokens: 1 });
    expect([status, json.status, json.incomplete_details]).to.deep.equal([
      200,
      'incomplete',
      { reason: 'max_output_tokens' },
    ]);
    expect(app.registry.first.chatRequests[0]!.maxTokens).to.equal(1);
  });

  it('hands on tools, their choice, the form of the text, and the rest', async () => {
    await using app = await ScriptedApp.start([echoes]);
    const format = { type: 'json_schema', name: 'x', schema: { type: 'object' }, strict: true };
    await app.post(PATH, {
      model: ID,
      input: 'hi',
      tools: [TOOL, { type: 'web_search' }],
      tool_choice: { type: 'function', name: 'add' },
      parallel_tool_calls: false,
      text: { format, verbosity: 'low' },
      reasoning: { effort: 'none' },
      temperature: 0.5,
      top_logprobs: 2,
    });
    const asked: ChatRequest = app.registry.first.chatRequests[0]!;
    expect(asked.tools?.map(({ name, strict }) => [name, strict])).to.deep.equal([['add', true]]);
    expect(asked.toolChoice).to.deep.equal({ name: 'add' });
    expect(asked.parallelToolCalls).to.be.false;
    expect(asked.responseFormat).to.deep.equal(format);
    expect(asked.sampling?.temperature).to.equal(0.5);
    expect(asked.logprobs).to.equal(2);
    expect(asked.templateVariables).to.deep.equal({ verbosity: 'low', reasoning_effort: 'none' });
    expect(app.log.filter((line) => line.startsWith('warn'))).to.have.length(1);
  });

  it('is an ordinary error where nothing was said yet, and `failed` afterwards', async () => {
    const fail = new EngineError('context_length_exceeded', 'too long');
    const late = new EngineError('timeout', 'too slow');
    await using app = await ScriptedApp.start([
      {
        id: ID,
        chat: ({ messages }) => (messages[0]!.content === 'a' ? [{ fail }] : [started, content('x'), { fail: late }]),
      },
    ]);
    for (const stream of [false, true]) {
      const early = await app.post(PATH, { model: ID, input: 'a', stream });
      expect([early.status, early.json.error.code, early.json.error.param]).to.deep.equal([
        400,
        'context_length_exceeded',
        'input',
      ]);
    }
    const events = await eventsOf(app, { input: 'b' });
    checkSchema(events);
    const { status, error, output } = checkLegal(events);
    expect([status, error, (output[0] as any).status]).to.deep.equal([
      'failed',
      { code: 'server_error', message: 'too slow' },
      'incomplete',
    ]);
    const whole = await app.post(PATH, { model: ID, input: 'b' });
    expect([whole.status, whole.json.error.code]).to.deep.equal([504, 'timeout']);
  });

  it('with truncation auto leaves out the oldest turns that do not fit', async () => {
    const fail = new EngineError('context_length_exceeded', 'too long');
    await using app = await ScriptedApp.start([
      { id: ID, chat: ({ messages }) => (messages.length > 3 ? [{ fail }] : [started, content('ok'), finished()]) },
    ]);
    const input = ['a', 'b', 'c', 'd'].flatMap((text) => [
      { role: 'user', content: text },
      { role: 'assistant', content: text },
    ]);
    const body = { model: ID, instructions: 'sys', input: [...input, { role: 'user', content: 'last' }] };
    expect((await app.post(PATH, body)).status).to.equal(400);
    expect((await app.post(PATH, { ...body, truncation: 'auto' })).status).to.equal(200);
    expect(app.registry.first.chatRequests.at(-1)!.messages.map(({ content: text }) => text)).to.deep.equal([
      'sys',
      'last',
    ]);
  });

  it('stops the generation when the client leaves, and keeps nothing', async () => {
    const never = new Gate();
    await using app = await ScriptedApp.start([
      { id: ID, chat: () => [started, content('a'), { wait: never.opened }] },
    ]);
    const stream = await clientOf(app).responses.create({ model: ID, input: 'hi', stream: true });
    let id = '';
    for await (const event of stream) {
      if (event.type === 'response.created') ({ id } = event.response);
      if (event.type === 'response.output_text.delta') stream.controller.abort();
    }
    const model = app.registry.first;
    await app.registry.until(() => model.running === 0 && model.held === 0);
    expect((await app.call({ path: `${PATH}/${id}` })).status).to.equal(404);
  });
});

describe('stored responses', () => {
  it('continue each other: input and output before, instructions not', async () => {
    await using app = await ScriptedApp.start([echoes]);
    const first = await app.post(PATH, { model: ID, input: 'one', instructions: 'first only' });
    const second = await app.post(PATH, { model: ID, input: 'two', previous_response_id: first.json.id });
    const third = await app.post(PATH, { model: ID, input: 'three', previous_response_id: second.json.id });
    expect(third.json.previous_response_id).to.equal(second.json.id);
    expect(app.registry.first.chatRequests.at(-1)!.messages).to.deep.equal([
      { role: 'user', content: 'one' },
      { role: 'assistant', content: 'heard 2!', reasoning: 'let me see' },
      { role: 'user', content: 'two' },
      { role: 'assistant', content: 'heard 3!', reasoning: 'let me see' },
      { role: 'user', content: 'three' },
    ]);
  });

  it('are there unless store is false, until they are deleted', async () => {
    await using app = await ScriptedApp.start([echoes]);
    const client = clientOf(app);
    const kept = await client.responses.create({ model: ID, input: 'one' });
    expect((await client.responses.retrieve(kept.id)).output_text).to.equal('heard 1!');
    const gone = await client.responses.create({ model: ID, input: 'one', store: false });
    expect((gone as any).store).to.be.false;
    expect(await failureOf(client.responses.retrieve(gone.id))).to.be.instanceOf(OpenAI.NotFoundError);
    const chained = await failureOf(client.responses.create({ model: ID, input: 'x', previous_response_id: gone.id }));
    expect([chained.status, chained.code, chained.param]).to.deep.equal([
      400,
      'previous_response_not_found',
      'previous_response_id',
    ]);
    await client.responses.delete(kept.id);
    expect(await failureOf(client.responses.retrieve(kept.id))).to.be.instanceOf(OpenAI.NotFoundError);
    expect(await failureOf(client.responses.delete(kept.id))).to.be.instanceOf(OpenAI.NotFoundError);
    expect((await app.call({ method: 'DELETE', path: `${PATH}/${gone.id}` })).json.error.type).to.equal(
      'not_found_error',
    );
  });

  it('list what they were asked with, in pages', async () => {
    await using app = await ScriptedApp.start([echoes]);
    const client = clientOf(app);
    const input = Array.from({ length: 25 }, (_, i) => ({ role: 'user' as const, content: `m${i}` }));
    const { id } = await client.responses.create({ model: ID, input });
    const texts = async (order: 'asc' | 'desc', limit?: number): Promise<string[]> => {
      const all: string[] = [];
      for await (const item of client.responses.inputItems.list(id, { order, ...(limit ? { limit } : {}) })) {
        all.push((item as any).content[0].text);
      }
      return all;
    };
    const asked = input.map((message) => message.content);
    expect(await texts('asc')).to.deep.equal(asked);
    expect(await texts('desc', 7)).to.deep.equal(asked.toReversed());
    const page = await app.call({ path: `${PATH}/${id}/input_items?limit=2&order=asc` });
    expect([page.json.object, page.json.data.length, page.json.has_more]).to.deep.equal(['list', 2, true]);
    expect((await app.call({ path: `${PATH}/${id}/input_items?limit=0` })).status).to.equal(400);
    expect((await app.call({ path: `${PATH}/${id}/input_items?after=nope` })).status).to.equal(400);
  });

  it('lend their items by reference', async () => {
    await using app = await ScriptedApp.start([
      { id: ID, chat: () => asChat([started, ...call(0, 'add', ['{"a":1}']), finished()]) },
    ]);
    const { json } = await app.post(PATH, { model: ID, input: 'add', tools: [TOOL] });
    const [item] = json.output;
    const output = { type: 'function_call_output', call_id: item.call_id, output: '3' };
    await app.post(PATH, {
      model: ID,
      input: [{ role: 'user', content: 'add' }, { type: 'item_reference', id: item.id }, output],
    });
    expect(app.registry.first.chatRequests.at(-1)!.messages).to.deep.equal([
      { role: 'user', content: 'add' },
      { role: 'assistant', content: null, toolCalls: [{ id: item.call_id, name: 'add', arguments: '{"a":1}' }] },
      { role: 'tool', toolCallId: item.call_id, content: '3' },
    ]);
    const lost = await app.post(PATH, { model: ID, input: [{ type: 'item_reference', id: 'msg_0' }] });
    expect([lost.status, lost.json.error.param]).to.deep.equal([400, 'input[0].id']);
  });

  it('are none where the server keeps none', async () => {
    await using app = await ScriptedApp.start([echoes], { responses: false });
    const { json } = await app.post(PATH, { model: ID, input: 'one' });
    expect(json.store).to.be.false;
    expect((await app.call({ path: `${PATH}/${json.id}` })).status).to.equal(404);
    expect((await app.post(PATH, { model: ID, input: 'one', background: true })).json.error.param).to.equal(
      'background',
    );
  });
});

describe('the openai client on /v1/responses', () => {
  it('streams, accumulates and parses', async () => {
    const says = '{"answer":42}';
    await using app = await ScriptedApp.start([
      {
        id: ID,
        chat: ({ tools }) =>
          tools === undefined
            ? [started, reasoning('hm'), content(says.slice(0, 5)), content(says.slice(5)), finished()]
            : asChat([
                started,
                content('now'),
                ...call(0, 'add', ['{"a"', ':1}']),
                ...call(1, 'add', ['{}']),
                finished(),
              ]),
      },
    ]);
    const client = clientOf(app);
    const stream = client.responses.stream({ model: ID, input: 'hi' });
    const seen: string[] = [];
    stream.on('response.output_text.delta', (event) => seen.push(event.snapshot));
    const final = await stream.finalResponse();
    expect(seen).to.deep.equal([says.slice(0, 5), says]);
    expect(final.output_text).to.equal(says);
    expect(final.output.map(({ type }) => type)).to.deep.equal(['reasoning', 'message']);

    const format = { type: 'json_schema', name: 'x', schema: { type: 'object' }, strict: true } as const;
    const parsed = await client.responses.parse({ model: ID, input: 'hi', text: { format } });
    expect(parsed.output_parsed).to.deep.equal({ answer: 42 });

    const tools = client.responses.stream({ model: ID, input: 'hi', tools: [TOOL] });
    const calls = (await tools.finalResponse()).output.filter((item) => item.type === 'function_call');
    expect(calls.map((item) => item.arguments)).to.deep.equal(['{"a":1}', '{}']);
  });

  it('counts tokens and compacts', async () => {
    await using app = await ScriptedApp.start([echoes]);
    const client = clientOf(app);
    const counted = await client.responses.inputTokens.count({ model: ID, input: 'one two three' });
    expect(counted).to.deep.equal({ object: 'response.input_tokens', input_tokens: 3 });

    const first = await client.responses.create({ model: ID, input: 'one' });
    const compacted = await client.responses.compact({ model: ID, previous_response_id: first.id });
    expect([compacted.object, compacted.output.map(({ type }) => type)]).to.deep.equal([
      'response.compaction',
      ['compaction'],
    ]);
    await client.responses.create({
      model: ID,
      input: [...(compacted.output as any[]), { role: 'user', content: 'two' }],
    });
    expect(app.registry.first.chatRequests.at(-1)!.messages).to.deep.equal([
      { role: 'user', content: 'one' },
      { role: 'assistant', content: 'heard 1!' },
      { role: 'user', content: 'two' },
    ]);
    const foreign = [{ type: 'compaction', encrypted_content: 'gAAAA' }];
    expect((await app.post(PATH, { model: ID, input: foreign })).status).to.equal(400);
  });

  it('carries reasoning in encrypted_content for those who ask', async () => {
    await using app = await ScriptedApp.start([echoes]);
    const include = ['reasoning.encrypted_content'];
    const { json } = await app.post(PATH, { model: ID, input: 'one', store: false, include });
    const [thought, message] = json.output;
    const stripped = { type: 'reasoning', id: thought.id, summary: [], encrypted_content: thought.encrypted_content };
    await app.post(PATH, { model: ID, input: [stripped, message, { role: 'user', content: 'two' }] });
    expect(app.registry.first.chatRequests.at(-1)!.messages[0]).to.deep.equal({
      role: 'assistant',
      content: 'heard 1!',
      reasoning: 'let me see',
    });
  });
});
