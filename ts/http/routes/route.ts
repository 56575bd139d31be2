/** A route is data: what app.ts mounts, what `GET /` lists, what a 405 allows. */

import type { FieldTable } from '../../protocol/field-table.js';
import type { AnswerName, JsonSchema } from '../../protocol/schemas.js';
import type { RequestContext } from '../context.js';

export interface Route {
  readonly method: 'GET' | 'POST' | 'DELETE';
  /** Express's syntax. */
  readonly path: string;
  /** One line for people. */
  readonly summary: string;
  /** Needs no API key. */
  readonly open?: true;
  /** The body it takes, for the API's description: JSON, or a form. */
  readonly body?: { readonly fields: FieldTable; readonly required: readonly string[]; readonly form?: true };
  /** What may stand behind the `?`, likewise. */
  readonly query?: Readonly<Record<string, { readonly schema: JsonSchema; readonly note: string }>>;
  /** What it answers, likewise: a JSON value, each event of a stream, text (plain, or of these types). Default: some JSON object. */
  readonly answer?: {
    readonly json?: AnswerName;
    readonly event?: AnswerName;
    readonly text?: true | readonly string[];
  };
  /** Throws what toApiError understands. */
  handle(context: RequestContext, parameters: PathParameters): Promise<void>;
}

/** Decoded; empty where the path has none. */
export interface PathParameters {
  /** The segment `:id` or, where the path ends in `*id`, its rest. */
  readonly id: string;
  /** The segment `:item`. */
  readonly item: string;
}

/** Who may ask: anyone who reaches the server, or only who shows a key (where the server has keys). */
export function authOf(route: Route): 'open' | 'key' {
  return route.open === true ? 'open' : 'key';
}
