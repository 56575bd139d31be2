/** Where responses are kept: what every store does, and its bounds. */

import type { ResponseEvent } from '../protocol/response-events.js';
import type { ResponseObject } from '../protocol/response-object.js';
import type { StoredItem } from '../protocol/response-items.js';

export interface StoredResponse {
  /** Its last snapshot. */
  readonly response: ResponseObject;
  /** Items of its own request; those before are its predecessors'. */
  readonly input: readonly StoredItem[];
}

/** The oldest by last use goes first; responses that still run are never removed. */
export interface StoreLimits {
  readonly maxResponses: number;
  /** Of JSON, over responses, inputs and events. */
  readonly maxBytes: number;
  /** Since the last use. */
  readonly maxAgeSeconds: number;
}

const DAY = 24 * 60 * 60;

/** 30 days, as at OpenAI. */
export const FILE_LIMITS: StoreLimits = { maxResponses: 10_000, maxBytes: 1024 ** 3, maxAgeSeconds: 30 * DAY };
export const MEMORY_LIMITS: StoreLimits = { maxResponses: 1_000, maxBytes: 64 * 1024 ** 2, maxAgeSeconds: DAY };

/**
 * Synchronous: a write that has returned survives the death of the process (where the store survives it at all).
 * Ids are unguessable and are the only key: whoever knows one may read it.
 */
export interface ResponseStore {
  /** Adds a response, or replaces the snapshot of one. Its items can be found afterwards. */
  put(stored: StoredResponse): void;
  /** Counts as use. */
  get(id: string): StoredResponse | undefined;
  /** An item of any response, of its input or output. */
  findItem(itemId: string): StoredItem | undefined;
  /** With its events. @returns whether it was there */
  delete(id: string): boolean;
  /** Events of a response that is there, in order. */
  appendEvents(id: string, events: readonly ResponseEvent[]): void;
  /** At most `limit` events with a higher sequence_number than `after`, in order. */
  events(id: string, after: number, limit: number): readonly ResponseEvent[];
  /** Ids of responses that are queued or in progress: after a restart, those that nobody works on. */
  unfinished(): readonly string[];
  close(): void;
}

export interface StoreOptions {
  readonly limits?: Partial<StoreLimits>;
  /** Unix seconds; for tests. */
  readonly now?: () => number;
}

export function itemsOf({ response, input }: StoredResponse): readonly StoredItem[] {
  return [...input, ...response.output];
}
