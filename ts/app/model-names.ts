/** The names a model goes by. Ids are `repo`, `repo@revision`, `repo:FILE`, or the base name of something local. */

import { EngineError } from '../engine/types.js';

/** One name for all spellings of the same files: `@main` is what the hub serves without a revision. */
export function canonicalId(id: string): string {
  return id.replace(/@main(?=$|:)/, '');
}

/**
 * Every id that means the model given at start: as it was written, without or with `@main`, by its base name, and,
 * once it is loaded, as the engine calls it.
 */
export function namesOf(model: string, served: string | undefined, loadedId: string | undefined): ReadonlySet<string> {
  const names = new Set<string>();
  for (const name of [model, loadedId]) {
    if (name === undefined) continue;
    names.add(name);
    names.add(canonicalId(name));
    for (const base of baseNames(name)) names.add(base);
  }
  if (served !== undefined) names.add(served);
  return names;
}

/** The name to list: what was asked for with `--served-model-name`, else the engine's id, else what it will be. */
export function displayName(model: string, served: string | undefined, loadedId: string | undefined): string {
  return served ?? loadedId ?? (isLocalPath(model) ? (baseNames(model).at(-1) ?? model) : canonicalId(model));
}

/** Whoever made it: the part before the slash of a repository. */
export function ownerOf(id: string): string {
  const slash = id.indexOf('/');
  return slash > 0 && !isLocalPath(id) ? id.slice(0, slash) : 'local';
}

/**
 * A request may name repositories and what is in the cache, but no paths: who can reach the server could otherwise
 * look around on its disk. Throws EngineError `model_not_found`.
 */
export function requireRepositoryId(id: string): void {
  const part = String.raw`[\w][\w.-]*`;
  const pattern = new RegExp(`^${part}(/${part})?(@[\\w][\\w./-]*)?(:[\\w][\\w./-]*)?$`);
  const file = id.split(':')[1];
  const isModel = file === undefined || isModelFile(file);
  if (id.length <= 256 && pattern.test(id) && isModel && !id.includes('..')) return;
  throw new EngineError('model_not_found', `the model '${id.slice(0, 256)}' does not exist`, 'model');
}

function isLocalPath(model: string): boolean {
  return (
    /^([./\\~]|[A-Za-z]:[\\/])/.test(model) ||
    (isModelFile(model) && !model.includes(':')) ||
    model.split('/').length > 2
  );
}

/** A file that is a model by itself, as its name says: `.gguf`, or whisper.cpp's `ggml-….bin`. */
function isModelFile(path: string): boolean {
  return /(^|[\\/:])([^\\/]+\.gguf|ggml[^\\/]*\.bin)$/i.test(path);
}

/** The last part of a path or repository, with and without what says that it is a file. */
function baseNames(model: string): string[] {
  const file = model
    .replace(/[\\/]+$/, '')
    .split(/[\\/]/)
    .at(-1);
  if (file === undefined || file === '') return [];
  const base = isLocalPath(model) ? file : canonicalId(file);
  return isModelFile(base) ? [base, base.replace(/\.\w+$/, '')] : [base];
}
