/** The store in one SQLite file. */

import { closeSync, openSync } from 'node:fs';

import Database from 'libsql';

import type { ResponseEvent } from '../protocol/response-events.js';
import type { StoredItem } from '../protocol/response-items.js';
import { unixSeconds } from './event-machine.js';
import { FILE_LIMITS, itemsOf, type ResponseStore, type StoredResponse, type StoreOptions } from './store.js';

/** Of the file's tables; one that is newer than this program is refused. */
const SCHEMA_VERSION = 1;

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY,
    finished INTEGER NOT NULL,
    used_at INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    response TEXT NOT NULL,
    input TEXT NOT NULL
  ) STRICT;
  CREATE INDEX IF NOT EXISTS responses_by_use ON responses (used_at, bytes, finished);
  CREATE TABLE IF NOT EXISTS items (
    id TEXT PRIMARY KEY,
    response_id TEXT NOT NULL REFERENCES responses (id) ON DELETE CASCADE
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS items_by_response ON items (response_id);
  CREATE TABLE IF NOT EXISTS events (
    response_id TEXT NOT NULL REFERENCES responses (id) ON DELETE CASCADE,
    sequence INTEGER NOT NULL,
    event TEXT NOT NULL,
    PRIMARY KEY (response_id, sequence)
  ) STRICT, WITHOUT ROWID;
`;

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
  try {
    prepare(db);
  } catch (error) {
    db.close();
    throw new Error(`cannot use ${path} for responses: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    });
  }
  const sql = statements(db);

  const prune = (except: string): void => {
    sql.removeAged.run(now() - limits.maxAgeSeconds, except, PRUNE_BATCH);
    const { count, bytes } = sql.total.get() as { count: number; bytes: number };
    let excessCount = count - limits.maxResponses;
    let excessBytes = bytes - limits.maxBytes;
    if (excessCount <= 0 && excessBytes <= 0) return;
    for (const oldest of sql.oldest.all(except, PRUNE_BATCH) as { id: string; bytes: number }[]) {
      if (excessCount <= 0 && excessBytes <= 0) return;
      sql.remove.run(oldest.id);
      excessCount -= 1;
      excessBytes -= oldest.bytes;
    }
  };

  return {
    put: db.transaction((stored: StoredResponse): void => {
      const { response } = stored;
      const [own, input] = [JSON.stringify(response), JSON.stringify(stored.input)];
      const finished = response.status === 'queued' || response.status === 'in_progress' ? 0 : 1;
      const size = own.length + input.length;
      sql.put.run(response.id, finished, now(), size, own, input);
      for (const item of itemsOf(stored)) sql.putItem.run(item.id, response.id);
      prune(response.id);
    }),
    get(id) {
      const row = sql.get.get(id) as { response: string; input: string; used_at: number } | undefined;
      if (row === undefined) return undefined;
      if (row.used_at !== now()) sql.touch.run(now(), id);
      return toStored(row);
    },
    findItem(itemId) {
      const row = sql.holder.get(itemId) as { response: string; input: string } | undefined;
      if (row === undefined) return undefined;
      return itemsOf(toStored(row)).find(({ id }) => id === itemId);
    },
    delete: (id) => sql.remove.run(id).changes > 0,
    appendEvents: db.transaction((id: string, events: readonly ResponseEvent[]): void => {
      let size = 0;
      for (const event of events) {
        const json = JSON.stringify(event);
        size += json.length;
        sql.appendEvent.run(id, event.sequence_number, json, id);
      }
      sql.grow.run(size, id);
    }),
    events: (id, after, limit) =>
      (sql.events.all(id, after, limit) as { event: string }[]).map(({ event }) => JSON.parse(event) as ResponseEvent),
    unfinished: () => (sql.unfinished.all() as { id: string }[]).map(({ id }) => id),
    close: () => void db.close(),
  };
}

function prepare(db: Database.Database): void {
  db.pragma('journal_mode = WAL');
  db.pragma('synchronous = NORMAL');
  db.pragma('foreign_keys = ON');
  const found = (db.prepare('PRAGMA user_version').get() as { user_version: number }).user_version;
  if (found > SCHEMA_VERSION) throw new Error(`its version is ${found}, this program knows ${SCHEMA_VERSION}`);
  db.exec(SCHEMA);
  db.exec(`PRAGMA user_version = ${SCHEMA_VERSION}`);
}

function statements(db: Database.Database) {
  return {
    put: db.prepare(
      `INSERT INTO responses (id, finished, used_at, bytes, response, input) VALUES (?, ?, ?, ?, ?, ?)
       ON CONFLICT (id) DO UPDATE SET finished = excluded.finished, used_at = excluded.used_at,
         bytes = excluded.bytes + (SELECT ifnull(sum(length(event)), 0) FROM events WHERE response_id = excluded.id),
         response = excluded.response, input = excluded.input`,
    ),
    putItem: db.prepare('INSERT OR REPLACE INTO items (id, response_id) VALUES (?, ?)'),
    get: db.prepare('SELECT response, input, used_at FROM responses WHERE id = ?'),
    touch: db.prepare('UPDATE responses SET used_at = ? WHERE id = ?'),
    holder: db.prepare('SELECT response, input FROM responses WHERE id = (SELECT response_id FROM items WHERE id = ?)'),
    remove: db.prepare('DELETE FROM responses WHERE id = ?'),
    removeAged: db.prepare(
      `DELETE FROM responses WHERE id IN
         (SELECT id FROM responses WHERE used_at < ? AND finished AND id <> ? ORDER BY used_at LIMIT ?)`,
    ),
    oldest: db.prepare('SELECT id, bytes FROM responses WHERE finished AND id <> ? ORDER BY used_at, rowid LIMIT ?'),
    total: db.prepare('SELECT count(*) AS count, ifnull(sum(bytes), 0) AS bytes FROM responses'),
    // Nothing for a response that was deleted meanwhile.
    appendEvent: db.prepare(
      'INSERT OR IGNORE INTO events (response_id, sequence, event) SELECT ?, ?, ? WHERE EXISTS (SELECT 1 FROM responses WHERE id = ?)',
    ),
    grow: db.prepare('UPDATE responses SET bytes = bytes + ? WHERE id = ?'),
    events: db.prepare('SELECT event FROM events WHERE response_id = ? AND sequence > ? ORDER BY sequence LIMIT ?'),
    unfinished: db.prepare('SELECT id FROM responses WHERE NOT finished'),
  };
}

function toStored({ response, input }: { readonly response: string; readonly input: string }): StoredResponse {
  return {
    response: JSON.parse(response) as StoredResponse['response'],
    input: JSON.parse(input) as readonly StoredItem[],
  };
}
