import { ApiError, invalidValue, unsupportedParameter } from '../../protocol/errors.js';
import { checkFields } from '../../protocol/field-table.js';
import { fieldsOf, nonEmptyString, string } from '../../protocol/fields.js';
import { parseInput } from '../../protocol/response-input.js';
import { isTerminalEvent, type ResponseEvent } from '../../protocol/response-events.js';
import {
  type DeletedResponse,
  type InputTokens,
  type ResponseCompaction,
  type ResponseObject,
} from '../../protocol/response-object.js';
import {
  COMPACT_FIELDS,
  type CreateResponse,
  INPUT_TOKENS_FIELDS,
  parseCreateResponse,
  RESPONSE_FIELDS,
} from '../../protocol/responses.js';
import { compact } from '../../responses/compaction.js';
import { resolveContext } from '../../responses/context.js';
import { newId } from '../../responses/ids.js';
import type { BackgroundRuns } from '../../responses/background.js';
import type { CallerStore, StoredResponse } from '../../responses/store.js';
import { toChatRequest } from '../../responses/to-chat.js';
import { acquireModelFor } from '../acquire.js';
import { readJson } from '../body.js';
import type { RequestContext } from '../context.js';
import { ClientGoneError } from '../errors.js';
import { integerOf, listOf, PAGE_QUERY, pageOf, queryOf, unknownAfter } from '../paging.js';
import { reportError, sendJson } from '../respond.js';
import { loopFor, PendingResponse, PROMPT_PARAM, unfinished } from '../responses/create.js';
import { keepEnd, type KeptResponses } from '../responses/services.js';
import { SseStream } from '../sse.js';
import { unixSeconds } from './common.js';
import type { Route } from './route.js';

const PATH = '/v1/responses';

export const createResponse: Route = {
  method: 'POST',
  path: PATH,
  summary: 'answer with a response, streaming or not, or in the background; also a WebSocket',
  body: { fields: RESPONSE_FIELDS, required: [] },
  answer: { json: 'Response', event: 'ResponseEvent' },
  async handle(context) {
    context.promptParam = PROMPT_PARAM;
    const parsed = parseCreateResponse(await readJson(context), context.parseOptions(PATH));
    const { kept } = context.services.responses;
    const request = kept === undefined ? { ...parsed, store: false } : parsed;
    if (request.background) await background(context, request);
    else if (request.stream) await streamEvents(context, pendingOf(context, request).events());
    else sendJson(context, 200, await whole(context, request));
  },
};

export const getResponse: Route = {
  method: 'GET',
  path: `${PATH}/:id`,
  summary: 'a stored response; with stream=true the events of one that runs in the background',
  query: {
    stream: { schema: { type: 'boolean' }, note: 'its events instead of what it is now' },
    starting_after: { schema: { type: 'integer', minimum: 0 }, note: 'only events with a higher sequence_number' },
  },
  answer: { json: 'Response', event: 'ResponseEvent' },
  async handle(context, { id }) {
    const { response } = stored(context, id);
    const { background: runs, storeOf } = keptOf(context);
    const query = queryOf(context);
    if (query.get('stream') !== 'true') {
      sendJson(context, 200, response);
      return;
    }
    if (!response.background) {
      throw invalidValue('stream', 'needs a response that was created with background');
    }
    const after = integerOf(query, 'starting_after', 0, Number.MAX_SAFE_INTEGER) ?? -1;
    await streamEvents(context, runs.follow(storeOf(context.caller), id, after, context.signal));
  },
};

export const deleteResponse: Route = {
  method: 'DELETE',
  path: `${PATH}/:id`,
  summary: 'forget a stored response; one that still runs is cancelled',
  answer: { json: 'DeletedResponse' },
  async handle(context, { id }) {
    const { storeOf, background: runs } = keptOf(context);
    const store = storeOf(context.caller);
    if (store.get(id) === undefined) throw notFound(id);
    await runs.cancel(id);
    store.delete(id);
    const deleted: DeletedResponse = { id, object: 'response', deleted: true };
    sendJson(context, 200, deleted);
  },
};

