/** The store in one SQLite file. */

import { closeSync, openSync } from 'node:fs';

import Database from 'libsql';

import type { ResponseEvent } from '../protocol/response-events.js';
import type { StoredItem } from '../protocol/response-items.js';
import { isTerminal } from '../protocol/response-object.js';
import { unixSeconds } from './event-machine.js';
import { conversationTables } from './sqlite-conversations.js';
import { prepareTables } from './sqlite-schema.js';
import {
  additionOf,
  type CallerStore,
  FILE_LIMITS,
  itemsOf,
  MAX_LOOSE_APPROVALS,
  ownerOf,
  type ResponseStore,
  type StoredResponse,
  type StoreOptions,
} from './store.js';

/** Milliseconds to wait for another process that writes. */
const BUSY_TIMEOUT = 5_000;

/** Removed at once, so that one write never takes long. */
const PRUNE_BATCH = 64;

/**
 * With a write-ahead log and `synchronous = NORMAL` a commit is in the operating system's hands when it returns: the
 * process may be killed at any point. Only a crash of the machine itself can take the last moments, and never the rest;
 * waiting for the disk at every write would hold all other requests up for milliseconds.
 *
 * @param path a file, made if it is not there
 * @throws Error if the file cannot be opened, is no database, or is of a newer version
 */
