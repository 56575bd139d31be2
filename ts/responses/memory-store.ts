/** The store's twin without a file: for servers that should leave nothing behind, and for tests. */

import { isTerminal } from '../protocol/response-object.js';
import { unixSeconds } from './event-machine.js';
import { itemsOf, MEMORY_LIMITS, type ResponseStore, type StoredResponse, type StoreOptions } from './store.js';

interface Entry {
  readonly stored: StoredResponse;
  /** Grows in place: a response of many tokens has many. */
  readonly events: { readonly sequence: number; readonly json: string }[];
  readonly bytes: number;
  readonly usedAt: number;
}

export function createMemoryStore(options: StoreOptions = {}): ResponseStore {
  const limits = { ...MEMORY_LIMITS, ...options.limits };
  const now = options.now ?? unixSeconds;
  /** In order of last use. */
  const entries = new Map<string, Entry>();
  const holders = new Map<string, string>();
  let bytes = 0;

  const set = (id: string, entry: Entry): void => {
    bytes += entry.bytes - (entries.get(id)?.bytes ?? 0);
    entries.delete(id);
    entries.set(id, entry);
  };
  const remove = (id: string): boolean => {
    const entry = entries.get(id);
    if (entry === undefined) return false;
    bytes -= entry.bytes;
    for (const item of itemsOf(entry.stored)) if (holders.get(item.id) === id) holders.delete(item.id);
    return entries.delete(id);
  };
  const prune = (except: string): void => {
    const oldest = now() - limits.maxAgeSeconds;
    for (const [id, { stored, usedAt }] of entries) {
      if (entries.size <= limits.maxResponses && bytes <= limits.maxBytes && usedAt >= oldest) break;
      if (id !== except && isTerminal(stored.response.status)) remove(id);
    }
  };

  return {
    put({ response, input }) {
      const { id } = response;
      // A copy: what is stored cannot be changed from outside, as in a file.
      const json = JSON.stringify({ response, input });
      const stored = JSON.parse(json) as StoredResponse;
      const events = entries.get(id)?.events ?? [];
      const size = events.reduce((sum, event) => sum + event.json.length, json.length);
      set(id, { stored, events, bytes: size, usedAt: now() });
      for (const item of itemsOf(stored)) holders.set(item.id, id);
      prune(id);
    },
    get(id) {
      const entry = entries.get(id);
      if (entry === undefined) return undefined;
      set(id, { ...entry, usedAt: now() });
      return entry.stored;
    },
    findItem(itemId) {
      const holder = entries.get(holders.get(itemId) ?? '');
      return holder && itemsOf(holder.stored).find(({ id }) => id === itemId);
    },
    delete: remove,
    appendEvents(id, events) {
      const entry = entries.get(id);
      if (entry === undefined) return;
      const added = events.map((event) => ({ sequence: event.sequence_number, json: JSON.stringify(event) }));
      const size = added.reduce((sum, event) => sum + event.json.length, entry.bytes);
      entry.events.push(...added);
      set(id, { ...entry, bytes: size, usedAt: now() });
    },
    events(id, after, limit) {
      const found = entries.get(id)?.events ?? [];
      const from = found.findIndex(({ sequence }) => sequence > after);
      return from < 0 ? [] : found.slice(from, from + limit).map(({ json }) => JSON.parse(json) as never);
    },
    unfinished: () => [...entries].filter(([, { stored }]) => !isTerminal(stored.response.status)).map(([id]) => id),
    close() {
      entries.clear();
      holders.clear();
      bytes = 0;
    },
  };
}