export const cancelResponse: Route = {
  method: 'POST',
  path: `${PATH}/:id/cancel`,
  summary: 'stop a response that runs in the background',
  answer: { json: 'Response' },
  async handle(context, { id }) {
    const { response } = stored(context, id);
    if (!response.background) throw badId(id, 'was not created with background, so it cannot be cancelled');
    await keptOf(context).background.cancel(id);
    sendJson(context, 200, stored(context, id).response);
  },
};

export const inputItems: Route = {
  method: 'GET',
  path: `${PATH}/:id/input_items`,
  summary: 'the items that a response was asked with',
  query: PAGE_QUERY,
  answer: { json: 'ItemList' },
  async handle(context, { id }) {
    const { limit, descending, after } = pageOf(queryOf(context));
    const { input } = stored(context, id);
    const items = descending ? input.toReversed() : input;
    const from = after === undefined ? 0 : items.findIndex((item) => item.id === after) + 1;
    if (after !== undefined && from === 0) throw unknownAfter('response');
    sendJson(context, 200, listOf(items.slice(from, from + limit + 1), limit));
  },
};

export const inputTokens: Route = {
  method: 'POST',
  path: `${PATH}/input_tokens`,
  summary: 'how many tokens a request would be',
  body: { fields: INPUT_TOKENS_FIELDS, required: [] },
  answer: { json: 'InputTokens' },
  async handle(context) {
    context.promptParam = PROMPT_PARAM;
    const options = context.parseOptions(`${PATH}/input_tokens`);
    const request = parseCreateResponse(await readJson(context), options, INPUT_TOKENS_FIELDS);
    const { services, caller, signal } = context;
    const asked = resolveContext(request, storeOf(context));
    // Offers what a run would, and runs nothing.
    await using loop = loopFor({ services, request, context: asked, caller }, undefined);
    using lease = await acquireModelFor('text', context, request.model);
    const { model } = lease;
    const first = toChatRequest(request, asked.items, { mcpName: loop?.mcpName });
    const offered = loop === undefined ? first : await loop.offer({ request: first, items: asked.items, signal });
    const prompt = await model.applyChatTemplate(offered);
    const ids = await model.engine.tokenize(model.info.handle, prompt, false);
    const counted: InputTokens = { object: 'response.input_tokens', input_tokens: ids.length };
    sendJson(context, 200, counted);
  },
};

/** No model is asked: nothing is summarised, and so nothing is made up. */
export const compactResponse: Route = {
  method: 'POST',
  path: `${PATH}/compact`,
  summary: 'a conversation as one item, without its reasoning',
  body: { fields: COMPACT_FIELDS, required: ['model'] },
  answer: { json: 'Compaction' },
  async handle(context) {
    const options = context.parseOptions(`${PATH}/compact`);
    const fields = fieldsOf(await readJson(context), '');
    checkFields(fields, COMPACT_FIELDS, options);
    fields.required('model', string);
    const request = {
      previousResponseId: fields.optional('previous_response_id', nonEmptyString),
      input: fields.optional('input', (value, path) => parseInput(value, path, options.warn)) ?? [],
    };
    const { items } = resolveContext(request, storeOf(context));
    const compaction: ResponseCompaction = {
      id: newId('resp'),
      object: 'response.compaction',
      created_at: unixSeconds(),
      output: [compact(items)],
      usage: {
        input_tokens: 0,
        input_tokens_details: { cached_tokens: 0, cache_write_tokens: 0 },
        output_tokens: 0,
        output_tokens_details: { reasoning_tokens: 0 },
        total_tokens: 0,
      },
    };
    sendJson(context, 200, compaction);
  },
};

/** @param onFailure told what ended the response after its beginning */
function pendingOf(
  context: RequestContext,
  request: CreateResponse,
  onFailure?: (error: unknown) => void,
): PendingResponse {
  const { services, signal, id, caller } = context;
  const store = storeOf(context);
  return new PendingResponse({
    services,
    request,
    context: resolveContext(request, store),
    signal,
    requestId: id,
    caller,
    // Before its end goes out: what a client has heard of is there, whatever happens to us.
    onEnd: (ended) => {
      if (store !== undefined && !request.background) keepEnd(store, request, ended);
    },
    onModel: (model) => {
      context.model = model;
    },
    onUsage: (usage) => {
      context.usage = usage;
    },
    ...(onFailure === undefined ? {} : { onFailure }),
  });
}

