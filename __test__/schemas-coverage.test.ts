/**
 * Everything that the server can say, said once, and held against OpenAI's and Open Responses' published schemas. The
 * other tests are listened to in the same way (helpers/schemas/watch.ts); here is what makes sure that nothing is left out:
 * each kind of event, each route, each extra of ours, each patch.
 */

import { McpServer as SdkServer, fromJsonSchema } from '@modelcontextprotocol/server';
import { expect } from 'chai';
import { WebSocket } from 'ws';

import type { ChatEvent, ChatRequest } from '../ts/chat/types.js';
import { EngineError } from '../ts/engine/types.js';
import { ROUTES } from '../ts/http/routes/index.js';
import { McpPool } from '../ts/mcp/client-pool.js';
import type { McpServer } from '../ts/mcp/tool.js';
import { ANSWER_EXTRAS } from '../ts/protocol/answer-extras.js';
import { RESPONSE_EVENT_TYPES } from '../ts/protocol/response-events.js';
import { TRANSCRIPT_EVENT_TYPES } from '../ts/protocol/transcripts.js';
import { inMemory } from './helpers/mcp-servers.js';
import { asChat, call } from './helpers/response-events.js';
import { extraPatches } from './helpers/schemas/extras.js';
import { problemOf, type Said } from './helpers/schemas/judge.js';
import { OPEN_RESPONSES_PATCHES, OPENAI_PATCHES } from './helpers/schemas/patches.js';
import { type Patch, PublishedSchema, readSpec, templateFor } from './helpers/schemas/published.js';
import type { Openness } from './helpers/schemas/rewrite.js';
import {
  content,
  delta,
  english,
  finished,
  heard,
  reasoning,
  said as spoken,
  started,
  token,
  transcribed,
} from './helpers/scripted-events.js';
import { ScriptedApp } from './helpers/scripted-app.js';
import { Gate, type Step } from './helpers/scripted-registry.js';

const ID = 'org/model';
const CHAT = '/v1/chat/completions';
const TEXT = '/v1/completions';
const RESPONSES = '/v1/responses';
const TOKENS = [token('a', -0.5, { a: -0.5, b: -1 })];
const WEATHER = {
  name: 'weather',
  description: 'the weather of a city',
  parameters: { type: 'object', properties: { city: { type: 'string' } } },
};
const FUNCTION = { type: 'function', ...WEATHER, strict: false };
const FORMAT = { type: 'json_schema', name: 'x', schema: { type: 'object' }, strict: true };

/** Opened for the one answer that waits. */
const never = new Gate();

/** What the model says follows from the last words of the user, or of a tool. */
function chat({ messages, n }: ChatRequest & { readonly n?: number }): Iterable<Step<ChatEvent>> {
  const last = messages.findLast(({ role }) => role === 'user' || role === 'tool');
  const said = typeof last?.content === 'string' ? last.content : JSON.stringify(last?.content ?? n ?? '');
  if (last?.role === 'tool') return [started, content('it is done'), finished()];
  if (said.includes('call')) return asChat([started, ...call(0, 'weather', ['{"city":', '"x"}']), finished()]);
  if (said.includes('add')) return asChat([started, ...call(0, 'add', ['{"a":1,', '"b":2}']), finished()]);
  if (said.includes('break')) return asChat([started, ...call(0, 'fail', ['{}']), finished()]);
  if (said.includes('cut')) return [started, content('so f', TOKENS), finished('length')];
  if (said.includes('wait')) return [started, content('w'), { wait: never.opened }];
  if (said.includes('fall')) return [started, content('f'), { fail: new EngineError('internal', 'it fell') }];
  if (said.includes('refuse'))
    return [{ fail: new EngineError('queue_full', 'too many', undefined, { retryAfter: 1 }) }];
  return [started, reasoning('well'), content('a', TOKENS), content('b', TOKENS), finished()];
}

const MODEL = {
  id: ID,
  contextLength: 512,
  chat,
  generate: () => [
    started,
    { type: 'prompt', tokens: [token('x'), token('y', -1, { y: -1 })] } as const,
    delta('a', TOKENS),
    finished('length'),
  ],
};

const SPEECH = {
  id: 'org/speech',
  transcribe: ({ prompt }: { readonly prompt?: string }) =>
    prompt === 'fall'
      ? [heard, english, spoken(0, ' a'), { fail: new EngineError('internal', 'it fell') }]
      : [heard, english, spoken(0, ' a b'), spoken(1, ' c'), transcribed],
};

