/** Ids as OpenAI's look: a prefix and 192 random bits, so that an id cannot be guessed. */

import { randomBytes } from 'node:crypto';

import type { ContextItem, StoredItem } from '../protocol/response-items.js';

export type IdPrefix =
  'resp' | 'msg' | 'rs' | 'fc' | 'fco' | 'call' | 'mcp' | 'mcpl' | 'mcpr' | 'mcpa' | 'cmp' | 'conv';

export type NewId = (prefix: IdPrefix) => string;

export const newId: NewId = (prefix) => `${prefix}_${randomBytes(24).toString('hex')}`;

const ITEM_PREFIXES: Readonly<Record<ContextItem['type'], IdPrefix>> = {
  message: 'msg',
  function_call: 'fc',
  function_call_output: 'fco',
  reasoning: 'rs',
  mcp_list_tools: 'mcpl',
  mcp_call: 'mcp',
  mcp_approval_request: 'mcpr',
  mcp_approval_response: 'mcpa',
  compaction: 'cmp',
};

/** The item with its own id, or a new one. */
export function withId(item: ContextItem, createId: NewId = newId): StoredItem {
  return { ...item, id: item.id ?? createId(ITEM_PREFIXES[item.type]) };
}
