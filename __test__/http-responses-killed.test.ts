/** `kill -9`, as clients see it: what they were told is there when the server comes back. */

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { createParser } from 'eventsource-parser';
import { expect } from 'chai';

import { McpPool } from '../ts/mcp/client-pool.js';
import type { ResponseEvent } from '../ts/protocol/response-events.js';
import { openSqliteStore } from '../ts/responses/sqlite-store.js';
import { echo, MODEL } from './helpers/killed-server.js';
import { checkLegal, checkSchema } from './helpers/response-events.js';
import { dataOf, parseEvents, ScriptedApp } from './helpers/scripted-app.js';
import { calculator, mcpTool } from './helpers/scripted-mcp.js';

const ID = MODEL.id;

/** A server in a process of its own. */
class KilledServer {
  private constructor(
    private readonly child: ChildProcess,
    private readonly lines: Interface,
    readonly url: string,
  ) {}

  static async start(file: string): Promise<KilledServer> {
    const script = fileURLToPath(new URL('./helpers/killed-server.ts', import.meta.url));
    const child = spawn(process.execPath, ['--import=tsx', script, file], { stdio: ['ignore', 'pipe', 'inherit'] });
    const lines = createInterface({ input: child.stdout });
    const port = await nextLine(lines);
    return new KilledServer(child, lines, `http://127.0.0.1:${port}`);
  }

  said(): Promise<string> {
    return nextLine(this.lines);
  }

  async kill(): Promise<void> {
    const gone = new Promise((resolve) => this.child.once('close', resolve));
    this.child.kill('SIGKILL');
    await gone;
    expect(this.child.signalCode).to.equal('SIGKILL');
  }

  async post(route: string, body: object): Promise<any> {
    return (await this.send(route, body)).json();
  }