function calc(): McpServer {
  return inMemory('calc', () => {
    const server = new SdkServer({ name: 'calc', version: '1' });
    const inputSchema = fromJsonSchema<Record<string, unknown>>({ type: 'object' });
    const annotations = { readOnlyHint: true };
    server.registerTool('add', { inputSchema, description: 'adds', annotations }, async ({ a, b }) => ({
      content: [{ type: 'text', text: String(Number(a) + Number(b)) }],
    }));
    server.registerTool('fail', { inputSchema }, async () => {
      throw new Error('not today');
    });
    return server;
  });
}

const GONE: McpServer = {
  label: 'gone',
  trusted: true,
  reach: { type: 'stdio', command: 'no-such-command-anywhere', args: [], env: {} },
};

function mcp(label: string, approval: 'never' | 'always' = 'never'): object {
  return { type: 'mcp', server_label: label, require_approval: approval };
}

async function sayChat(app: ScriptedApp): Promise<void> {
  const ask = (text: string, more: object = {}) => ({
    model: ID,
    messages: [{ role: 'user', content: text }],
    ...more,
  });
  const tools = [{ type: 'function', function: WEATHER }];
  const bodies = [
    ask('hi'),
    ask('hi', { logprobs: true, top_logprobs: 2 }),
    ask('hi', { n: 2 }),
    ask('call', { tools }),
    ask('cut'),
    ask('add', { tools: [mcp('calc')] }),
    ask('break', { tools: [mcp('calc')] }),
    ask('fall'),
    ask('refuse'),
    {},
  ];
  for (const body of bodies) {
    await app.post(CHAT, body);
    await app.stream(CHAT, body);
    await app.stream(CHAT, { ...body, stream_options: { include_usage: true } });
  }
  for (const body of [
    { model: ID, prompt: 'x y' },
    { model: ID, prompt: ['x y', 'z'], n: 2 },
    { model: ID, prompt: 'x y', logprobs: 2, echo: true },
    { model: ID, prompt: '', logprobs: 99 },
  ]) {
    await app.post(TEXT, body);
    await app.stream(TEXT, { ...body, stream_options: { include_usage: true } });
  }
}

async function sayTranscripts(app: ScriptedApp): Promise<void> {
  for (const path of ['/v1/audio/transcriptions', '/v1/audio/translations']) {
    const forms: readonly Readonly<Record<string, string | readonly string[]>>[] = [
      {},
      { 'include[]': 'logprobs' },
      { prompt: 'fall' },
      { model: ID },
      { 'timestamp_granularities[]': ['word', 'segment'], response_format: 'verbose_json' },
      { response_format: 'verbose_json' },
      { response_format: 'srt' },
    ];
    for (const fields of forms) {
      await app.form(path, { model: 'org/speech', ...fields });
      await app.form(path, { model: 'org/speech', stream: 'true', ...fields });
    }
  }
}

