/** Conversations: lists of items that responses are asked in and add to. */

import {
  CONVERSATION_FIELDS,
  CONVERSATION_ITEMS_FIELDS,
  CONVERSATION_UPDATE_FIELDS,
  type ConversationObject,
  type DeletedConversation,
  parseCreateConversation,
  parseNewItems,
  parseUpdateConversation,
} from '../../protocol/conversations.js';
import { ApiError } from '../../protocol/errors.js';
import { conversationNotFound, identified, refuseKnown } from '../../responses/context.js';
import { newId } from '../../responses/ids.js';
import type { CallerStore } from '../../responses/store.js';
import { readJson } from '../body.js';
import type { RequestContext } from '../context.js';
import { listOf, PAGE_QUERY, pageOf, queryOf, unknownAfter } from '../paging.js';
import { sendJson } from '../respond.js';
import { unixSeconds } from './common.js';
import type { Route } from './route.js';

const PATH = '/v1/conversations';

const createConversation: Route = {
  method: 'POST',
  path: PATH,
  summary: 'begin a conversation, with items if you like',
  body: { fields: CONVERSATION_FIELDS, required: [] },
  answer: { json: 'Conversation' },
  async handle(context) {
    const store = storeOf(context);
    const asked = parseCreateConversation(await readJson(context), context.parseOptions(PATH));
    const items = identified(asked.items, 'items', store);
    const conversation: ConversationObject = {
      id: newId('conv'),
      object: 'conversation',
      created_at: unixSeconds(),
      metadata: asked.metadata,
    };
    refuseKnown(items, 'items', conversation.id, store.conversations);
    store.conversations.create(conversation, items);
    sendJson(context, 200, conversation);
  },
};

const getConversation: Route = {
  method: 'GET',
  path: `${PATH}/:id`,
  summary: 'a conversation, without its items',
  answer: { json: 'Conversation' },
  async handle(context, { id }) {
    sendJson(context, 200, found(storeOf(context), id));
  },
};

const updateConversation: Route = {
  method: 'POST',
  path: `${PATH}/:id`,
  summary: 'replace the metadata of a conversation',
  body: { fields: CONVERSATION_UPDATE_FIELDS, required: ['metadata'] },
  answer: { json: 'Conversation' },
  async handle(context, { id }) {
    const store = storeOf(context);
    found(store, id);
    const metadata = parseUpdateConversation(await readJson(context), context.parseOptions(`${PATH}/{id}`));
    const updated: ConversationObject = { ...found(store, id), metadata };
    store.conversations.update(updated);
    sendJson(context, 200, updated);
  },
};

const deleteConversation: Route = {
  method: 'DELETE',
  path: `${PATH}/:id`,
  summary: 'forget a conversation; its responses stay',
  answer: { json: 'DeletedConversation' },
  async handle(context, { id }) {
    if (!storeOf(context).conversations.delete(id)) throw conversationNotFound(id, 'id');
    const deleted: DeletedConversation = { id, object: 'conversation.deleted', deleted: true };
    sendJson(context, 200, deleted);
  },
};

const conversationItems: Route = {
  method: 'GET',
  path: `${PATH}/:id/items`,
  summary: 'the items of a conversation, a page at a time',
  query: PAGE_QUERY,
  answer: { json: 'ItemList' },
  async handle(context, { id }) {
    const store = storeOf(context);
    found(store, id);
    const page = pageOf(queryOf(context));
    const items = store.conversations.items(id, { ...page, limit: page.limit + 1 });
    if (items === undefined) throw unknownAfter('conversation');
    sendJson(context, 200, listOf(items, page.limit));
  },
};

const addItems: Route = {
  method: 'POST',
  path: `${PATH}/:id/items`,
  summary: 'add items to the end of a conversation',
  body: { fields: CONVERSATION_ITEMS_FIELDS, required: ['items'] },
  answer: { json: 'ItemList' },
  async handle(context, { id }) {
    const store = storeOf(context);
    found(store, id);
    const asked = parseNewItems(await readJson(context), context.parseOptions(`${PATH}/{id}/items`));
    found(store, id);
    const items = identified(asked, 'items', store);
    refuseKnown(items, 'items', id, store.conversations);
    store.conversations.append(id, items);
    sendJson(context, 200, listOf(items));
  },
};

const getItem: Route = {
  method: 'GET',
  path: `${PATH}/:id/items/:item`,
  summary: 'one item of a conversation',
  answer: { json: 'Item' },
  async handle(context, { id, item }) {
    const store = storeOf(context);
    found(store, id);
    const held = store.conversations.item(id, item);
    if (held === undefined) throw itemNotFound(item);
    sendJson(context, 200, held);
  },
};

const deleteItem: Route = {
  method: 'DELETE',
  path: `${PATH}/:id/items/:item`,
  summary: 'take an item out of a conversation',
  answer: { json: 'Conversation' },
  async handle(context, { id, item }) {
    const store = storeOf(context);
    const conversation = found(store, id);
    if (!store.conversations.deleteItem(id, item)) throw itemNotFound(item);
    sendJson(context, 200, conversation);
  },
};

export const CONVERSATION_ROUTES: readonly Route[] = [
  createConversation,
  getConversation,
  updateConversation,
  deleteConversation,
  conversationItems,
  addItems,
  getItem,
  deleteItem,
];

/** The caller's own. @throws ApiError 404: nothing is stored */
function storeOf({ services, caller }: RequestContext): CallerStore {
  const { kept } = services.responses;
  if (kept !== undefined) return kept.storeOf(caller);
  throw notFound('this server stores no conversations');
}

function found(store: CallerStore, id: string): ConversationObject {
  const conversation = store.conversations.get(id);
  if (conversation === undefined) throw conversationNotFound(id, 'id');
  return conversation;
}

function itemNotFound(id: string): ApiError {
  return notFound(`item with id ${JSON.stringify(id.slice(0, 80))} not found in this conversation`);
}

function notFound(message: string): ApiError {
  return new ApiError({ status: 404, type: 'not_found_error', code: 'not_found', param: 'id', message });
}
