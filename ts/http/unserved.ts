/** What to say of a path that is not served: which API it belongs to, or how it is spelt here. */

import { ApiError } from '../protocol/errors.js';
import type { Route } from './routes/route.js';

/** First segments after `/v1/` of OpenAI's API. What is served is answered by its route before anyone looks here. */
const OPENAI_PATHS: ReadonlySet<string> = new Set([
  'assistants',
  'audio',
  'batches',
  'chat',
  'chatkit',
  'completions',
  'containers',
  'conversations',
  'edits',
  'embeddings',
  'engines',
  'evals',
  'files',
  'fine_tuning',
  'fine-tunes',
  'images',
  'models',
  'moderations',
  'organization',
  'realtime',
  'responses',
  'skills',
  'threads',
  'uploads',
  'vector_stores',
  'videos',
]);

/** 404 in OpenAI's envelope that names what is served. @param path as it came, without the query */
export function unservedPath(method: string, path: string, routes: readonly Route[]): ApiError {
  const shown = path.length > 200 ? `${path.slice(0, 200)}…` : path;
  return new ApiError({
    status: 404,
    type: 'not_found_error',
    code: 'unknown_url',
    message: `${method} ${shown} is not served here${reason(path, routes)}`,
  });
}

function reason(path: string, routes: readonly Route[]): string {
  const meant = respelt(path, routes);
  if (meant !== undefined) return `: the path is ${meant} (check the base URL, which ends in /v1 once)`;
  const [, version, segment = ''] = path.split('/');
  if (version !== 'v1' || !OPENAI_PATHS.has(segment)) return '; GET / lists what is';
  const served = routes.filter((route) => route.path.startsWith('/v1/')).map(nameOf);
  return `: this part of OpenAI's API is not available; served are ${served.join(', ')}`;
}

/** The route's path if only its `/v1` is missing or doubled: the usual slip with base URLs. */
function respelt(path: string, routes: readonly Route[]): string | undefined {
  const rest = path.replace(/^(\/v1)+(?=\/)/, '');
  return [rest, `/v1${rest}`].find(
    (candidate) => candidate !== path && routes.some((route) => route.path === candidate && route.path !== '/'),
  );
}

function nameOf({ method, path }: Route): string {
  return `${method} ${path.replace(/[*:](\w+)/g, '{$1}')}`;
}
