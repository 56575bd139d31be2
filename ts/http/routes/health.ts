import type { ListedModel } from '../../app/types.js';
import type { RequestContext } from '../context.js';
import { sendJson } from '../respond.js';
import type { Route } from './route.js';

/** Answers as long as the process does, also while models load. */
export const health: Route = {
  method: 'GET',
  path: '/health',
  summary: 'whether the server is alive, and which models are ready',
  open: true,
  answer: { json: 'Health' },
  async handle(context) {
    const models = await listOrNone(context);
    const idsIn = (state: ListedModel['state']): string[] =>
      models.filter((model) => model.state === state).map((model) => model.id);
    const { draining } = context.services.drain;
    // Not 200 while it ends: whoever balances load shall look elsewhere.
    sendJson(context, draining ? 503 : 200, {
      status: draining ? 'draining' : 'ok',
      models: idsIn('ready'),
      loading: idsIn('loading'),
    });
  },
};

/** A cache that cannot be read does not make the server dead. */
async function listOrNone(context: RequestContext): Promise<readonly ListedModel[]> {
  try {
    return await context.services.registry.list();
  } catch (error) {
    context.services.warnOnce(`the models cannot be listed: ${String(error)}`);
    return [];
  }
}
