/** The conversation that a response answers: what came before, from the store, then what came with the request. */

import { ApiError, invalidValue, unsupportedParameter } from '../protocol/errors.js';
import type { ContextItem, InputItem, StoredItem } from '../protocol/response-items.js';
import { isTerminal } from '../protocol/response-object.js';
import { unfold } from './compaction.js';
import { type NewId, newId, withId } from './ids.js';
import { type CallerStore, type ConversationStore, itemsOf, type StoredResponse } from './store.js';

export interface ContextSource extends Pick<CallerStore, 'get' | 'findItem'> {
  /** Undefined: there are none. */
  readonly conversations: Pick<ConversationStore, 'get' | 'items' | 'item' | 'size'> | undefined;
}

export interface Asked {
  readonly previousResponseId: string | undefined;
  readonly conversation?: string | undefined;
  readonly input: readonly InputItem[];
}

export interface ResponseContext {
  /** All of it, without references and compactions. */
  readonly items: readonly ContextItem[];
  /** The request's own, with ids. */
  readonly input: readonly StoredItem[];
}

/** Responses that follow each other, and the items they hold together. */
export const MAX_CHAIN_RESPONSES = 2_000;
export const MAX_CONTEXT_ITEMS = 100_000;
/** Of one conversation, as JSON; what it holds goes into every request. */
export const MAX_CONVERSATION_BYTES = 32 * 1024 * 1024;

/**
 * @param source undefined: nothing is stored
 * @throws ApiError 400: `previous_response_not_found`, a reference to nothing, an item twice, a foreign compaction, a
 * full conversation; 404: no such conversation
 */
export function resolveContext(
  request: Asked,
  source: ContextSource | undefined,
  createId: NewId = newId,
): ResponseContext {
  const { conversation } = request;
  const before =
    conversation === undefined
      ? chainOf(request.previousResponseId, source).flatMap(itemsOf)
      : conversationItems(conversation, source?.conversations);
  const input = identified(request.input, 'input', source, createId);
  if (conversation !== undefined) refuseKnown(input, 'input', conversation, source?.conversations);
  const items = unfold([...before, ...input]);
  if (items.length > MAX_CONTEXT_ITEMS) throw invalidValue('input', `makes a conversation of ${items.length} items`);
  return { items, input };
}

/** Items with ids; what is referred to in place of a reference. @throws ApiError 400 for a reference to nothing */
export function identified(
  items: readonly InputItem[],
  path: string,
  source: Pick<ContextSource, 'findItem'> | undefined,
  createId: NewId = newId,
): readonly StoredItem[] {
  return items.map((item, index) => {
    if (item.type !== 'item_reference') return withId(item, createId);
    const found = source?.findItem(item.id);
    if (found === undefined) throw invalidValue(`${path}[${index}].id`, 'names an item that is not stored here');
    return found;
  });
}

/** @throws ApiError 400 for an item that is in the conversation already, or comes twice, and for a conversation that is full */
export function refuseKnown(
  items: readonly StoredItem[],
  path: string,
  conversation: string,
  source: Pick<ConversationStore, 'item' | 'size'> | undefined,
): void {
  const seen = new Set<string>();
  for (const [index, { id }] of items.entries()) {
    if (seen.has(id) || source?.item(conversation, id) !== undefined) {
      throw invalidValue(`${path}[${index}].id`, 'names an item that is in the conversation already');
    }
    seen.add(id);
  }
  const size = source?.size(conversation);
  if (size !== undefined && (size.bytes > MAX_CONVERSATION_BYTES || size.items > MAX_CONTEXT_ITEMS)) {
    throw invalidValue('conversation', `is full (${size.items} items): begin another`);
  }
}

function conversationItems(id: string, source: ContextSource['conversations']): readonly StoredItem[] {
  if (source === undefined) throw unsupportedParameter('conversation', 'this server stores no conversations');
  if (source.get(id) === undefined) throw conversationNotFound(id, 'conversation');
  return source.items(id) ?? [];
}

export function conversationNotFound(id: string, param: string): ApiError {
  const message = `conversation with id ${JSON.stringify(id.slice(0, 80))} not found`;
  return new ApiError({ status: 404, type: 'not_found_error', code: 'not_found', param, message });
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
    const { conversation } = stored.response;
    // What came before it is in the conversation, and may have changed there.
    if (conversation !== null) {
      const name = JSON.stringify(conversation.id);
      throw invalidValue('previous_response_id', `names a response of the conversation ${name}: send that instead`);
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
