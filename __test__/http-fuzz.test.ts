import { once } from 'node:events';

import { expect } from 'chai';
import { WebSocket, type RawData } from 'ws';

import { createRegistry } from '../ts/app/registry.js';
import { createLocalModel } from '../ts/chat/local-model.js';
import type { ModelRegistry } from '../ts/app/types.js';
import { createApp } from '../ts/http/app.js';
import { ROUTES } from '../ts/http/routes/index.js';
import { closeServer, createHttpServer, listen } from '../ts/http/server.js';
import { CHAT_COMPLETION_FIELDS } from '../ts/protocol/chat-completions.js';
import { COMPLETION_FIELDS } from '../ts/protocol/completions.js';
import {
  CONVERSATION_FIELDS,
  CONVERSATION_ITEMS_FIELDS,
  CONVERSATION_UPDATE_FIELDS,
} from '../ts/protocol/conversations.js';
import { RESPONSE_FIELDS } from '../ts/protocol/responses.js';
import { Random } from './helpers/random.js';
import { watchServer } from './helpers/schemas/watch.js';
import { content, delta, finished, started } from './helpers/scripted-events.js';
import { ScriptedApp } from './helpers/scripted-app.js';
import { say, ScriptedEngine } from './helpers/scripted-engine.js';

const STRINGS = [
  '',
  'x',
  'user',
  'assistant',
  'tool',
  'text',
  'image_url',
  'function',
  'auto',
  'none',
  '__proto__',
  'constructor',
  '\u0000',
  '\ud800',
  '🦀',
  '{{ 1/0 }}',
  'org/one',
  'x'.repeat(3000),
];
const NUMBERS = [0, -0, 1, -1, 2, 0.5, 1e308, -1e308, 5e-324, 2 ** 31, 2 ** 53, 2 ** 63, -(2 ** 63), 1e21];
const KEYS = [
  'role',
  'content',
  'type',
  'text',
  'image_url',
  'url',
  'name',
  'function',
  'parameters',
  'arguments',
  'id',
  'tool_calls',
  'tool_call_id',
  'include_usage',
  '__proto__',
  'toString',
  '',
];

function value(random: Random, depth: number): unknown {
  const kind = random.below(depth > 0 ? 8 : 5);
  switch (kind) {
    case 0:
      return random.pick(STRINGS);
    case 1:
      return random.pick(NUMBERS);
    case 2:
      return random.next() < 0.5;
    case 3:
      return null;
    case 4:
      return random.below(1000);
    case 5:
    case 6:
      return Array.from({ length: random.below(6) }, () => value(random, depth - 1));
    default:
      return Object.fromEntries(
        Array.from({ length: random.below(6) }, () => [random.pick(KEYS), value(random, depth - 1)]),
      );
  }
}

/** A good request, most often with some of its fields replaced, and some that nobody knows. */
function request(random: Random, good: object, names: readonly string[]): unknown {
  const body: Record<string, unknown> = { ...good };
  for (let changes = random.below(5); changes > 0; changes--) {
    const name = random.next() < 0.9 ? random.pick(names) : random.pick(STRINGS);
    Object.defineProperty(body, name, {
      value: value(random, 4),
      enumerable: true,
      configurable: true,
      writable: true,
    });
  }
  return random.next() < 0.03 ? value(random, 3) : body;
}

/** Cuts, doubles or changes a byte. */
function damaged(random: Random, text: string): Buffer {
  const bytes = Buffer.from(text);
  const at = random.below(bytes.length);
  switch (random.below(3)) {
    case 0:
      return bytes.subarray(0, at);
    case 1:
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(random.below(at + 1))]);
    default:
      bytes[at] = random.below(256);
      return bytes;
  }
}

const HELLO = { type: 'message', role: 'user', content: 'hi' };