export function openSqliteStore(path: string, options: StoreOptions = {}): ResponseStore {
  const limits = { ...FILE_LIMITS, ...options.limits };
  const now = options.now ?? unixSeconds;
  // Conversations are their owner's: a new file is readable by no one else, and SQLite makes the log's files like it.
  closeSync(openSync(path, 'a', 0o600));
  const db = new Database(path, { timeout: BUSY_TIMEOUT });
  let salt: Uint8Array;
  try {
    salt = prepareTables(db, (fresh) => ownerOf(fresh, undefined));
  } catch (error) {
    db.close();
    throw new Error(`cannot use ${path} for responses: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    });
  }
  const sql = statements(db);

  const prune = (...except: readonly (string | undefined)[]): void => {
    const [first = '', second = ''] = except;
    const oldest = now() - limits.maxAgeSeconds;
    sql.removeAged.run(oldest, first, PRUNE_BATCH);
    sql.removeAgedConversations.run(oldest, first, second, PRUNE_BATCH);
    const { count, bytes } = sql.total.get() as { count: number; bytes: number };
    let excessCount = count - limits.maxResponses;
    let excessBytes = bytes - limits.maxBytes;
    if (excessCount <= 0 && excessBytes <= 0) return;
    const least = sql.oldest.all(first, first, second, PRUNE_BATCH) as { id: string; bytes: number; talk: number }[];
    for (const { id, bytes: freed, talk } of least) {
      if (excessCount <= 0 && excessBytes <= 0) return;
      (talk === 1 ? sql.removeConversation : sql.removeResponse).run(id);
      excessCount -= 1;
      excessBytes -= freed;
    }
  };
  const conversations = conversationTables(db, now, prune);

  const stores = new Map<string, CallerStore>();
  const storeOf = (owner: string): CallerStore => {
    const known = stores.get(owner) ?? openFor(owner);
    stores.set(owner, known);
    return known;
  };
  const openFor = (owner: string): CallerStore => ({
    put: db.transaction((stored: StoredResponse): void => {
      const { response } = stored;
      const [own, input] = [JSON.stringify(response), JSON.stringify(stored.input)];
      const size = own.length + input.length;
      const finished = isTerminal(response.status) ? 1 : 0;
      if (sql.put.run(response.id, owner, finished, now(), size, own, input).changes === 0) return;
      for (const item of itemsOf(stored)) sql.putItem.run(owner, item.id, response.id);
      const addition = additionOf(stored);
      if (addition !== undefined) conversations.append(owner, addition.id, addition.items);
      prune(response.id, addition?.id);
    }),
    get(id) {
      const row = sql.get.get(id, owner) as { response: string; input: string; used_at: number } | undefined;
      if (row === undefined) return undefined;
      if (row.used_at !== now()) sql.touch.run(now(), id);
      return toStored(row);
    },
    findItem(itemId) {
      const row = sql.holder.get(owner, itemId) as { response: string; input: string } | undefined;
      if (row === undefined) return conversations.findItem(owner, itemId);
      return itemsOf(toStored(row)).find(({ id }) => id === itemId);
    },
    delete: (id) => sql.remove.run(id, owner).changes > 0,
    appendEvents: db.transaction((id: string, events: readonly ResponseEvent[]): void => {
      let size = 0;
      for (const event of events) {
        const json = JSON.stringify(event);
        size += json.length;
        sql.appendEvent.run(id, event.sequence_number, json, id, owner);
      }
      sql.grow.run(size, id, owner);
    }),
    events: (id, after, limit) =>
      (sql.events.all(id, owner, after, limit) as { event: string }[]).map(
        ({ event }) => JSON.parse(event) as ResponseEvent,
      ),
    claimApproval: db.transaction((id: string): boolean => {
      sql.forgetAnswers.run(now() - limits.maxAgeSeconds, MAX_LOOSE_APPROVALS);
      return sql.answer.run(owner, id, now()).changes > 0;
    }),
    releaseApproval: (id) => void sql.unanswer.run(owner, id),
    conversations: conversations.of(owner),
  });

  return {
    of: (caller) => storeOf(ownerOf(salt, caller)),
    unfinished: () =>
      (sql.unfinished.all() as { id: string; owner: string }[]).map(({ id, owner }) => ({ id, store: storeOf(owner) })),
    close: () => void db.close(),
  };
}

function statements(db: Database.Database) {
  return {
    put: db.prepare(
      `INSERT INTO responses (id, owner, finished, used_at, bytes, response, input) VALUES (?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT (id) DO UPDATE SET finished = excluded.finished, used_at = excluded.used_at,
         bytes = excluded.bytes + (SELECT ifnull(sum(length(event)), 0) FROM events WHERE response_id = excluded.id),
         response = excluded.response, input = excluded.input
       WHERE owner = excluded.owner`,
    ),
    putItem: db.prepare('INSERT OR IGNORE INTO items (owner, id, response_id) VALUES (?, ?, ?)'),
    get: db.prepare('SELECT response, input, used_at FROM responses WHERE id = ? AND owner = ?'),
    touch: db.prepare('UPDATE responses SET used_at = ? WHERE id = ?'),
    holder: db.prepare(
      `SELECT response, input FROM responses JOIN items ON responses.id = response_id
       WHERE items.owner = ? AND items.id = ? ORDER BY responses.rowid DESC LIMIT 1`,
    ),
    remove: db.prepare('DELETE FROM responses WHERE id = ? AND owner = ?'),
    removeResponse: db.prepare('DELETE FROM responses WHERE id = ?'),
    removeConversation: db.prepare('DELETE FROM conversations WHERE id = ?'),
    removeAged: db.prepare(
      `DELETE FROM responses WHERE id IN
         (SELECT id FROM responses WHERE used_at < ? AND finished AND id <> ? ORDER BY used_at LIMIT ?)`,
    ),
    removeAgedConversations: db.prepare(
      `DELETE FROM conversations WHERE id IN
         (SELECT id FROM conversations WHERE used_at < ? AND id NOT IN (?, ?) ORDER BY used_at LIMIT ?)`,
    ),
    oldest: db.prepare(
      `SELECT id, bytes, 0 AS talk, used_at, rowid AS place FROM responses WHERE finished AND id <> ?
       UNION ALL SELECT id, bytes, 1, used_at, rowid FROM conversations WHERE id NOT IN (?, ?)
       ORDER BY used_at, place LIMIT ?`,
    ),
    total: db.prepare(
      `SELECT sum(count) AS count, sum(bytes) AS bytes FROM
         (SELECT count(*) AS count, ifnull(sum(bytes), 0) AS bytes FROM responses
          UNION ALL SELECT count(*), ifnull(sum(bytes), 0) FROM conversations)`,
    ),
    // Nothing for a response that was deleted meanwhile.
    appendEvent: db.prepare(
      `INSERT OR IGNORE INTO events (response_id, sequence, event)
       SELECT ?, ?, ? WHERE EXISTS (SELECT 1 FROM responses WHERE id = ? AND owner = ?)`,
    ),
    grow: db.prepare('UPDATE responses SET bytes = bytes + ? WHERE id = ? AND owner = ?'),
    events: db.prepare(
      `SELECT event FROM events WHERE response_id = (SELECT id FROM responses WHERE id = ? AND owner = ?)
       AND sequence > ? ORDER BY sequence LIMIT ?`,
    ),
    unfinished: db.prepare('SELECT id, owner FROM responses WHERE NOT finished'),
    answer: db.prepare('INSERT OR IGNORE INTO approvals (owner, id, answered_at) VALUES (?, ?, ?)'),
    unanswer: db.prepare('DELETE FROM approvals WHERE owner = ? AND id = ?'),
    // Only where no stored item asks any more: as long as one does, the answer may come again.
    forgetAnswers: db.prepare(
      `DELETE FROM approvals
       WHERE (answered_at < ? OR number < (SELECT max(number) FROM approvals) - ?)
         AND NOT EXISTS (SELECT 1 FROM items i WHERE i.owner = approvals.owner AND i.id = approvals.id)
         AND NOT EXISTS (SELECT 1 FROM conversation_items c WHERE c.owner = approvals.owner AND c.id = approvals.id)`,
    ),
  };
}

function toStored({ response, input }: { readonly response: string; readonly input: string }): StoredResponse {
  return {
    response: JSON.parse(response) as StoredResponse['response'],
    input: JSON.parse(input) as readonly StoredItem[],
  };
}

/**
 * Keeps other processes off, until it is released or this process ends, however it ends: the lock is the system's.
 * @param path a file of its own beside the store
 * @returns releases it
 * @throws Error if another process holds it
 */
export function lockFile(path: string): () => void {
  closeSync(openSync(path, 'a', 0o600));
  const db = new Database(path, { timeout: 0 });
  try {
    db.exec('BEGIN EXCLUSIVE');
  } catch (error) {
    db.close();
    const busy = error instanceof Error && 'code' in error && String(error.code).startsWith('SQLITE_BUSY');
    throw busy ? new Error('another server uses the file', { cause: error }) : error;
  }
  return () => db.close();
}
