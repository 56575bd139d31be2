/** What a model answers, and what is said where it is asked for something else. */

import { EngineError, type LoadedModel } from '../engine/types.js';

/** Undefined if the model is of that kind, else a sentence that says what it is. */
export function kindProblem(info: Pick<LoadedModel, 'id' | 'kind'>, wanted: LoadedModel['kind']): string | undefined {
  if (info.kind === wanted) return undefined;
  return wanted === 'text'
    ? `'${info.id}' is a speech model: it transcribes recordings and cannot write answers`
    : `'${info.id}' is a language model: it cannot transcribe recordings, as a model like openai/whisper-base can`;
}

/** @throws EngineError `invalid_request` */
export function requireKind(info: Pick<LoadedModel, 'id' | 'kind'>, wanted: LoadedModel['kind']): void {
  const problem = kindProblem(info, wanted);
  if (problem !== undefined) throw new EngineError('invalid_request', problem, 'model');
}
