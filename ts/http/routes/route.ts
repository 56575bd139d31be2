/** A route is data: what app.ts mounts, what `GET /` lists, what a 405 allows. */

import type { RequestContext } from '../context.js';

export interface Route {
  readonly method: 'GET' | 'POST' | 'DELETE';
  /** Express's syntax. */
  readonly path: string;
  /** One line for people. */
  readonly summary: string;
  /** Needs no API key. */
  readonly open?: true;
  /** Throws what toApiError understands. `id` is the segment `:id` or, where the path ends in `*id`, its rest, decoded. */
  handle(context: RequestContext, parameters: { readonly id: string }): Promise<void>;
}
