/** `/v1/conversations`: what comes in and what goes out. */

import { invalidType, missingParameter } from './errors.js';
import { array, type Fields, fieldsOf } from './fields.js';
import { checkFields, type FieldTable, type ParseOptions } from './field-table.js';
import { parseItem } from './response-input.js';
import type { InputItem } from './response-items.js';
import { parseMetadata } from './responses.js';

export type Metadata = Readonly<Record<string, string>>;

export interface ConversationObject {
  readonly id: string;
  readonly object: 'conversation';
  /** Unix seconds. */
  readonly created_at: number;
  readonly metadata: Metadata;
}

export interface DeletedConversation {
  readonly id: string;
  readonly object: 'conversation.deleted';
  readonly deleted: true;
}

export interface CreateConversation {
  readonly items: readonly InputItem[];
  readonly metadata: Metadata;
}

/** As at OpenAI; a response's own items are not bounded by it. */
export const MAX_NEW_ITEMS = 20;

export const CONVERSATION_FIELDS = {
  items: { status: 'honoured', note: `at most ${MAX_NEW_ITEMS} items; what a conversation begins with` },
  metadata: { status: 'honoured', note: 'kept and shown' },
} as const satisfies FieldTable;

export const CONVERSATION_UPDATE_FIELDS = {
  metadata: { status: 'honoured', note: 'replaces what was there' },
} as const satisfies FieldTable;

export const CONVERSATION_ITEMS_FIELDS = {
  items: { status: 'honoured', note: `1 to ${MAX_NEW_ITEMS} items` },
} as const satisfies FieldTable;

/** @param body undefined: none was sent, as it may be */
export function parseCreateConversation(body: unknown, options: ParseOptions): CreateConversation {
  const fields = fieldsOf(body ?? {}, '');
  checkFields(fields, CONVERSATION_FIELDS, options);
  return {
    items: fields.raw('items') === undefined ? [] : parseItems(fields, options, 0),
    metadata: fields.optional('metadata', parseMetadata) ?? {},
  };
}

export function parseUpdateConversation(body: unknown, options: ParseOptions): Metadata {
  const fields = fieldsOf(body, '');
  checkFields(fields, CONVERSATION_UPDATE_FIELDS, options);
  // An explicit null empties it.
  if (!Object.hasOwn(fields.values, 'metadata')) throw missingParameter('metadata');
  return fields.optional('metadata', parseMetadata) ?? {};
}

export function parseNewItems(body: unknown, options: ParseOptions): readonly InputItem[] {
  const fields = fieldsOf(body, '');
  checkFields(fields, CONVERSATION_ITEMS_FIELDS, options);
  return parseItems(fields, options, 1);
}

/** Without traces of tools that run elsewhere: they are left out, with a warning. */
function parseItems(fields: Fields, { warn }: ParseOptions, min: number): readonly InputItem[] {
  return fields
    .required('items', (value, path) => {
      if (!Array.isArray(value)) throw invalidType(path, 'an array of items', value);
      return array((item, itemPath) => parseItem(item, itemPath, warn), min, MAX_NEW_ITEMS)(value, path);
    })
    .filter((item) => item !== undefined);
}
