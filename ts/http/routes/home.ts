import { sendJson, sendText } from '../respond.js';
import type { Route } from './route.js';

/** What is here, for a person who opens the address, or as JSON for a program that asks for it. */
export const home: Route = {
  method: 'GET',
  path: '/',
  summary: 'this page',
  answer: { json: 'Home', text: true },
  async handle(context) {
    const { registry, routes } = context.services;
    const models = (await registry.list()).map(({ id, state }) => ({ id, state }));
    const endpoints = routes.map(({ method, path, summary }) => ({ method, path: readable(path), summary }));
    if (context.req.headers.accept?.includes('application/json') === true) {
      sendJson(context, 200, { name: 'tsserve', endpoints, models });
      return;
    }
    const lines = [
      'tsserve: local models behind the OpenAI API',
      '',
      ...endpoints.map(({ method, path, summary }) => `${method.padEnd(6)} ${path.padEnd(33)} ${summary}`),
      '',
      models.length === 0 ? 'No models are listed.' : 'Models:',
      ...models.map(({ id, state }) => `  ${id} (${state})`),
      '',
    ];
    sendText(context, 200, lines.join('\n'), { 'content-type': 'text/plain; charset=utf-8' });
  },
};

function readable(path: string): string {
  return path.replace(/[*:](\w+)/g, '{$1}');
}
