/** The two stores are one interface; the file outlives the process that writes it. */

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { expect } from 'chai';
import Database from 'libsql';

import type { ConversationObject } from '../ts/protocol/conversations.js';
import type { ResponseEvent } from '../ts/protocol/response-events.js';
import type { StoredItem } from '../ts/protocol/response-items.js';
import { parseCreateResponse } from '../ts/protocol/responses.js';
import { failInterrupted } from '../ts/responses/interrupted.js';
import { toEcho } from '../ts/responses/echo.js';
import { ResponseMachine } from '../ts/responses/event-machine.js';
import { createMemoryStore } from '../ts/responses/memory-store.js';
import { openSqliteStore } from '../ts/responses/sqlite-store.js';
import type { CallerStore, ItemPage, ResponseStore, StoredResponse, StoreOptions } from '../ts/responses/store.js';
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

function talk(id: string): ConversationObject {
  return { id, object: 'conversation', created_at: 1, metadata: {} };
}

function said(id: string, text = id): StoredItem {
  return { type: 'message', id, role: 'user', status: 'completed', content: [{ type: 'input_text', text }] };
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
  for (const [kind, openAll] of kinds) {
    describe(kind, () => {
      let all: ResponseStore;
      const open = (options?: StoreOptions): CallerStore => {
        all = openAll(options);
        return all.of(undefined);
      };
      afterEach(() => all.close());

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
      });

      it('is bounded in number: the least recently used goes', () => {
        let time = 0;
        const store = open({ limits: { maxResponses: 3 }, now: () => ++time });
        for (const id of ['a', 'b', 'c']) store.put(ended(id));
        store.get('a');
        store.put(ended('d'));
        expect(['a', 'b', 'c', 'd'].map((id) => store.get(id) !== undefined)).to.deep.equal([true, false, true, true]);
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
        expect(all.unfinished().map(({ id }) => id)).to.deep.equal(['run']);
      });

      it('fails what a stop interrupted, and completes what was only half written', () => {
        const store = open();
        const cut = machineOf('cut');
        store.put({ response: cut.snapshot, input: [] });
        store.appendEvents('cut', [...cut.queue(), ...cut.start(), ...cut.push(content('a'))]);
        const { events, ...whole } = ended('whole');
        store.put({ ...whole, response: machineOf('whole').snapshot });
        store.appendEvents('whole', events);
        failInterrupted(all);
        expect(all.unfinished()).to.deep.equal([]);
        expect(store.get('cut')!.response).to.include({ status: 'failed' });
        expect(store.get('cut')!.response.error!.code).to.equal('server_error');
        expect(
          store
            .events('cut', -1, 100)
            .map(({ type }) => type)
            .at(-1),
        ).to.equal('response.failed');
        expect(store.get('whole')).to.deep.equal(plain(whole));
      });

      it('keeps callers apart', () => {
        const store = open();
        const other = all.of('other');
        const { events, ...mine } = ended('resp_1');
        store.put(mine);
        store.appendEvents('resp_1', events);
        store.conversations.create(talk('conv_1'), [said('msg_talk')]);
        expect(other.get('resp_1')).to.be.undefined;
        expect(other.events('resp_1', -1, 10)).to.deep.equal([]);
        expect(other.findItem('msg_in_resp_1')).to.be.undefined;
        expect(other.findItem('msg_talk')).to.be.undefined;
        expect(other.conversations.get('conv_1')).to.be.undefined;
        expect(other.conversations.items('conv_1')).to.deep.equal([]);
        expect(other.conversations.item('conv_1', 'msg_talk')).to.be.undefined;
        expect([other.delete('resp_1'), other.conversations.delete('conv_1')]).to.deep.equal([false, false]);
        expect(other.conversations.deleteItem('conv_1', 'msg_talk')).to.be.false;
        // Neither by an id that is known can anything be changed or covered.
        other.appendEvents('resp_1', events.slice(0, 1));
        other.put(ended('resp_1', 'forged'));
        other.conversations.append('conv_1', [said('msg_forged')]);
        other.conversations.update({ ...talk('conv_1'), metadata: { forged: 'yes' } });
        other.put({ ...ended('resp_2'), input: [said('msg_talk'), { ...said('msg_in_resp_1') }] });
        const [again] = [all.of(undefined)];
        expect(again.get('resp_1')).to.deep.equal(plain(mine));
        expect(again.events('resp_1', -1, 100)).to.have.length(events.length);
        expect(again.findItem('msg_in_resp_1')).to.deep.equal(plain(mine).input[0]);
        expect(again.conversations.get('conv_1')).to.deep.equal(talk('conv_1'));
        expect(again.conversations.items('conv_1')).to.deep.equal([said('msg_talk')]);
        expect(all.of('other').claimApproval('mcpr_1')).to.be.true;
        expect(again.claimApproval('mcpr_1')).to.be.true;
      });

      it('keeps conversations: pages, single items, what a response adds at its end', () => {
        const { conversations, ...store } = open();
        const items = ['a', 'b', 'c', 'd'].map((id) => said(id));
        conversations.create(talk('conv_1'), items.slice(0, 2));
        conversations.append('conv_1', items.slice(1));
        const ids = (page?: ItemPage) => conversations.items('conv_1', page)?.map(({ id }) => id);
        expect(ids()).to.deep.equal(['a', 'b', 'c', 'd']);
        expect(ids({ after: 'b', limit: 1 })).to.deep.equal(['c']);
        expect(ids({ descending: true, limit: 2 })).to.deep.equal(['d', 'c']);
        expect(ids({ descending: true, after: 'b' })).to.deep.equal(['a']);
        expect(ids({ after: 'none' })).to.be.undefined;
        expect(conversations.item('conv_1', 'c')).to.deep.equal(items[2]);
        expect(store.findItem('c')).to.deep.equal(items[2]);
        expect(conversations.deleteItem('conv_1', 'c')).to.be.true;
        expect(conversations.deleteItem('conv_1', 'c')).to.be.false;
        expect(store.findItem('c')).to.be.undefined;
        conversations.update({ ...talk('conv_1'), metadata: { k: 'v' } });
        expect(conversations.get('conv_1')!.metadata).to.deep.equal({ k: 'v' });

        const one = ended('resp_1');
        const inTalk = { ...one.response, conversation: { id: 'conv_1' } };
        store.put({ input: one.input, response: { ...inTalk, status: 'in_progress' } });
        store.put({ input: one.input, response: { ...inTalk, status: 'failed' } });
        expect(ids()).to.deep.equal(['a', 'b', 'd']);
        store.put({ input: one.input, response: inTalk });
        store.put({ input: one.input, response: inTalk });
        const added = ['msg_in_resp_1', inTalk.output[0]!.id];
        expect(ids()).to.deep.equal(['a', 'b', 'd', ...added]);
        expect(conversations.size('conv_1').items).to.equal(5);
        // Either holds the items by itself.
        store.delete('resp_1');
        expect(store.findItem('msg_in_resp_1')).to.deep.equal(one.input[0]);
        store.put({ input: one.input, response: inTalk });
        expect([conversations.delete('conv_1'), conversations.delete('conv_1')]).to.deep.equal([true, false]);
        expect(store.findItem('msg_in_resp_1')).to.deep.equal(one.input[0]);
        expect(conversations.get('conv_1')).to.be.undefined;
        store.put({ input: one.input, response: inTalk });
        conversations.append('conv_1', items);
        expect(conversations.items('conv_1')).to.deep.equal([]);
        expect(conversations.size('conv_1')).to.deep.equal({ items: 0, bytes: 0 });
      });

      it('bounds conversations together with responses', () => {
        let time = 0;
        const store = open({ limits: { maxResponses: 3, maxBytes: 30_000, maxAgeSeconds: 100 }, now: () => ++time });
        const there = (): string[] => [
          ...['a', 'b'].filter((id) => store.get(id) !== undefined),
          ...['t', 'u', 'v'].filter((id) => store.conversations.get(id) !== undefined),
        ];
        store.put(ended('a'));
        store.conversations.create(talk('t'), []);
        store.put(ended('b'));
        store.conversations.create(talk('u'), []);
        expect(there()).to.deep.equal(['b', 't', 'u']);
        store.conversations.append('t', [said('long', 'x'.repeat(40_000))]);
        expect(there()).to.deep.equal(['t']);
        time += 1_000;
        store.conversations.create(talk('v'), []);
        expect(there()).to.deep.equal(['v']);
      });

      it('gives the answer of an approval once, for as long as its request is stored', () => {
        let time = 0;
        const store = open({ limits: { maxAgeSeconds: 10 }, now: () => time });
        store.put({ ...ended('resp_1'), input: [said('mcpr_kept')] });
        expect([store.claimApproval('mcpr_loose'), store.claimApproval('mcpr_loose')]).to.deep.equal([true, false]);
        store.releaseApproval('mcpr_loose');
        expect([store.claimApproval('mcpr_loose'), store.claimApproval('mcpr_kept')]).to.deep.equal([true, true]);
        for (time = 5; time < 30; time += 5) store.get('resp_1');
        expect([store.claimApproval('mcpr_other'), store.claimApproval('mcpr_kept')]).to.deep.equal([true, false]);
        expect(store.claimApproval('mcpr_loose')).to.be.true;
      });
    });
  }

  it('survives closing and opening', () => {
    const file = path.join(folder, 'again.db');
    const before = openSqliteStore(file);
    const first = before.of('a key');
    const { events, ...one } = ended('resp_1');
    first.put(one);
    first.appendEvents('resp_1', events);
    first.conversations.create(talk('conv_1'), [said('a')]);
    first.claimApproval('mcpr_1');
    before.close();
    const after = openSqliteStore(file);
    const second = after.of('a key');
    expect(second.get('resp_1')).to.deep.equal(plain(one));
    expect(second.events('resp_1', -1, 100)).to.have.length(events.length);
    expect(second.conversations.items('conv_1')).to.deep.equal([said('a')]);
    expect(second.claimApproval('mcpr_1')).to.be.false;
    expect(after.of('another').get('resp_1')).to.be.undefined;
    after.close();
    expect(readFileSync(file).includes('a key')).to.be.false;
  });

  it('brings a file of the version before up to date', () => {
    const file = path.join(folder, 'old.db');
    const old = new Database(file);
    old.exec(`
      CREATE TABLE responses (id TEXT PRIMARY KEY, finished INTEGER NOT NULL, used_at INTEGER NOT NULL,
        bytes INTEGER NOT NULL, response TEXT NOT NULL, input TEXT NOT NULL) STRICT;
      CREATE TABLE items (id TEXT PRIMARY KEY,
        response_id TEXT NOT NULL REFERENCES responses (id) ON DELETE CASCADE) STRICT, WITHOUT ROWID;
      CREATE INDEX items_by_response ON items (response_id);
      CREATE TABLE events (response_id TEXT NOT NULL REFERENCES responses (id) ON DELETE CASCADE,
        sequence INTEGER NOT NULL, event TEXT NOT NULL, PRIMARY KEY (response_id, sequence)) STRICT, WITHOUT ROWID;
      PRAGMA user_version = 1;`);
    const one = plain(ended('resp_1'));
    const { conversation, ...before } = one.response;
    expect(conversation).to.equal(null);
    old
      .prepare('INSERT INTO responses VALUES (?, 1, ?, 100, ?, ?)')
      .run('resp_1', Math.floor(Date.now() / 1000), JSON.stringify(before), JSON.stringify(one.input));
    old.prepare('INSERT INTO items VALUES (?, ?)').run('msg_in_resp_1', 'resp_1');
    old.close();
    for (let i = 0; i < 2; i++) {
      const all = openSqliteStore(file);
      expect(all.of(undefined).get('resp_1')).to.deep.equal(one);
      expect(all.of(undefined).findItem('msg_in_resp_1')).to.deep.equal(one.input[0]);
      expect(all.of('a key').get('resp_1')).to.be.undefined;
      all.close();
    }
  });

  it('refuses a file of a newer version', () => {
    const file = path.join(folder, 'newer.db');
    const newer = new Database(file);
    newer.exec('PRAGMA user_version = 99');
    newer.close();
    expect(() => openSqliteStore(file)).to.throw(/its version is 99, this program knows \d/);
  });

  it('makes files that only their owner reads', function () {
    if (process.platform === 'win32') this.skip();
    const file = path.join(folder, 'private.db');
    const store = openSqliteStore(file);
    store.of(undefined).put(ended('resp_1'));
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
    const lost = acknowledged.filter((id) => store.of(undefined).get(id)?.response.status !== 'completed');
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
