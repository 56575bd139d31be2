/** The conversation that a response answers: what came before, from the store, then what came with the request. */

import { ApiError, invalidValue } from '../protocol/errors.js';
import type { ContextItem, InputItem, StoredItem } from '../protocol/response-items.js';
import { isTerminal } from '../protocol/response-object.js';
import { unfold } from './compaction.js';
import { type NewId, newId, withId } from './ids.js';
import type { ResponseStore, StoredResponse } from './store.js';

export type ContextSource = Pick<ResponseStore, 'get' | 'findItem'>;

export interface ResponseContext {
  /** All of it, without references and compactions. */
  readonly items: readonly ContextItem[];
  /** The request's own, with ids. */
  readonly input: readonly StoredItem[];
}

/** Responses that follow each other, and the items they hold together. */
export const MAX_CHAIN_RESPONSES = 2_000;
export const MAX_CONTEXT_ITEMS = 100_000;

/**
 * @param source undefined: nothing is stored
 * @throws ApiError 400: `previous_response_not_found`, a reference to nothing, a foreign compaction
 */
export function resolveContext(
  request: { readonly previousResponseId: string | undefined; readonly input: readonly InputItem[] },
  source: ContextSource | undefined,
  createId: NewId = newId,
): ResponseContext {
  const before = chainOf(request.previousResponseId, source).flatMap(({ input, response }) => [
    ...input,
    ...response.output,
  ]);
  const input = request.input.map((item, index) => {
    if (item.type !== 'item_reference') return withId(item, createId);
    const found = source?.findItem(item.id);
    if (found === undefined) throw invalidValue(`input[${index}].id`, 'names an item that is not stored here');
    return found;
  });
  const items = unfold([...before, ...input]);
  if (items.length > MAX_CONTEXT_ITEMS) throw invalidValue('input', `makes a conversation of ${items.length} items`);
  return { items, input };
}

/** Oldest first. Instructions are not carried over: they belong to one response. */
function chainOf(last: string | undefined, source: ContextSource | undefined): StoredResponse[] {
  const chain: StoredResponse[] = [];
  for (let id: string | null | undefined = last; typeof id === 'string';) {
    const stored: StoredResponse | undefined = source?.get(id);
    if (stored === undefined) throw previousNotFound(id);
    if (!isTerminal(stored.response.status)) {
      throw invalidValue('previous_response_id', `names a response that is still ${stored.response.status}`);
    }
    if (chain.length >= MAX_CHAIN_RESPONSES) {
      throw invalidValue('previous_response_id', `follows more than ${MAX_CHAIN_RESPONSES} responses`);
    }
    chain.push(stored);
    id = stored.response.previous_response_id;
  }
  return chain.reverse();
}

function previousNotFound(id: string): ApiError {
  return new ApiError({
    status: 400,
    type: 'invalid_request_error',
    code: 'previous_response_not_found',
    param: 'previous_response_id',
    message: `previous response with id ${JSON.stringify(id.slice(0, 80))} not found`,
  });
}
