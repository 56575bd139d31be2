import type { ListedModel } from '../../app/types.js';
import type { WireModel, WireModelList } from '../../protocol/models.js';
import { modelNotFound } from '../acquire.js';
import { sendJson } from '../respond.js';
import type { Route } from './route.js';

export const models: Route = {
  method: 'GET',
  path: '/v1/models',
  summary: 'the models that can be asked for',
  answer: { json: 'ModelList' },
  async handle(context) {
    const list: WireModelList = { object: 'list', data: (await context.services.registry.list()).map(toWire) };
    sendJson(context, 200, list);
  },
};

/** Hub ids hold a slash: clients send it plain or encoded. */
export const model: Route = {
  method: 'GET',
  path: '/v1/models/*id',
  summary: 'one model, with its context length',
  answer: { json: 'Model' },
  async handle(context, { id }) {
    const found = await context.services.registry.find(id);
    if (found === undefined) throw modelNotFound(id);
    sendJson(context, 200, toWire(found));
  },
};

function toWire({ id, created, ownedBy, state, contextLength }: ListedModel): WireModel {
  const length = contextLength === undefined ? {} : { context_length: contextLength, max_model_len: contextLength };
  return { id, object: 'model', created, owned_by: ownedBy, state, ...length };
}
