/** All routes. */

import { transcriptions, translations } from './audio.js';
import { chatCompletions } from './chat-completions.js';
import { completions } from './completions.js';
import { CONVERSATION_ROUTES } from './conversations.js';
import { health } from './health.js';
import { home } from './home.js';
import { loadModel, reset } from './load-model.js';
import { metrics } from './metrics.js';
import { model, models } from './models.js';
import {
  cancelResponse,
  compactResponse,
  createResponse,
  deleteResponse,
  getResponse,
  inputItems,
  inputTokens,
} from './responses.js';
import { openapi } from './openapi.js';
import type { Route } from './route.js';

export const ROUTES: readonly Route[] = [
  home,
  health,
  models,
  model,
  chatCompletions,
  completions,
  transcriptions,
  translations,
  createResponse,
  // Before `:id`, which they would match.
  inputTokens,
  compactResponse,
  getResponse,
  deleteResponse,
  cancelResponse,
  inputItems,
  ...CONVERSATION_ROUTES,
  loadModel,
  reset,
  metrics,
  openapi,
];
