import { describeApi } from '../openapi.js';
import { sendJson } from '../respond.js';
import type { Route } from './route.js';

export const openapi: Route = {
  method: 'GET',
  path: '/openapi.json',
  summary: 'this API, described for programs',
  async handle(context) {
    const { routes, hasKeys } = context.services;
    sendJson(context, 200, describeApi(routes, { keys: hasKeys }));
  },
};
