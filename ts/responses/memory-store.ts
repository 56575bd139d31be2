/** The store's twin without a file: for servers that should leave nothing behind, and for tests. */

import { randomBytes } from 'node:crypto';

import type { ConversationObject } from '../protocol/conversations.js';
import type { StoredItem } from '../protocol/response-items.js';
import { isTerminal } from '../protocol/response-object.js';
import { unixSeconds } from './event-machine.js';
import {
  additionOf,
  type CallerStore,
  type ConversationStore,
  itemsOf,
  MAX_LOOSE_APPROVALS,
  MEMORY_LIMITS,
  ownerOf,
  type ResponseStore,
  type StoredResponse,
  type StoreLimits,
  type StoreOptions,
} from './store.js';

interface Kept {
  readonly owner: string;
  readonly bytes: number;
  readonly usedAt: number;
}

interface ResponseEntry extends Kept {
  readonly kind: 'response';
  readonly stored: StoredResponse;
  /** Grows in place: a response of many tokens has many. */
  readonly events: { readonly sequence: number; readonly json: string }[];
}

interface ConversationEntry extends Kept {
  readonly kind: 'conversation';
  readonly object: ConversationObject;
  /** In order, by id, as JSON. Changes in place. */
  readonly items: Map<string, string>;
}

type Entry = ResponseEntry | ConversationEntry;

export function createMemoryStore(options: StoreOptions = {}): ResponseStore {
  const entries = new Entries({ ...MEMORY_LIMITS, ...options.limits }, options.now ?? unixSeconds);
  const salt = randomBytes(32);
  return {
    of: (caller) => entries.of(ownerOf(salt, caller)),
    unfinished: () => entries.unfinished(),
    close: () => entries.clear(),
  };
}

class Entries {
  /** In order of last use. Ids are random and of different prefixes. */
  private readonly entries = new Map<string, Entry>();
  /** Which entries an item is in, by owner and id: a response and its conversation share theirs. */
  private readonly holders = new Map<string, Set<string>>();
  /** Answered approvals by owner and id, with their time, in that order. */
  private readonly approvals = new Map<string, number>();
  private bytes = 0;

  constructor(
    private readonly limits: StoreLimits,
    private readonly now: () => number,
  ) {}

  of(owner: string): CallerStore {
    return {
      put: (stored) => this.put(owner, stored),
      get: (id) => {
        const entry = this.response(owner, id);
        if (entry === undefined) return undefined;
        this.set(id, { ...entry, usedAt: this.now() });
        return entry.stored;
      },
      findItem: (itemId) => this.findItem(owner, itemId),
      delete: (id) => this.response(owner, id) !== undefined && this.remove(id),
      appendEvents: (id, events) => {
        const entry = this.response(owner, id);
        if (entry === undefined) return;
        const added = events.map((event) => ({ sequence: event.sequence_number, json: JSON.stringify(event) }));
        const size = added.reduce((sum, event) => sum + event.json.length, entry.bytes);
        entry.events.push(...added);
        this.set(id, { ...entry, bytes: size, usedAt: this.now() });
      },
      events: (id, after, limit) => {
        const found = this.response(owner, id)?.events ?? [];
        const from = found.findIndex(({ sequence }) => sequence > after);
        return from < 0 ? [] : found.slice(from, from + limit).map(({ json }) => JSON.parse(json) as never);
      },
      claimApproval: (id) => this.claimApproval(keyOf(owner, id)),
      releaseApproval: (id) => void this.approvals.delete(keyOf(owner, id)),
      conversations: this.conversations(owner),
    };
  }

  unfinished(): { id: string; store: CallerStore }[] {
    return [...this.entries].flatMap(([id, entry]) =>
      entry.kind === 'response' && !isTerminal(entry.stored.response.status)
        ? [{ id, store: this.of(entry.owner) }]
        : [],
    );
  }

  clear(): void {
    this.entries.clear();
    this.holders.clear();
    this.approvals.clear();
    this.bytes = 0;
  }

  private conversations(owner: string): ConversationStore {
    const find = (id: string): ConversationEntry | undefined => this.conversation(owner, id);
    return {
      create: (object, items) => {
        const bytes = JSON.stringify(object).length;
        this.set(object.id, { kind: 'conversation', owner, object, items: new Map(), bytes, usedAt: this.now() });
        this.append(owner, object.id, items);
        this.prune([object.id]);
      },
      get: (id) => {
        const entry = find(id);
        if (entry !== undefined) this.set(id, { ...entry, usedAt: this.now() });
        return entry?.object;
      },
      update: (object) => {
        const entry = find(object.id);
        if (entry === undefined) return;
        const bytes = entry.bytes + JSON.stringify(object).length - JSON.stringify(entry.object).length;
        this.set(object.id, { ...entry, object, bytes, usedAt: this.now() });
      },
      delete: (id) => find(id) !== undefined && this.remove(id),
      items: (id, { after, descending = false, limit } = {}) => {
        const all = [...(find(id)?.items ?? [])];
        const ordered = descending ? all.toReversed() : all;
        const from = after === undefined ? 0 : ordered.findIndex(([itemId]) => itemId === after) + 1;
        if (after !== undefined && from === 0) return undefined;
        const to = limit === undefined ? ordered.length : from + limit;
        return ordered.slice(from, to).map(([, json]) => JSON.parse(json) as StoredItem);
      },
      item: (id, itemId) => {
        const json = find(id)?.items.get(itemId);
        return json === undefined ? undefined : (JSON.parse(json) as StoredItem);
      },
      append: (id, items) => {
        this.append(owner, id, items);
        this.prune([id]);
      },
      deleteItem: (id, itemId) => {
        const entry = find(id);
        const json = entry?.items.get(itemId);
        if (entry === undefined || json === undefined) return false;
        entry.items.delete(itemId);
        this.unhold(owner, itemId, id);
        this.set(id, { ...entry, bytes: entry.bytes - json.length, usedAt: this.now() });
        return true;
      },
      size: (id) => {
        const entry = find(id);
        return { items: entry?.items.size ?? 0, bytes: entry?.bytes ?? 0 };
      },
    };
  }