/** The last snapshot; a failure is an error like any other. */
async function whole(context: RequestContext, request: CreateResponse): Promise<ResponseObject> {
  let last: ResponseEvent | undefined;
  const failures: unknown[] = [];
  for await (const event of pendingOf(context, request, (error) => failures.push(error)).events()) {
    if (context.signal.aborted) throw new ClientGoneError();
    last = event;
  }
  if (failures.length > 0) throw failures[0];
  if (last === undefined || !isTerminalEvent(last)) throw unfinished();
  return last.response;
}

async function background(context: RequestContext, request: CreateResponse): Promise<void> {
  const { kept } = context.services.responses;
  if (kept === undefined) throw unsupportedParameter('background', 'this server stores no responses');
  const { background: runs } = kept;
  if (runs.isFull) throw tooMany();
  const named = await nameOf(context, request.model);
  const pending = pendingOf(context, { ...request, model: named });
  const store = kept.storeOf(context.caller);
  const response = await queued(runs, store, pending);
  if (request.stream) await streamEvents(context, runs.follow(store, response.id, -1, context.signal));
  else sendJson(context, 200, response);
}

async function queued(runs: BackgroundRuns, store: CallerStore, pending: PendingResponse): Promise<ResponseObject> {
  try {
    return runs.start(store, pending.machine, pending.input, (signal) => pending.events(true, signal));
  } catch (error) {
    await pending.abandon();
    throw error;
  }
}

/** A model that is listed is loaded in the background; any other has to show first that it is there. */
async function nameOf(context: RequestContext, model: string | undefined): Promise<string> {
  if (model !== undefined && (await context.services.registry.find(model)) !== undefined) return model;
  using lease = await acquireModelFor('text', context, model);
  return lease.model.id;
}

async function streamEvents(context: RequestContext, events: AsyncIterable<ResponseEvent>): Promise<void> {
  using sse = new SseStream(context);
  try {
    for await (const event of events) await sse.send(event, event.type);
    await sse.end();
  } catch (error) {
    // Until the status is out the error is an ordinary one.
    if (!sse.started || context.signal.aborted) throw error;
    sse.fail(reportError(context, error).toEnvelope());
  }
}

function keptOf(context: RequestContext): KeptResponses {
  const { kept } = context.services.responses;
  if (kept !== undefined) return kept;
  throw new ApiError({
    status: 404,
    type: 'not_found_error',
    code: 'not_found',
    message: 'this server stores no responses',
  });
}

/** The caller's own; undefined: nothing is stored. */
function storeOf({ services, caller }: RequestContext): CallerStore | undefined {
  return services.responses.kept?.storeOf(caller);
}

function stored(context: RequestContext, id: string): StoredResponse {
  const { storeOf: own, background: runs } = keptOf(context);
  const found = own(context.caller).get(id);
  if (found === undefined) throw notFound(id);
  const running = runs.snapshot(id);
  return running === undefined ? found : { ...found, response: running };
}

function notFound(id: string): ApiError {
  const message = `response with id ${JSON.stringify(id.slice(0, 80))} not found`;
  return new ApiError({ status: 404, type: 'not_found_error', code: 'not_found', param: 'id', message });
}

function badId(id: string, problem: string): ApiError {
  const message = `response ${JSON.stringify(id.slice(0, 80))} ${problem}`;
  return new ApiError({ status: 400, type: 'invalid_request_error', code: 'invalid_value', param: 'id', message });
}

function tooMany(): ApiError {
  return new ApiError({
    status: 429,
    type: 'rate_limit_error',
    code: 'rate_limit_exceeded',
    message: 'too many responses run in the background',
    headers: { 'retry-after': '5' },
  });
}
