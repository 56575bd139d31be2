/** The two stores are one interface; the file outlives the process that writes it. */

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { expect } from 'chai';

import type { ResponseEvent } from '../ts/protocol/response-events.js';
import { parseCreateResponse } from '../ts/protocol/responses.js';
import { failInterrupted } from '../ts/responses/interrupted.js';
import { toEcho } from '../ts/responses/echo.js';
import { ResponseMachine } from '../ts/responses/event-machine.js';
import { createMemoryStore } from '../ts/responses/memory-store.js';
import { openSqliteStore } from '../ts/responses/sqlite-store.js';
import type { ResponseStore, StoredResponse, StoreOptions } from '../ts/responses/store.js';
import { content, finished } from './helpers/scripted-events.js';

const REQUEST = parseCreateResponse({ input: 'hi' }, { strict: true, warn: () => undefined });

function machineOf(id: string): ResponseMachine {
  return new ResponseMachine({ id, createdAt: 1, echo: toEcho(REQUEST, 'm', undefined) });
}

/** A finished response and its events. */
function ended(id: string, text = 'hello'): StoredResponse & { readonly events: ResponseEvent[] } {
  const machine = machineOf(id);
  const events = [...machine.start(), ...machine.push(content(text)), ...machine.push(finished()), ...machine.finish()];
  const message = {
    type: 'message',
    role: 'user',
    status: 'completed',
    content: [{ type: 'input_text', text: 'é👋' }],
  } as const;
  return { response: machine.snapshot, input: [{ ...message, id: `msg_in_${id}` }], events };
}

function plain({ response, input }: StoredResponse): StoredResponse {
  return JSON.parse(JSON.stringify({ response, input })) as StoredResponse;
}

