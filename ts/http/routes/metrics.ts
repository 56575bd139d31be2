import { sendText } from '../respond.js';
import type { Route } from './route.js';

export const metrics: Route = {
  method: 'GET',
  path: '/metrics',
  summary: 'counters and times, for Prometheus',
  answer: { text: true },
  async handle(context) {
    const { metrics } = context.services;
    sendText(context, 200, await metrics.text(), { 'content-type': metrics.contentType });
  },
};
