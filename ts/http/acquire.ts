/** The model that a request asks for. */

import { kindProblem } from '../app/model-kind.js';
import type { ModelLease } from '../app/types.js';
import { EngineError, type LoadedModel, type LoadProgress } from '../engine/types.js';
import { ApiError, missingParameter, unsupportedValue } from '../protocol/errors.js';
import type { Asker } from './context.js';
import { leaseFor } from './model-for.js';

/** What Hugging Face's clients send where their user names no model but a server: Python's this, JavaScript's the URL. */
const NO_MODEL = /^(?:dummy$|https?:\/\/)/;

/** One that answers what it is asked here. @throws ApiError 400 for one of the other kind */
export async function acquireModelFor(
  kind: LoadedModel['kind'],
  context: Asker,
  asked: string | undefined,
): Promise<ModelLease> {
  const lease = await acquireModel(context, asked);
  const problem = kindProblem(lease.model.info, kind);
  if (problem === undefined) return lease;
  lease[Symbol.dispose]();
  throw unsupportedValue('model', problem);
}

/**
 * Loads it if need be, whatever it answers; stops waiting when the client goes away.
 * @param asked undefined: the one that is served
 */
export async function acquireModel(
  context: Asker,
  asked: string | undefined,
  onProgress?: (progress: LoadProgress) => void,
): Promise<ModelLease> {
  const id = asked === undefined || NO_MODEL.test(asked) ? undefined : asked;
  try {
    const { signal } = context;
    const options = onProgress === undefined ? { signal } : { signal, onProgress };
    const lease = await context.services.registry.acquire(id, options);
    context.model = lease.model.info.id;
    return leaseFor(context, lease);
  } catch (error) {
    if (!(error instanceof EngineError)) throw error;
    if (id === undefined && (error.code === 'model_not_found' || error.code === 'invalid_request')) {
      throw missingParameter('model', 'this server has no default model');
    }
    if (id !== undefined && error.code === 'model_not_found') throw modelNotFound(id, error.message);
    throw error;
  }
}

/** 404 whose message holds the id. @param reason what is known about it */
export function modelNotFound(id: string, reason?: string): ApiError {
  const plain = `model '${id}' does not exist`;
  return new ApiError({
    status: 404,
    type: 'not_found_error',
    code: 'model_not_found',
    param: 'model',
    message: reason === undefined ? plain : reason.includes(id) ? reason : `${plain}: ${reason}`,
  });
}