describe('response stores', () => {
  let folder: string;
  before(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'tsserve-store-'));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  let files = 0;
  const kinds: readonly [string, (options?: StoreOptions) => ResponseStore][] = [
    ['in memory', (options) => createMemoryStore(options)],
    ['in a file', (options) => openSqliteStore(path.join(folder, `${files++}.db`), options)],
  ];
  for (const [kind, open] of kinds) {
    describe(kind, () => {
      it('keeps, replaces, finds items, deletes', () => {
        const store = open();
        const one = ended('resp_1');
        store.put(one);
        expect(store.get('resp_1')).to.deep.equal(plain(one));
        expect(store.findItem('msg_in_resp_1')).to.deep.equal(plain(one).input[0]);
        expect(store.findItem(one.response.output[0]!.id)).to.deep.equal(plain(one).response.output[0]);
        const two = ended('resp_1', 'other');
        store.put(two);
        expect(store.get('resp_1')).to.deep.equal(plain(two));
        expect(store.get('resp_2')).to.be.undefined;
        expect([store.delete('resp_1'), store.delete('resp_1')]).to.deep.equal([true, false]);
        expect(store.get('resp_1')).to.be.undefined;
        expect(store.findItem('msg_in_resp_1')).to.be.undefined;
        store.close();
      });

      it('keeps events in order, gives them in parts, and forgets them with their response', () => {
        const store = open();
        const { events, ...one } = ended('resp_1');
        store.put(one);
        for (const event of events) store.appendEvents('resp_1', [event]);
        expect(store.events('resp_1', -1, 100)).to.deep.equal(JSON.parse(JSON.stringify(events)));
        expect(store.events('resp_1', 2, 2).map((event) => event.sequence_number)).to.deep.equal([3, 4]);
        expect(store.events('resp_1', 1000, 2)).to.deep.equal([]);
        store.delete('resp_1');
        store.appendEvents('resp_1', events);
        store.put(one);
        expect(store.events('resp_1', -1, 100)).to.deep.equal([]);
        store.close();
      });

      it('is bounded in number: the least recently used goes', () => {
        let time = 0;
        const store = open({ limits: { maxResponses: 3 }, now: () => ++time });
        for (const id of ['a', 'b', 'c']) store.put(ended(id));
        store.get('a');
        store.put(ended('d'));
        expect(['a', 'b', 'c', 'd'].map((id) => store.get(id) !== undefined)).to.deep.equal([true, false, true, true]);
        store.close();
      });

      it('is bounded in bytes, events included', () => {
        let time = 0;
        const store = open({ limits: { maxBytes: 30_000 }, now: () => ++time });
        for (const id of ['a', 'b']) {
          const { events, ...one } = ended(id, 'x'.repeat(5_000));
          store.put(one);
          store.appendEvents(id, events.slice(4, 5));
          store.put(one);
        }
        store.put(ended('c', 'x'.repeat(12_000)));
        expect(['a', 'b', 'c'].map((id) => store.get(id) !== undefined)).to.deep.equal([false, true, true]);
        store.put(ended('d', 'x'.repeat(40_000)));
        expect(['b', 'c', 'd'].map((id) => store.get(id) !== undefined)).to.deep.equal([false, false, true]);
        store.close();
      });

      it('is bounded in age, and never drops what still runs', () => {
        let time = 0;
        const store = open({ limits: { maxAgeSeconds: 10, maxResponses: 2 }, now: () => time });
        const running = machineOf('run');
        running.start();
        store.put({ response: running.snapshot, input: [] });
        store.put(ended('a'));
        time = 11;
        store.put(ended('b'));
        store.put(ended('c'));
        expect(['run', 'a', 'b', 'c'].map((id) => store.get(id) !== undefined)).to.deep.equal([
          true,
          false,
          false,
          true,
        ]);
        expect(store.unfinished()).to.deep.equal(['run']);
        store.close();
      });

      it('fails what a stop interrupted, and completes what was only half written', () => {
        const store = open();
        const cut = machineOf('cut');
        store.put({ response: cut.snapshot, input: [] });
        store.appendEvents('cut', [...cut.queue(), ...cut.start(), ...cut.push(content('a'))]);
        const { events, ...whole } = ended('whole');
        store.put({ ...whole, response: machineOf('whole').snapshot });
        store.appendEvents('whole', events);
        failInterrupted(store);
        expect(store.unfinished()).to.deep.equal([]);
        expect(store.get('cut')!.response).to.include({ status: 'failed' });
        expect(store.get('cut')!.response.error!.code).to.equal('server_error');
        expect(
          store
            .events('cut', -1, 100)
            .map(({ type }) => type)
            .at(-1),
        ).to.equal('response.failed');
        expect(store.get('whole')).to.deep.equal(plain(whole));
        store.close();
      });
    });
  }

  it('survives closing and opening', () => {
    const file = path.join(folder, 'again.db');
    const first = openSqliteStore(file);
    const { events, ...one } = ended('resp_1');
    first.put(one);
    first.appendEvents('resp_1', events);
    first.close();
    const second = openSqliteStore(file);
    expect(second.get('resp_1')).to.deep.equal(plain(one));
    expect(second.events('resp_1', -1, 100)).to.have.length(events.length);
    second.close();
  });

  it('makes files that only their owner reads', function () {
    if (process.platform === 'win32') this.skip();
    const file = path.join(folder, 'private.db');
    const store = openSqliteStore(file);
    store.put(ended('resp_1'));
    for (const suffix of ['', '-wal', '-shm']) expect(statSync(file + suffix).mode & 0o777).to.equal(0o600);
    store.close();
  });

  it('refuses a file that is no database', () => {
    const file = path.join(folder, 'no.db');
    writeFileSync(file, 'this is not a database, however long it goes on and on and on'.repeat(50));
    expect(() => openSqliteStore(file)).to.throw(/cannot use .*no\.db for responses/);
    expect(readFileSync(file, 'utf8')).to.include('this is not a database');
  });

  it('has every acknowledged response after kill -9 in the middle of writes', async function () {
    this.timeout(60_000);
    const file = path.join(folder, 'killed.db');
    const acknowledged: string[] = [];
    for (let round = 0; round < 3; round++) {
      const writer = spawn(process.execPath, ['--import=tsx', helper('store-writer.ts'), file, `r${round}`], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      acknowledged.push(...(await linesUntilKilled(writer, 40 + 60 * round)));
    }
    expect(acknowledged.length).to.be.greaterThan(200);
    const store = openSqliteStore(file);
    const lost = acknowledged.filter((id) => store.get(id)?.response.status !== 'completed');
    expect(lost).to.deep.equal([]);
    store.close();
  });
});

function helper(name: string): string {
  return fileURLToPath(new URL(`./helpers/${name}`, import.meta.url));
}

/** Kills it when so many lines have come; whole lines that came are all it said. */
async function linesUntilKilled(child: ChildProcess, count: number): Promise<string[]> {
  let text = '';
  child.stdout!.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk;
    if (text.split('\n').length > count) child.kill('SIGKILL');
  });
  await new Promise((resolve) => child.once('close', resolve));
  expect(child.signalCode).to.equal('SIGKILL');
  return text.split('\n').slice(0, -1);
}