async function sayResponses(app: ScriptedApp): Promise<void> {
  const ask = (input: unknown, more: object = {}) => ({ model: ID, input, ...more });
  const bodies = [
    ask('hi', { include: ['message.output_text.logprobs', 'reasoning.encrypted_content'], top_logprobs: 2 }),
    ask('call', {
      tools: [FUNCTION],
      instructions: 'be kind',
      metadata: { a: 'b' },
      safety_identifier: 's'.repeat(64),
    }),
    ask('call', { tools: [{ type: 'function', name: 'weather' }], tool_choice: { type: 'function', name: 'weather' } }),
    ask('hi', {
      text: { format: FORMAT, verbosity: 'low' },
      reasoning: { effort: 'low', summary: 'auto' },
      store: false,
    }),
    ask('hi', { text: { format: { ...FORMAT, description: 'd' } }, prompt_cache_key: 'k', truncation: 'auto' }),
    ask('hi', { temperature: 1, top_p: 0.5, presence_penalty: 1, frequency_penalty: 1, max_tool_calls: 3 }),
    ask('cut', { max_output_tokens: 16 }),
    ask('fall'),
    ask('refuse'),
    ask('add', { tools: [mcp('calc')] }),
    ask('add', { tools: [{ ...mcp('calc'), allowed_tools: ['add'], server_description: 'd' }] }),
    ask('add', { tools: [{ ...mcp('calc'), allowed_tools: { read_only: true } }] }),
    ask('add', { tools: [mcp('calc')], tool_choice: { type: 'mcp', server_label: 'calc', name: 'add' } }),
    ask('break', { tools: [mcp('calc')] }),
    ask('add', { tools: [mcp('gone'), { ...mcp('calc'), require_approval: { never: { tool_names: ['add'] } } }] }),
    ask('call', {
      tools: [FUNCTION, mcp('calc')],
      tool_choice: {
        type: 'allowed_tools',
        mode: 'auto',
        tools: [
          { type: 'function', name: 'weather' },
          { type: 'mcp', server_label: 'calc' },
        ],
      },
    }),
    {},
  ];
  for (const body of bodies) {
    await app.post(RESPONSES, body);
    await app.stream(RESPONSES, body);
  }
  const asked = (await app.post(RESPONSES, ask('add', { tools: [mcp('calc', 'always')] }))).json;
  const [request] = asked.output.filter(({ type }: any) => type === 'mcp_approval_request');
  for (const approve of [true, false]) {
    const answer = { type: 'mcp_approval_response', approval_request_id: request.id, approve, reason: 'r' };
    const body = ask([answer], { previous_response_id: asked.id, tools: [mcp('calc', 'always')] });
    const done = (await app.post(RESPONSES, body)).json;
    await app.call({ path: `${RESPONSES}/${done.id}/input_items` });
    await app.stream(RESPONSES, body);
  }
}

/** @param items of every kind */
async function sayConversations(app: ScriptedApp, items: readonly object[]): Promise<void> {
  const path = '/v1/conversations';
  const { id } = (await app.post(path, { items, metadata: { a: 'b' } })).json;
  await app.post(`${path}/${id}`, { metadata: { c: 'd' } });
  await app.call({ path: `${path}/${id}` });
  const added = (await app.post(`${path}/${id}/items`, { items: [{ role: 'user', content: 'hi' }] })).json;
  const answer = (await app.post(RESPONSES, { model: ID, input: 'hi', conversation: id })).json;
  await app.stream(RESPONSES, { model: ID, input: 'call', tools: [FUNCTION], conversation: { id } });
  await app.call({ path: `${path}/${id}/items?limit=100` });
  await app.call({ path: `${path}/${id}/items/${answer.output[0].id}` });
  await app.call({ method: 'DELETE', path: `${path}/${id}/items/${added.data[0].id}` });
  await app.call({ path: `${path}/${id}/items/none` });
  await app.call({ method: 'DELETE', path: `${path}/${id}` });
}

/** Every kind of item that a conversation may hold, and what can be done with what is stored. */
async function sayStored(app: ScriptedApp): Promise<void> {
  const compaction = (await app.post(`${RESPONSES}/compact`, { model: ID, input: 'a long story' })).json.output[0];
  const input = [
    { role: 'user', content: 'hi' },
    { role: 'developer', content: [{ type: 'input_text', text: 'be kind' }] },
    { type: 'message', role: 'assistant', content: [{ type: 'output_text', text: 'a', annotations: [] }] },
    { type: 'message', role: 'assistant', content: [{ type: 'refusal', refusal: 'no' }] },
    {
      type: 'reasoning',
      summary: [{ type: 'summary_text', text: 's' }],
      content: [{ type: 'reasoning_text', text: 'r' }],
    },
    { type: 'function_call', call_id: 'call_1', name: 'weather', arguments: '{}' },
    { type: 'function_call_output', call_id: 'call_1', output: 'sunny' },
    { type: 'function_call_output', call_id: 'call_1', output: [{ type: 'input_text', text: 'sunny' }] },
    { type: 'mcp_list_tools', id: 'mcpl_1', server_label: 'calc', tools: [{ name: 'add', input_schema: {} }] },
    {
      ...{ type: 'mcp_call', id: 'mcp_1', server_label: 'calc', name: 'add', arguments: '{}' },
      ...{ output: '3', error: null, approval_request_id: null },
    },
    compaction,
  ];
  const { id } = (await app.post(RESPONSES, { model: ID, input })).json;
  for (const query of ['', '?order=asc&limit=3', '?limit=0'])
    await app.call({ path: `${RESPONSES}/${id}/input_items${query}` });
  await sayConversations(app, input.slice(0, -1));
  await app.post(`${RESPONSES}/input_tokens`, { model: ID, input: 'how long is this' });
  await app.post(`${RESPONSES}/compact`, { model: ID, input, previous_response_id: id });
  await app.call({ path: `${RESPONSES}/${id}` });
  await app.call({ path: `${RESPONSES}/resp_none` });
  await app.call({ method: 'DELETE', path: `${RESPONSES}/${id}` });

  const background = (await app.post(RESPONSES, { model: ID, input: 'hi', background: true })).json;
  await app.call({ path: `${RESPONSES}/${background.id}?stream=true` });
  await app.call({ path: `${RESPONSES}/${background.id}?stream=true&starting_after=2` });
  const waiting = (await app.post(RESPONSES, { model: ID, input: 'wait', background: true })).json;
  const replay = app.call({ path: `${RESPONSES}/${waiting.id}?stream=true` });
  await app.registry.until(() => app.registry.first.running > 0);
  await app.call({ path: `${RESPONSES}/${waiting.id}` });
  await app.call({ method: 'POST', path: `${RESPONSES}/${waiting.id}/cancel` });
  await replay;
}

