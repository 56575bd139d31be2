/** What the routes of the Responses API share. */

import type { ServedModel } from '../../app/types.js';
import type { CreateResponse } from '../../protocol/responses.js';
import { BackgroundRuns } from '../../responses/background.js';
import { failInterrupted } from '../../responses/interrupted.js';
import type { ResponseLoop } from '../../responses/run.js';
import type { ResponseStore } from '../../responses/store.js';
import type { Logger } from '../logger.js';

/** Makes what runs a response's tools; undefined where it has none to run. Throws ApiError for tools it cannot run. */
export type ResponseLoopFactory = (request: CreateResponse, model: ServedModel) => ResponseLoop | undefined;

export interface ResponseServices {
  /** Undefined: nothing is stored. */
  readonly kept: { readonly store: ResponseStore; readonly background: BackgroundRuns } | undefined;
  readonly loop: ResponseLoopFactory | undefined;
}

export function createResponses(
  store: ResponseStore | undefined,
  loop: ResponseLoopFactory | undefined,
  logger: Logger,
): ResponseServices {
  if (store === undefined) return { kept: undefined, loop };
  failInterrupted(store);
  const background = new BackgroundRuns(store, (id, error) => {
    const detail = error instanceof Error ? (error.stack ?? error.message) : String(error);
    logger.error(`the end of ${id} is not stored: ${detail}`);
  });
  return { kept: { store, background }, loop };
}
