/** Conversations in the store's file. */

import type Database from 'libsql';

import type { ConversationObject } from '../protocol/conversations.js';
import type { StoredItem } from '../protocol/response-items.js';
import type { ConversationStore } from './store.js';

export interface ConversationTables {
  /** Within a transaction of the caller's. */
  append(owner: string, id: string, items: readonly StoredItem[]): void;
  findItem(owner: string, itemId: string): StoredItem | undefined;
  of(owner: string): ConversationStore;
}

/** @param prune removes what is too much, but not the conversation of that id */
export function conversationTables(
  db: Database.Database,
  now: () => number,
  prune: (except: string) => void,
): ConversationTables {
  const sql = statements(db);

  const append = (owner: string, id: string, items: readonly StoredItem[]): void => {
    const row = sql.position.get(id, owner) as { next: number } | undefined;
    if (row === undefined) return;
    let { next } = row;
    let size = 0;
    for (const item of items) {
      const json = JSON.stringify(item);
      if (sql.putItem.run(id, next, owner, item.id, json).changes === 0) continue;
      next++;
      size += json.length;
    }
    sql.grow.run(size, now(), id);
  };

  return {
    append,
    findItem: (owner, itemId) => itemOf(sql.findItem.get(owner, itemId)),
    of: (owner) => ({
      create: db.transaction((conversation: ConversationObject, items: readonly StoredItem[]): void => {
        const object = JSON.stringify(conversation);
        sql.create.run(conversation.id, owner, now(), object.length, object);
        append(owner, conversation.id, items);
        prune(conversation.id);
      }),
      get(id) {
        const row = sql.get.get(id, owner) as { object: string; used_at: number } | undefined;
        if (row === undefined) return undefined;
        if (row.used_at !== now()) sql.grow.run(0, now(), id);
        return JSON.parse(row.object) as ConversationObject;
      },
      update(conversation) {
        const object = JSON.stringify(conversation);
        sql.update.run(object.length, object, now(), conversation.id, owner);
      },
      delete: (id) => sql.remove.run(id, owner).changes > 0,
      items(id, { after, descending = false, limit = -1 } = {}) {
        let from = descending ? Number.MAX_SAFE_INTEGER : -1;
        if (after !== undefined) {
          const row = sql.placeOf.get(id, after, owner) as { position: number } | undefined;
          if (row === undefined) return undefined;
          from = row.position;
        }
        const rows = (descending ? sql.itemsBefore : sql.itemsAfter).all(id, owner, from, limit) as { item: string }[];
        return rows.map(({ item }) => JSON.parse(item) as StoredItem);
      },
      item: (id, itemId) => itemOf(sql.item.get(id, itemId, owner)),
      append: db.transaction((id: string, items: readonly StoredItem[]): void => {
        append(owner, id, items);
        prune(id);
      }),
      deleteItem: db.transaction((id: string, itemId: string): boolean => {
        const row = sql.item.get(id, itemId, owner) as { item: string } | undefined;
        if (row === undefined) return false;
        sql.removeItem.run(id, itemId);
        sql.grow.run(-row.item.length, now(), id);
        return true;
      }),
      size(id) {
        const row = sql.size.get(id, owner) as { items: number; bytes: number } | undefined;
        return { items: row?.items ?? 0, bytes: row?.bytes ?? 0 };
      },
    }),
  };
}

function itemOf(row: unknown): StoredItem | undefined {
  return row === undefined ? undefined : (JSON.parse((row as { item: string }).item) as StoredItem);
}

function statements(db: Database.Database) {
  return {
    create: db.prepare('INSERT INTO conversations (id, owner, used_at, bytes, object) VALUES (?, ?, ?, ?, ?)'),
    get: db.prepare('SELECT object, used_at FROM conversations WHERE id = ? AND owner = ?'),
    grow: db.prepare('UPDATE conversations SET bytes = bytes + ?, used_at = ? WHERE id = ?'),
    update: db.prepare(
      `UPDATE conversations SET bytes = bytes + ? - length(object), object = ?, used_at = ? WHERE id = ? AND owner = ?`,
    ),
    remove: db.prepare('DELETE FROM conversations WHERE id = ? AND owner = ?'),
    position: db.prepare(
      `SELECT (SELECT ifnull(max(position), -1) + 1 FROM conversation_items WHERE conversation_id = c.id) AS next
       FROM conversations c WHERE id = ? AND owner = ?`,
    ),
    putItem: db.prepare(
      'INSERT OR IGNORE INTO conversation_items (conversation_id, position, owner, id, item) VALUES (?, ?, ?, ?, ?)',
    ),
    findItem: db.prepare('SELECT item FROM conversation_items WHERE owner = ? AND id = ? LIMIT 1'),
    placeOf: db.prepare('SELECT position FROM conversation_items WHERE conversation_id = ? AND id = ? AND owner = ?'),
    item: db.prepare('SELECT item FROM conversation_items WHERE conversation_id = ? AND id = ? AND owner = ?'),
    itemsAfter: db.prepare(
      `SELECT item FROM conversation_items WHERE conversation_id = ? AND owner = ? AND position > ?
       ORDER BY position LIMIT ?`,
    ),
    itemsBefore: db.prepare(
      `SELECT item FROM conversation_items WHERE conversation_id = ? AND owner = ? AND position < ?
       ORDER BY position DESC LIMIT ?`,
    ),
    removeItem: db.prepare('DELETE FROM conversation_items WHERE conversation_id = ? AND id = ?'),
    size: db.prepare(
      `SELECT (SELECT count(*) FROM conversation_items WHERE conversation_id = c.id) AS items, bytes
       FROM conversations c WHERE id = ? AND owner = ?`,
    ),
  };
}