async function sayOverSocket(app: ScriptedApp): Promise<void> {
  const socket = new WebSocket(`${app.url.replace('http', 'ws')}${RESPONSES}`);
  await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject));
  for (const input of ['hi', 'cut', 7]) {
    const end = new Promise<void>((resolve) => {
      socket.on('message', (data: Buffer) => {
        if (/^\{"type":"(response\.(completed|incomplete|failed)|error)"/.test(data.toString('utf8'))) resolve();
      });
    });
    socket.send(JSON.stringify({ type: 'response.create', model: ID, input }));
    await end;
    socket.removeAllListeners('message');
  }
  socket.terminate();
}

async function sayTheRest(app: ScriptedApp): Promise<void> {
  const accept = { accept: 'application/json' };
  for (const path of [
    '/',
    '/health',
    '/v1/models',
    `/v1/models/${ID}`,
    '/v1/models/none',
    '/openapi.json',
    '/metrics',
  ]) {
    await app.call({ path, headers: accept });
  }
  await app.stream('/load_model', { model: ID });
  await app.post('/reset', {});
  await app.call({ path: '/v1/files' });
}

function isOf(said: Said, { method, path }: { readonly method: string; readonly path: string }): boolean {
  const template = path.replace('*id', '{model}').replace(/:(\w+)/g, '{$1}');
  return said.method === method && templateFor([template], said.path) !== undefined;
}

/** What is at a path of the form `choices[].message.reasoning`, wherever the path leads. */
function valuesAt(value: any, path: string): unknown[] {
  return path.split('.').reduce<any[]>(
    (values, step) =>
      values.flatMap((one) => {
        const inner = one?.[step.replace('[]', '')];
        if (inner === undefined || inner === null) return [];
        return step.endsWith('[]') ? (inner as unknown[]) : [inner];
      }),
    [value],
  );
}