const ENDPOINTS = [
  {
    path: '/v1/chat/completions',
    good: { model: 'org/one', messages: [{ role: 'user', content: 'hi' }] },
    names: Object.keys(CHAT_COMPLETION_FIELDS),
  },
  { path: '/v1/completions', good: { model: 'org/one', prompt: 'hi' }, names: Object.keys(COMPLETION_FIELDS) },
  { path: '/v1/responses', good: { model: 'org/one', input: 'hi' }, names: Object.keys(RESPONSE_FIELDS) },
  { path: '/v1/responses/input_tokens', good: { model: 'org/one', input: 'hi' }, names: Object.keys(RESPONSE_FIELDS) },
  {
    path: '/v1/responses/compact',
    good: { model: 'org/one', input: [{ role: 'user', content: 'hi' }] },
    names: Object.keys(RESPONSE_FIELDS),
  },
  { path: '/v1/conversations', good: { items: [HELLO], metadata: {} }, names: Object.keys(CONVERSATION_FIELDS) },
  { path: '/v1/conversations/:id', good: { metadata: {} }, names: Object.keys(CONVERSATION_UPDATE_FIELDS) },
  { path: '/v1/conversations/:id/items', good: { items: [HELLO] }, names: Object.keys(CONVERSATION_ITEMS_FIELDS) },
  { path: '/load_model', good: { model: 'org/one' }, names: ['model'] },
];

/** Taken as they come, whatever is sent along. */
const WITHOUT_BODY = ['/reset', '/v1/responses/:id/cancel'];

describe('random request bodies', () => {
  it('are tried on every route that takes one', () => {
    // Forms have a test of their own.
    const posts = ROUTES.filter(({ method, body }) => method === 'POST' && body?.form !== true).map(({ path }) => path);
    expect([...ENDPOINTS.map(({ path }) => path), ...WITHOUT_BODY]).to.have.members(posts);
  });

  for (const { path, good, names } of ENDPOINTS) {
    for (const strict of [false, true]) {
      it(`never are a 5xx: ${path}${strict ? ', strict' : ''}`, async () => {
        await using app = await ScriptedApp.start(
          [
            {
              id: 'org/one',
              chat: () => [started, content('a'), finished()],
              generate: () => [started, delta('a'), finished()],
            },
          ],
          { strict },
        );
        const { json: conversation } = await app.post('/v1/conversations', {});
        const statuses = new Map<number, number>();
        for (let seed = 1; seed <= 600; seed++) {
          const random = new Random(seed);
          const text = JSON.stringify(request(random, good, names));
          const body = random.next() < 0.15 ? damaged(random, text) : text;
          const answer = await app.call({
            method: 'POST',
            path: path.replace(':id', conversation.id),
            headers: { 'content-type': 'application/json' },
            body,
          });
          const shown = `seed ${seed}: ${Buffer.from(body).toString().slice(0, 500)} → ${answer.text.slice(0, 500)}`;
          expect(answer.status, shown).to.be.lessThan(500);
          if (answer.status >= 400) {
            expect(answer.json.error.message, shown).to.be.a('string').and.not.equal('');
            expect(answer.json.error.message.length, shown).to.be.lessThan(1000);
          }
          statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1);
        }
        expect(app.log.filter((line) => line.startsWith('error'))).to.deep.equal([]);
        // Responses in the background outlive their requests.
        await app.registry.until(() => app.registry.first.held === 0);
        // Both ways are taken, or the bodies are not random enough to say anything.
        expect(statuses.get(200), String([...statuses])).to.be.greaterThan(10);
        expect(statuses.get(400), String([...statuses])).to.be.greaterThan(50);
      }).timeout(60_000);
    }
  }
});

describe('random frames', () => {
  it('never are a 5xx, nor the end of the connection', async () => {
    await using app = await ScriptedApp.start([{ id: 'org/one', chat: () => [started, content('a'), finished()] }]);
    const socket = new WebSocket(`${app.url.replace('http', 'ws')}/v1/responses`);
    await once(socket, 'open');
    const ends = new Map<string, number>();
    const good = { type: 'response.create', model: 'org/one', input: 'hi' };
    for (let seed = 1; seed <= 600; seed++) {
      const random = new Random(seed);
      const text = JSON.stringify(request(random, good, ['type', ...Object.keys(RESPONSE_FIELDS)]));
      const frame = random.next() < 0.15 ? damaged(random, text) : text;
      const shown = `seed ${seed}: ${Buffer.from(frame).toString().slice(0, 500)}`;
      const last = new Promise<any>((resolve, reject) => {
        const onMessage = (data: RawData): void => {
          const event = JSON.parse((data as Buffer).toString());
          if (!/^(error|response\.(completed|incomplete|failed))$/.test(event.type)) return;
          socket.off('message', onMessage);
          resolve(event);
        };
        socket.on('message', onMessage);
        socket.once('close', () => reject(new Error(`closed: ${shown}`)));
      });
      // A text frame that is no UTF-8 ends the connection by the protocol's own rule.
      socket.send(String(frame), { binary: random.next() < 0.05 });
      const event = await last;
      socket.removeAllListeners('close');
      if (event.type === 'error') {
        expect(event.status, shown).to.be.within(400, 499);
        expect(event.error.message, shown).to.be.a('string').and.not.equal('');
      }
      ends.set(event.type, (ends.get(event.type) ?? 0) + 1);
    }
    socket.terminate();
    expect(app.log.filter((line) => line.startsWith('error'))).to.deep.equal([]);
    await app.registry.until(() => app.registry.first.held === 0);
    expect(ends.get('error'), String([...ends])).to.be.greaterThan(50);
    expect(ends.get('response.completed'), String([...ends])).to.be.greaterThan(10);
  }).timeout(60_000);
});