  send(route: string, body: object): Promise<Response> {
    return fetch(this.url + route, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
  }
}

function nextLine(lines: Interface): Promise<string> {
  return new Promise((resolve) => lines.once('line', resolve));
}

/** What a client was told. */
interface Acknowledged {
  readonly kind: 'whole' | 'streamed' | 'queued' | 'item' | 'conversation';
  readonly id: string;
  readonly text: string;
}

const KINDS = ['whole', 'streamed', 'queued', 'item', 'conversation'] as const;

/** Asks until the server is gone. @param acknowledge told of what a whole answer or an event said, when it is here */
async function ask(server: KilledServer, name: string, acknowledge: (one: Acknowledged) => void): Promise<void> {
  const talk: string = (await server.post('/v1/conversations', {})).id;
  for (let at = 0; ; at++) {
    const kind = KINDS[at % KINDS.length]!;
    const text = `${name}-${at}`;
    const request = { model: ID, input: text };
    if (kind === 'item') {
      await server.post(`/v1/conversations/${talk}/items`, { items: [{ role: 'user', content: text }] });
      acknowledge({ kind, id: talk, text });
    } else if (kind === 'conversation') {
      await server.post('/v1/responses', { ...request, conversation: talk, store: false });
      acknowledge({ kind, id: talk, text: echo(text) });
    } else if (kind === 'streamed') {
      const answer = await server.send('/v1/responses', { ...request, stream: true });
      const parser = createParser({
        onEvent: ({ event, data }) => {
          if (event !== 'response.completed') return;
          acknowledge({ kind, id: (JSON.parse(data) as { response: { id: string } }).response.id, text: echo(text) });
        },
      });
      const decoder = new TextDecoder();
      for await (const bytes of answer.body!) parser.feed(decoder.decode(bytes as Uint8Array, { stream: true }));
    } else {
      const { id } = await server.post('/v1/responses', { ...request, background: kind === 'queued' });
      acknowledge({ kind, id, text: echo(text) });
    }
  }
}

describe('a server that is killed', function () {
  this.timeout(120_000);
  let folder: string;
  let file: string;
  beforeEach(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'tsserve-killed-'));
    file = path.join(folder, 'responses.db');
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  it('has everything that clients were told of, whatever it was doing', async () => {
    const all: Acknowledged[] = [];
    for (const [round, enough] of [60, 121].entries()) {
      const server = await KilledServer.start(file);
      let count = 0;
      let reached: () => void = () => undefined;
      const busy = new Promise<void>((resolve) => (reached = resolve));
      const clients = Array.from({ length: 6 }, (_, at) =>
        ask(server, `r${round}c${at}`, (one) => {
          all.push(one);
          if (++count === enough) reached();
        }).catch(() => undefined),
      );
      await busy;
      await server.kill();
      await Promise.all(clients);
    }
    for (const kind of KINDS) expect(all.filter((one) => one.kind === kind).length, kind).to.be.greaterThan(15);

    const responses = openSqliteStore(file);
    await using app = await ScriptedApp.start([MODEL], { responses });
    const lost: Acknowledged[] = [];
    const talks = new Map<string, string>();
    for (const one of all) {
      if (one.kind === 'item' || one.kind === 'conversation') {
        if (!talks.has(one.id)) {
          const held = responses.of(undefined).conversations.items(one.id);
          talks.set(one.id, JSON.stringify(held));
        }
        if (!talks.get(one.id)!.includes(`"${one.text}"`)) lost.push(one);
        continue;
      }
      const { status, json } = await app.call({ path: `/v1/responses/${one.id}` });
      const isWhole = json.status === 'completed' && json.output[0].content[0].text === one.text;
      // Of one in the background its client knows only that it was there.
      const isInterrupted = one.kind === 'queued' && json.status === 'failed' && json.error.code === 'server_error';
      if (status !== 200 || !(isWhole || isInterrupted)) lost.push(one);
    }
    expect(lost).to.deep.equal([]);
    responses.close();
  });

  it('has failed what ran in the background, and runs no approved call again', async () => {
    const server = await KilledServer.start(file);
    const running = await server.post('/v1/responses', { model: ID, input: 'wait', background: true });
    const events = await fetch(`${server.url}/v1/responses/${running.id}?stream=true`);
    let seen = '';
    const decoder = new TextDecoder();
    const reader = events.body!.getReader();
    while (!seen.includes('half ')) seen += decoder.decode((await reader.read()).value, { stream: true });
    const tools = [mcpTool('calc', { require_approval: 'always' })];
    const asked = await server.post('/v1/responses', { model: ID, input: '1+2?', tools });
    const answer = {
      model: ID,
      tools,
      previous_response_id: asked.id,
      input: [{ type: 'mcp_approval_response', approval_request_id: asked.output[1].id, approve: true }],
    };
    const called = server.said();
    const cut = server.send('/v1/responses', answer).catch(() => 'cut');
    expect(await called).to.equal('called');
    await server.kill();
    await reader.read().catch(() => undefined);
    expect(await cut).to.equal('cut');

    const responses = openSqliteStore(file);
    const added: unknown[] = [];
    const pool = new McpPool();
    await using app = await ScriptedApp.start([MODEL], {
      responses,
      mcp: { pool, servers: new Map([['calc', calculator(added)]]) },
    });
    const { text } = await app.call({ path: `/v1/responses/${running.id}?stream=true` });
    const replayed = dataOf(parseEvents([Buffer.from(text)]));
    expect(replayed.pop()).to.equal('[DONE]');
    checkSchema(replayed as ResponseEvent[]);
    const failed = checkLegal(replayed as ResponseEvent[]);
    expect([failed.status, failed.error]).to.deep.equal([
      'failed',
      { code: 'server_error', message: 'the server stopped while the response was running' },
    ]);
    expect(failed.output[0]).to.deep.include({ type: 'message', status: 'incomplete' });
    expect((await app.call({ path: `/v1/responses/${running.id}` })).json).to.deep.equal(failed);
    const again = await app.post('/v1/responses', answer);
    expect([again.status, again.json.error.code]).to.deep.equal([400, 'approval_already_answered']);
    expect(added).to.deep.equal([]);
    await pool.close();
    responses.close();
  });
});