describe('published schemas', function () {
  this.timeout(60_000);
  let said: readonly Said[] = [];

  before(async () => {
    const pool = new McpPool();
    const servers = new Map([calc(), GONE].map((server) => [server.label, server]));
    const app = await ScriptedApp.start([MODEL, SPEECH], { mcp: { pool, servers } });
    try {
      await sayChat(app);
      await sayTranscripts(app);
      await sayResponses(app);
      await sayStored(app);
      await sayOverSocket(app);
      await sayTheRest(app);
    } finally {
      // Closing it judges what it said.
      await app[Symbol.asyncDispose]();
      await pool.close();
    }
    ({ said } = app.watch);
  });

  it('are held against each kind of event that there is', () => {
    const types = said.flatMap(({ as, value }) => (as === 'body' ? [] : [(value as { type?: string }).type]));
    expect([...new Set(types)].filter((type) => type !== undefined && type !== 'error')).to.have.members([
      ...RESPONSE_EVENT_TYPES,
      ...TRANSCRIPT_EVENT_TYPES,
    ]);
    expect(types).to.include('error');
  });

  it('are held against each status and each kind of item', () => {
    const bodies = said.filter(({ path }) => path.startsWith(RESPONSES)).map(({ value }) => value as any);
    const responses = bodies.map((body) => body.response ?? body).filter((body) => body.object === 'response');
    expect(new Set(responses.map(({ status }) => status).filter((status) => status !== undefined))).to.deep.equal(
      new Set(['in_progress', 'completed', 'incomplete', 'failed', 'queued', 'cancelled']),
    );
    const items = responses.flatMap(({ output }) => output ?? []).map(({ type }: any) => type);
    expect(new Set(items)).to.deep.equal(
      new Set(['reasoning', 'message', 'function_call', 'mcp_list_tools', 'mcp_call', 'mcp_approval_request']),
    );
    const listed = bodies.filter((body) => body.object === 'list').flatMap(({ data }) => data);
    expect(new Set(listed.map(({ type }) => type))).to.deep.equal(
      new Set([
        ...['message', 'function_call', 'function_call_output', 'reasoning', 'mcp_list_tools', 'mcp_call'],
        ...['mcp_approval_response', 'compaction'],
      ]),
    );
  });

  it('are held against each route, whole and streamed', () => {
    const silent = ROUTES.flatMap((route) => {
      const own = said.filter((one) => isOf(one, route) && (one.status < 400 || one.as !== 'body'));
      const kinds = [
        ...(route.answer?.text === true ? [] : ['body']),
        ...(route.answer?.event === undefined ? [] : ['event']),
      ];
      const missing = kinds.filter((kind) => !own.some(({ as }) => as === kind));
      return missing.map((kind) => `${kind} of ${route.method} ${route.path}`);
    });
    // It streams, always.
    expect(silent).to.deep.equal(['body of POST /load_model']);
  });

  it('know each extra of ours, and each is sent', () => {
    for (const { of, at } of ANSWER_EXTRAS) {
      const own = said.flatMap(({ value }) => {
        const body = value as any;
        return [body, ...(body.data ?? []), body.response].filter((one) => one?.object === of || one?.type === of);
      });
      expect(
        own.flatMap((value) => valuesAt(value, at)),
        `${of}.${at}`,
      ).not.to.deep.equal([]);
    }
  });

  /** Patches without which everything that was said fits as well. */
  function unneeded(
    file: string,
    openness: Openness,
    patches: readonly Patch[],
    also: readonly Patch[] = [],
  ): string[] {
    const spec = readSpec(file);
    return patches.flatMap((patch, index) => {
      const schema = new PublishedSchema(spec, openness, [...also, ...patches.filter((_, other) => other !== index)]);
      const isNeeded = said.some((one) => problemOf(one, { [file]: schema }) !== undefined);
      return isNeeded ? [] : [patch.at];
    });
  }

  it('need each patch of OpenAI’s, and each extra', () => {
    const extras = extraPatches(readSpec('openai.json'));
    expect(unneeded('openai.json', 'closed', [...extras, ...OPENAI_PATCHES])).to.deep.equal([]);
  });

  it('need each patch of Open Responses’', () => {
    expect(unneeded('open-responses.json', 'open', OPEN_RESPONSES_PATCHES)).to.deep.equal([]);
  });

  it('would not let anything pass', () => {
    const events = said.filter(({ as, value }) => as === 'event' && (value as any).type !== undefined);
    const perType = RESPONSE_EVENT_TYPES.map((type) => events.find(({ value }) => (value as any).type === type)!);
    const bodies = ['chat.completion', 'chat.completion.chunk', 'text_completion', 'response'].map((kind) =>
      said.find(({ value }) => (value as any).object === kind)!,
    );
    const broken: readonly ((value: any) => object)[] = [
      (value) => ({ ...value, surprise: 1 }),
      (value) => {
        const kept = Object.entries(value).filter(([key]) => key !== 'sequence_number' && key !== 'object');
        return Object.fromEntries(kept);
      },
      (value) => (value.type === undefined ? { ...value, object: 'thing' } : { ...value, type: 'response.thing' }),
    ];
    for (const one of [...perType, ...bodies]) {
      for (const [index, change] of broken.entries()) {
        const value = change(one.value);
        expect(problemOf({ ...one, value }), `${index}: ${JSON.stringify(value).slice(0, 200)}`).to.be.a('string');
      }
    }
    const deep = structuredClone(perType.find(({ value }) => (value as any).type === 'response.completed')!);
    (deep.value as any).response.output.at(-1).content[0].logprobs = [{ token: 1 }];
    expect(problemOf(deep)).to.be.a('string');
    expect(problemOf({ ...deep, path: '/v1/somewhere' })).to.include('nobody says');
  });
});
