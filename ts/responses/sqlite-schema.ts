/** The tables of a store's file, and how a file of an earlier version becomes one of today. */

import { randomBytes } from 'node:crypto';

import type Database from 'libsql';

/** A file that is newer than this program is refused. */
const SCHEMA_VERSION = 2;

/** `owner` is `ownerOf` a caller; of one caller's rows no other statement than that caller's ever speaks. */
const SCHEMA = `
  CREATE TABLE IF NOT EXISTS store (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY,
    finished INTEGER NOT NULL,
    used_at INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    response TEXT NOT NULL,
    input TEXT NOT NULL,
    owner TEXT NOT NULL
  ) STRICT;
  CREATE INDEX IF NOT EXISTS responses_by_use ON responses (used_at, bytes, finished);
  CREATE TABLE IF NOT EXISTS items (
    owner TEXT NOT NULL,
    id TEXT NOT NULL,
    response_id TEXT NOT NULL REFERENCES responses (id) ON DELETE CASCADE,
    PRIMARY KEY (owner, id, response_id)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS items_by_response ON items (response_id);
  CREATE TABLE IF NOT EXISTS events (
    response_id TEXT NOT NULL REFERENCES responses (id) ON DELETE CASCADE,
    sequence INTEGER NOT NULL,
    event TEXT NOT NULL,
    PRIMARY KEY (response_id, sequence)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS conversations (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    used_at INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    object TEXT NOT NULL
  ) STRICT;
  CREATE INDEX IF NOT EXISTS conversations_by_use ON conversations (used_at, bytes);
  CREATE TABLE IF NOT EXISTS conversation_items (
    conversation_id TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    owner TEXT NOT NULL,
    id TEXT NOT NULL,
    item TEXT NOT NULL,
    PRIMARY KEY (conversation_id, position),
    UNIQUE (conversation_id, id)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS conversation_items_by_id ON conversation_items (owner, id);
  CREATE TABLE IF NOT EXISTS approvals (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    owner TEXT NOT NULL,
    id TEXT NOT NULL,
    answered_at INTEGER NOT NULL,
    UNIQUE (owner, id)
  ) STRICT;
`;

/** Makes the tables, or brings them up to date. @throws Error for a file of a newer program */
export function prepareTables(db: Database.Database, noKeyOwner: (salt: Uint8Array) => string): Uint8Array {
  db.pragma('journal_mode = WAL');
  db.pragma('synchronous = NORMAL');
  db.pragma('foreign_keys = ON');
  const found = (db.prepare('PRAGMA user_version').get() as { user_version: number }).user_version;
  if (found > SCHEMA_VERSION) throw new Error(`its version is ${found}, this program knows ${SCHEMA_VERSION}`);
  return db.transaction(() => {
    if (found === 1) db.exec(FROM_VERSION_1);
    db.exec(SCHEMA);
    const salt = saltOf(db);
    if (found === 1) {
      // Nothing said whose they were: they stay with a server without keys.
      db.prepare('UPDATE responses SET owner = ?').run(noKeyOwner(salt));
      db.exec("UPDATE responses SET response = json_set(response, '$.conversation', json('null'))");
      db.exec(
        'INSERT INTO items SELECT r.owner, o.id, o.response_id FROM old_items o JOIN responses r ON r.id = o.response_id',
      );
      db.exec('DROP TABLE old_items');
    }
    db.exec(`PRAGMA user_version = ${SCHEMA_VERSION}`);
    return salt;
  })();
}

const FROM_VERSION_1 = `
  ALTER TABLE responses ADD COLUMN owner TEXT NOT NULL DEFAULT '';
  DROP INDEX items_by_response;
  ALTER TABLE items RENAME TO old_items;
`;

/** Of this file, for as long as it lives. */
function saltOf(db: Database.Database): Uint8Array {
  db.prepare("INSERT OR IGNORE INTO store (name, value) VALUES ('salt', ?)").run(randomBytes(32).toString('hex'));
  const { value } = db.prepare("SELECT value FROM store WHERE name = 'salt'").get() as { value: string };
  return Buffer.from(value, 'hex');
}
