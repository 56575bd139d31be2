/** Where responses and conversations are kept: what every store does, and its bounds. */

import { createHmac } from 'node:crypto';

import type { ConversationObject } from '../protocol/conversations.js';
import type { ResponseEvent } from '../protocol/response-events.js';
import type { ResponseObject } from '../protocol/response-object.js';
import type { StoredItem } from '../protocol/response-items.js';

export interface StoredResponse {
  /** Its last snapshot. */
  readonly response: ResponseObject;
  /** Items of its own request; those before are its predecessors' or its conversation's. */
  readonly input: readonly StoredItem[];
}

/** The oldest by last use goes first; responses that still run are never removed. */
export interface StoreLimits {
  /** Of all callers together; a conversation counts as one. */
  readonly maxResponses: number;
  /** Of JSON, over responses, inputs, events and conversations. */
  readonly maxBytes: number;
  /** Since the last use. */
  readonly maxAgeSeconds: number;
}

const DAY = 24 * 60 * 60;

/** 30 days, as at OpenAI. */
export const FILE_LIMITS: StoreLimits = { maxResponses: 10_000, maxBytes: 1024 ** 3, maxAgeSeconds: 30 * DAY };
export const MEMORY_LIMITS: StoreLimits = { maxResponses: 1_000, maxBytes: 64 * 1024 ** 2, maxAgeSeconds: DAY };

/** Answers to approvals that are remembered although nothing that is stored asked for them. */
export const MAX_LOOSE_APPROVALS = 100_000;

/** Synchronous: a write that has returned survives the death of the process (where the store survives it at all). */
export interface ResponseStore {
  /**
   * What belongs to one caller. For others it is not there: not to be read, continued, deleted or guessed at.
   * @param caller stands for an API key; undefined without keys, which is a caller like any other. It is kept only as a
   * hash, salted by the store
   */
  of(caller: string | undefined): CallerStore;
  /** Responses that are queued or in progress, whoever's: after a restart, those that nobody works on. */
  unfinished(): readonly { readonly id: string; readonly store: CallerStore }[];
  close(): void;
}

export interface CallerStore {
  /**
   * Adds a response, or replaces the snapshot of one. Its items can be found afterwards; if it has come to its end, they
   * are in its conversation too.
   */
  put(stored: StoredResponse): void;
  /** Counts as use. */
  get(id: string): StoredResponse | undefined;
  /** An item of any response, of its input or output, or of any conversation. */
  findItem(itemId: string): StoredItem | undefined;
  /** With its events. @returns whether it was there */
  delete(id: string): boolean;
  /** Events of a response that is there, in order. */
  appendEvents(id: string, events: readonly ResponseEvent[]): void;
  /** At most `limit` events with a higher sequence_number than `after`, in order. */
  events(id: string, after: number, limit: number): readonly ResponseEvent[];
  /**
   * Takes the one answer that an approval request can have. Remembered for as long as the request itself is stored, and
   * for the store's age anyway.
   * @returns false if it was answered before
   */
  claimApproval(approvalRequestId: string): boolean;
  /** Gives it back: nothing has come of the answer. */
  releaseApproval(approvalRequestId: string): void;
  readonly conversations: ConversationStore;
}

export interface ItemPage {
  /** Id of the item before the first one. */
  readonly after?: string;
  /** From the newest on. */
  readonly descending?: boolean;
  readonly limit?: number;
}

/** Methods that change an absent conversation do nothing. */
export interface ConversationStore {
  create(conversation: ConversationObject, items: readonly StoredItem[]): void;
  /** Counts as use. */
  get(id: string): ConversationObject | undefined;
  /** Its metadata. */
  update(conversation: ConversationObject): void;
  /** With its items; those of responses stay theirs. @returns whether it was there */
  delete(id: string): boolean;
  /** In order; undefined if `after` names none of them. */
  items(id: string, page?: ItemPage): readonly StoredItem[] | undefined;
  item(id: string, itemId: string): StoredItem | undefined;
  /** At the end; an id that is there already is left as it is. */
  append(id: string, items: readonly StoredItem[]): void;
  deleteItem(id: string, itemId: string): boolean;
  size(id: string): { readonly items: number; readonly bytes: number };
}

export interface StoreOptions {
  readonly limits?: Partial<StoreLimits>;
  /** Unix seconds; for tests. */
  readonly now?: () => number;
}

export function itemsOf({ response, input }: StoredResponse): readonly StoredItem[] {
  return [...input, ...response.output];
}

/** What a response adds to its conversation: everything, once it has come to its end; what failed or was cancelled, nothing. */
export function additionOf(
  stored: StoredResponse,
): { readonly id: string; readonly items: readonly StoredItem[] } | undefined {
  const { conversation, status } = stored.response;
  if (conversation === null || (status !== 'completed' && status !== 'incomplete')) return undefined;
  return { id: conversation.id, items: itemsOf(stored) };
}

/** Whom entries belong to. From a store that leaks no key can be found, nor which stores share one. */
export function ownerOf(salt: Uint8Array, caller: string | undefined): string {
  return createHmac('sha256', salt)
    .update(caller ?? '')
    .digest('hex')
    .slice(0, 32);
}