describe('many clients that come and go', () => {
  const CLIENTS = 500;
  let engine: ScriptedEngine;
  let registry: ModelRegistry;

  /** What is open in this process besides timers, by kind. */
  const handles = (): number => process.getActiveResourcesInfo().filter((kind) => /TCP|Pipe/.test(kind)).length;

  /** Waits for something that needs turns of the event loop to come true, and fails after many. */
  async function eventually(what: string, holds: () => boolean): Promise<void> {
    for (let turn = 0; turn < 20_000; turn++) {
      if (holds()) return;
      await new Promise((resolve) => setImmediate(resolve));
    }
    throw new Error(`never: ${what}`);
  }

  it('leave nothing behind', async () => {
    engine = new ScriptedEngine({
      script: (request) => say('one two three four five six seven eight '.repeat(4), { request }),
      credit: 8,
    });
    registry = createRegistry({ engine, createLocalModel, defaults: {}, maxLoadedModels: 3 });
    const server = createHttpServer(createApp({ registry }));
    const watch = watchServer(server);
    const before = handles();
    const { port } = await listen(server, { host: '127.0.0.1', port: 0 });
    const random = new Random(7);
    const ends = { whole: 0, aborted: 0, refused: 0 };

    const client = async (): Promise<void> => {
      const abort = new AbortController();
      const chat = random.next() < 0.6;
      const stream = random.next() < 0.7;
      const model = random.pick(['org/a', 'org/b', 'org/c']);
      const turns = random.next() < 0.5 ? random.below(60) : undefined;
      const body = {
        model,
        stream,
        ...(chat ? { messages: [{ role: 'user', content: 'hi' }] } : { prompt: ['x', 'y', 'z'] }),
        max_tokens: 32,
      };
      const leave = async (): Promise<void> => {
        for (let turn = 0; turn < turns!; turn++) await new Promise((resolve) => setImmediate(resolve));
        abort.abort();
      };
      if (turns !== undefined) void leave();
      try {
        const answer = await fetch(`http://127.0.0.1:${port}/v1/${chat ? 'chat/completions' : 'completions'}`, {
          method: 'POST',
          headers: { 'content-type': 'application/json', connection: 'close' },
          body: random.next() < 0.05 ? '{"broken' : JSON.stringify(body),
          signal: abort.signal,
        });
        await answer.text();
        expect(answer.status).to.be.oneOf([200, 400]);
        ends[answer.status === 200 ? 'whole' : 'refused'] += 1;
      } catch (error) {
        if (!abort.signal.aborted) throw error;
        ends.aborted += 1;
      }
    };

    const running = new Set<Promise<void>>();
    for (let i = 0; i < CLIENTS; i++) {
      const one = client().finally(() => running.delete(one));
      running.add(one);
      if (running.size >= 50) await Promise.race(running);
    }
    await Promise.all(running);

    expect(ends.whole + ends.aborted + ends.refused).to.equal(CLIENTS);
    expect(Math.min(ends.whole, ends.aborted, ends.refused), JSON.stringify(ends)).to.be.greaterThan(5);
    await eventually('all generations end', () => engine.running === 0);
    await eventually('all leases are back', () => registry.loaded().every(({ leases }) => leases === 0));
    expect(registry.loaded()).to.have.length(3);
    await closeServer(server);
    watch.verify();
    await eventually('all sockets close', () => handles() <= before);
    await registry.close();
    expect(engine.unloaded).to.have.members([1, 2, 3]);
  }).timeout(60_000);
});
