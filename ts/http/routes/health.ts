import type { ListedModel } from '../../app/types.js';
import type { Services } from '../context.js';
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
    const { status, body } = await stateOf(context.services);
    sendJson(context, status, body);
  },
};

/** What it takes to know how the server is. */
export type StateServices = Pick<Services, 'registry' | 'drain' | 'warnOnce'>;

export async function stateOf(services: StateServices): Promise<{ readonly status: number; readonly body: object }> {
  const models = await listOrNone(services);
  const idsIn = (state: ListedModel['state']): string[] =>
    models.filter((model) => model.state === state).map((model) => model.id);
  const { draining } = services.drain;
  return {
    // Not 200 while it ends: whoever balances load shall look elsewhere.
    status: draining ? 503 : 200,
    body: { status: draining ? 'draining' : 'ok', models: idsIn('ready'), loading: idsIn('loading') },
  };
}

/** A cache that cannot be read does not make the server dead. */
async function listOrNone({ registry, warnOnce }: StateServices): Promise<readonly ListedModel[]> {
  try {
    return await registry.list();
  } catch (error) {
    warnOnce(`the models cannot be listed: ${String(error)}`);
    return [];
  }
}
