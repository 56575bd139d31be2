/**
 * Compaction: older items in one item. What is kept is everything the model will read again (messages, calls and their
 * outputs), word for word; reasoning and tool lists are dropped. `encrypted_content` is compressed JSON, not a secret:
 * whoever holds it can read it, and what it holds is checked again when it comes back.
 */

import { brotliCompressSync, brotliDecompressSync, constants } from 'node:zlib';

import { invalidValue } from '../protocol/errors.js';
import { parseJson } from '../protocol/json.js';
import { parseInput } from '../protocol/response-input.js';
import type { CompactionItem, ContextItem, WithId } from '../protocol/response-items.js';
import { type NewId, newId } from './ids.js';

const COMPACTION = 'tsserve-items-1:';
const REASONING = 'tsserve-reasoning-1:';

/** Bytes that one compaction may unfold to: as a request's body. */
export const MAX_UNFOLDED_BYTES = 32 * 1024 * 1024;
const MAX_DEPTH = 64;

/** Kept in a compaction. */
const LASTING: ReadonlySet<ContextItem['type']> = new Set([
  'message',
  'function_call',
  'function_call_output',
  'mcp_call',
]);

/** @param items without compactions: `unfold` them first */
export function compact(items: readonly ContextItem[], createId: NewId = newId): WithId<CompactionItem> {
  const kept = items.filter(({ type }) => LASTING.has(type));
  return { id: createId('cmp'), type: 'compaction', encrypted_content: encode(COMPACTION, JSON.stringify(kept)) };
}

/** The items with every compaction replaced by what it holds. @throws ApiError for one that is not ours */
export function unfold(items: readonly ContextItem[]): readonly ContextItem[] {
  return items.flatMap((item) => (item.type === 'compaction' ? contentOf(item) : [item]));
}

function contentOf({ encrypted_content: content }: CompactionItem): readonly ContextItem[] {
  const bytes = decode(COMPACTION, content);
  if (bytes === undefined) throw invalidValue('input', 'holds a compaction that was not made by this server');
  const items = parseInput(parseJson(bytes, MAX_DEPTH), 'input', () => undefined);
  return items.map((item) => {
    if (item.type === 'item_reference' || item.type === 'compaction') {
      throw invalidValue('input', `holds a compaction with ${item.type} in it`);
    }
    return item;
  });
}

/** For clients that store nothing but this field of a reasoning item. */
export function encodeReasoning(text: string): string {
  return encode(REASONING, text);
}

/** Undefined for what was not made here. */
export function decodeReasoning(content: string): string | undefined {
  const bytes = decode(REASONING, content);
  return bytes === undefined ? undefined : Buffer.from(bytes).toString('utf8');
}

function encode(prefix: string, text: string): string {
  const params = { [constants.BROTLI_PARAM_QUALITY]: 5 };
  return prefix + brotliCompressSync(Buffer.from(text), { params }).toString('base64');
}

function decode(prefix: string, content: string): Uint8Array | undefined {
  if (!content.startsWith(prefix)) return undefined;
  try {
    return brotliDecompressSync(Buffer.from(content.slice(prefix.length), 'base64'), {
      maxOutputLength: MAX_UNFOLDED_BYTES,
    });
  } catch {
    return undefined;
  }
}