  private put(owner: string, { response, input }: StoredResponse): void {
    const { id } = response;
    if (this.entries.has(id) && this.response(owner, id) === undefined) return;
    // A copy: what is stored cannot be changed from outside, as in a file.
    const json = JSON.stringify({ response, input });
    const stored = JSON.parse(json) as StoredResponse;
    const events = this.response(owner, id)?.events ?? [];
    const bytes = events.reduce((sum, event) => sum + event.json.length, json.length);
    this.set(id, { kind: 'response', owner, stored, events, bytes, usedAt: this.now() });
    for (const item of itemsOf(stored)) this.hold(owner, item.id, id);
    const addition = additionOf(stored);
    if (addition !== undefined) this.append(owner, addition.id, addition.items);
    this.prune([id, addition?.id]);
  }

  private append(owner: string, id: string, items: readonly StoredItem[]): void {
    const entry = this.conversation(owner, id);
    if (entry === undefined) return;
    let { bytes } = entry;
    for (const item of items) {
      if (entry.items.has(item.id)) continue;
      const json = JSON.stringify(item);
      entry.items.set(item.id, json);
      bytes += json.length;
      this.hold(owner, item.id, id);
    }
    this.set(id, { ...entry, bytes, usedAt: this.now() });
  }

  private findItem(owner: string, itemId: string): StoredItem | undefined {
    const [holder = ''] = [...(this.holders.get(keyOf(owner, itemId)) ?? [])].reverse();
    const entry = this.entries.get(holder);
    if (entry === undefined) return undefined;
    if (entry.kind === 'response') return itemsOf(entry.stored).find(({ id }) => id === itemId);
    const json = entry.items.get(itemId);
    return json === undefined ? undefined : (JSON.parse(json) as StoredItem);
  }

  private claimApproval(key: string): boolean {
    if (this.approvals.has(key)) return false;
    const oldest = this.now() - this.limits.maxAgeSeconds;
    for (const [loose, at] of this.approvals) {
      if (at >= oldest && this.approvals.size < MAX_LOOSE_APPROVALS) break;
      if (!this.holders.has(loose)) this.approvals.delete(loose);
    }
    this.approvals.set(key, this.now());
    return true;
  }

  private response(owner: string, id: string): ResponseEntry | undefined {
    const entry = this.entries.get(id);
    return entry?.kind === 'response' && entry.owner === owner ? entry : undefined;
  }

  private conversation(owner: string, id: string): ConversationEntry | undefined {
    const entry = this.entries.get(id);
    return entry?.kind === 'conversation' && entry.owner === owner ? entry : undefined;
  }

  private set(id: string, entry: Entry): void {
    this.bytes += entry.bytes - (this.entries.get(id)?.bytes ?? 0);
    this.entries.delete(id);
    this.entries.set(id, entry);
  }

  private remove(id: string): boolean {
    const entry = this.entries.get(id);
    if (entry === undefined) return false;
    this.bytes -= entry.bytes;
    this.entries.delete(id);
    const ids = entry.kind === 'response' ? itemsOf(entry.stored).map((item) => item.id) : [...entry.items.keys()];
    for (const itemId of ids) this.unhold(entry.owner, itemId, id);
    return true;
  }

  private hold(owner: string, itemId: string, id: string): void {
    const key = keyOf(owner, itemId);
    const holders = this.holders.get(key) ?? new Set();
    // The newest last.
    holders.delete(id);
    this.holders.set(key, holders.add(id));
  }

  private unhold(owner: string, itemId: string, id: string): void {
    const key = keyOf(owner, itemId);
    const holders = this.holders.get(key);
    holders?.delete(id);
    if (holders?.size === 0) this.holders.delete(key);
  }

  private prune(except: readonly (string | undefined)[]): void {
    const { maxResponses, maxBytes, maxAgeSeconds } = this.limits;
    const oldest = this.now() - maxAgeSeconds;
    for (const [id, entry] of this.entries) {
      if (this.entries.size <= maxResponses && this.bytes <= maxBytes && entry.usedAt >= oldest) break;
      if (except.includes(id)) continue;
      if (entry.kind === 'conversation' || isTerminal(entry.stored.response.status)) this.remove(id);
    }
  }
}

function keyOf(owner: string, id: string): string {
  return `${owner} ${id}`;
}
