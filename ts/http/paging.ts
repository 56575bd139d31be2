/** Lists of items, a page at a time, and what a query says of them. */

import { invalidValue } from '../protocol/errors.js';
import type { ItemList } from '../protocol/response-object.js';
import type { StoredItem } from '../protocol/response-items.js';
import type { ItemPage } from '../responses/store.js';
import type { RequestContext } from './context.js';
import type { Route } from './routes/route.js';

const MAX_PAGE = 100;
const DEFAULT_PAGE = 20;

/** For the API's description. */
export const PAGE_QUERY: NonNullable<Route['query']> = {
  limit: { schema: { type: 'integer', minimum: 1, maximum: MAX_PAGE }, note: `${DEFAULT_PAGE} if absent` },
  order: { schema: { enum: ['asc', 'desc'] }, note: 'desc if absent: the newest first' },
  after: { schema: { type: 'string' }, note: 'the id of the item before the page' },
};

export interface PageQuery extends ItemPage {
  readonly descending: boolean;
  readonly limit: number;
}

/** `limit`, `order` (the newest first by default) and `after`. @throws ApiError 400 */
export function pageOf(query: URLSearchParams): PageQuery {
  const limit = integerOf(query, 'limit', 1, MAX_PAGE) ?? DEFAULT_PAGE;
  const order = query.get('order') ?? 'desc';
  if (order !== 'asc' && order !== 'desc') throw invalidValue('order', "must be 'asc' or 'desc'");
  const after = query.get('after');
  return { limit, descending: order === 'desc', ...(after === null ? {} : { after }) };
}

/** @param found from the page's first item on, one more than the page holds if there is more */
export function listOf(found: readonly StoredItem[], limit = found.length): ItemList {
  const data = found.slice(0, limit);
  return {
    object: 'list',
    data,
    first_id: data[0]?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
    has_more: found.length > limit,
  };
}

export function unknownAfter(whose: string): Error {
  return invalidValue('after', `names no item of this ${whose}`);
}

export function queryOf(context: RequestContext): URLSearchParams {
  return new URLSearchParams((context.req.url ?? '').replace(/^[^?]*\??/, ''));
}

export function integerOf(query: URLSearchParams, name: string, min: number, max: number): number | undefined {
  const text = query.get(name);
  if (text === null) return undefined;
  const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= min && value <= max)) throw invalidValue(name, `must be an integer from ${min} to ${max}`);
  return value;
}
