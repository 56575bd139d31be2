/** Models by id: one that is pinned, or any of the hub's on demand. */

import { createLocalModel } from '../chat/local-model.js';
import { createTemplateRenderer, type TemplateRenderer } from '../chat/template.js';
import { EngineError, type CachedModel, type Engine, type LoadedModel, type LoadOptions } from '../engine/types.js';
import { canonicalId, displayName, namesOf, ownerOf, requireRepositoryId } from './model-names.js';
import { SharedLoad } from './shared-load.js';
import type { ListedModel, ModelLease, ModelRegistry, ServedModel } from './types.js';

/** What the registry tells; a subset of what every logger has. */
export interface RegistryLogger {
  info(message: string): void;
  warn(message: string): void;
}

export interface RegistryOptions {
  readonly engine: Engine;
  /** Serve exactly this model; requests need not name it. It is loaded by the first `acquire` and stays. */
  readonly pinned?: LoadOptions;
  /** How models are loaded on demand; for the pinned one, what its own options leave out. */
  readonly defaults: Omit<LoadOptions, 'model'>;
  /** A further name of the pinned model, and the one it is listed under. */
  readonly servedModelName?: string;
  /** Seconds after which an unused model is unloaded; 0: never. The pinned one stays. @default 0 */
  readonly modelTimeout?: number;
  /** What could be loaded on demand. Default: what the engine finds in the Hugging Face cache. */
  readonly listCached?: () => Promise<readonly CachedModel[]>;
  /** Default: an own one, closed with the registry. */
  readonly templates?: TemplateRenderer;
  readonly logger?: RegistryLogger;
}

type AcquireOptions = NonNullable<Parameters<ModelRegistry['acquire']>[1]>;

/** The engine stays the caller's: `close` unloads the models, not the engine. */
export function createRegistry(options: RegistryOptions): ModelRegistry {
  return new Registry(options);
}

/** A model on its way in, loaded, or in use. */
interface Entry {
  readonly key: string;
  readonly options: LoadOptions;
  readonly load: SharedLoad;
  loaded?: LoadedModel;
  /** Unix seconds of the load. */
  readonly created: number;
  leases: number;
  idle?: NodeJS.Timeout;
}

class Registry implements ModelRegistry {
  readonly #options: RegistryOptions;
  readonly #templates: TemplateRenderer;
  readonly #entries = new Map<string, Entry>();
  /** Models on their way out by key: the same one is not loaded again before its memory is free. */
  readonly #leaving = new Map<string, Promise<unknown>>();
  #closed = false;

  constructor(options: RegistryOptions) {
    this.#options = options;
    this.#templates = options.templates ?? createTemplateRenderer();
  }

  async acquire(id: string | undefined, { signal, onProgress }: AcquireOptions = {}): Promise<ModelLease> {
    for (;;) {
      if (this.#closed) throw new EngineError('closed', 'the server is shutting down');
      if (isAborted(signal)) {
        throw new EngineError('cancelled', 'the wait for the model was aborted', undefined, { cause: signal?.reason });
      }
      const entry = this.#entry(id);
      // Held from now on, so that it is not unloaded between the load's end and the lease.
      entry.leases += 1;
      clearTimeout(entry.idle);
      try {
        const info = entry.loaded ?? (await entry.load.wait(onProgress, signal));
        // The registry's own bookkeeping of the load is a promise behind; the facts are the same.
        entry.loaded ??= info;
        return this.#lease(entry, this.#serve(entry, id, info));
      } catch (error) {
        this.#release(entry);
        // Somebody else's abort ended the load just as this call joined it: start over.
        const foreign = error instanceof EngineError && error.code === 'cancelled' && !isAborted(signal);
        if (!foreign || !entry.load.aborted) throw error;
        await entry.load.settled.catch(() => undefined);
      }
    }
  }

  async list(): Promise<ListedModel[]> {
    const { pinned } = this.#options;
    if (pinned) return [this.#listPinned(pinned)];
    const cached = await this.#cached();
    const listed = new Map(cached.map((model) => [canonicalId(model.id), this.#listCached(model)]));
    for (const entry of this.#entries.values()) {
      if (!listed.has(entry.key)) listed.set(entry.key, listEntry(entry, entry.key));
    }
    return [...listed.values()];
  }

  async find(id: string): Promise<ListedModel | undefined> {
    const { pinned } = this.#options;
    if (pinned) return this.#isPinned(pinned, id) ? { ...this.#listPinned(pinned), id } : undefined;
    const entry = this.#entries.get(canonicalId(id));
    if (entry) return listEntry(entry, id);
    const cached = (await this.#cached()).find((model) => canonicalId(model.id) === canonicalId(id));
    return cached && { ...this.#listCached(cached), id };
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const leaving = [...this.#entries.values()].map(async (entry) => {
      clearTimeout(entry.idle);
      entry.load.abort();
      const loaded = await entry.load.settled.catch(() => undefined);
      if (loaded) await this.#options.engine.unload(loaded.handle).catch(() => undefined);
    });
    this.#entries.clear();
    await Promise.all([...leaving, ...this.#leaving.values()]);
    if (!this.#options.templates) await this.#templates.close();
  }

  /** The entry for an id, loading it if there is none. Throws if the id is not served. */
  #entry(id: string | undefined): Entry {
    const { pinned, defaults } = this.#options;
    if (pinned) {
      if (id === undefined || this.#isPinned(pinned, id))
        return this.#entries.get('') ?? this.#start('', { ...defaults, ...pinned });
      const served = this.#listPinned(pinned).id;
      throw new EngineError(
        'model_not_found',
        `the model '${id}' does not exist: this server serves '${served}'`,
        'model',
      );
    }
    if (id === undefined) throw new EngineError('invalid_request', 'model is required: no model is pinned', 'model');
    const key = canonicalId(id);
    const entry = this.#entries.get(key);
    if (entry) return entry;
    requireRepositoryId(id);
    return this.#start(key, { ...defaults, model: key, hubOnly: true });
  }

  #start(key: string, options: LoadOptions): Entry {
    const { engine, logger } = this.#options;
    const load = new SharedLoad(async (onProgress, signal) => {
      await this.#leaving.get(key);
      logger?.info(`loading ${options.model}`);
      const loaded = await engine.load(options, onProgress, signal);
      if (!signal.aborted) return loaded;
      // Aborted too late for the engine to notice.
      await engine.unload(loaded.handle);
      throw new EngineError('cancelled', 'the load was aborted');
    });
    const entry: Entry = { key, options, load, created: Math.floor(Date.now() / 1000), leases: 0 };
    this.#entries.set(key, entry);
    load.settled.then(
      (loaded) => {
        entry.loaded = loaded;
        logger?.info(`loaded ${loaded.id} in ${loaded.loadSeconds.toFixed(1)} s`);
        for (const warning of loaded.warnings) logger?.warn(warning);
        this.#rest(entry);
      },
      (error: unknown) => {
        // Not remembered: the next request tries again.
        this.#remove(entry);
        logger?.warn(`${options.model} was not loaded: ${error instanceof Error ? error.message : String(error)}`);
      },
    );
    return entry;
  }

  #serve(entry: Entry, asked: string | undefined, info: LoadedModel): ServedModel {
    const { engine, pinned, servedModelName } = this.#options;
    const chat = createLocalModel({ engine, info, templates: this.#templates });
    const id = asked ?? displayName(entry.options.model, pinned && servedModelName, info.id);
    return { id, info, chat, engine, applyChatTemplate: async (request) => chat.applyChatTemplate(request) };
  }

  #lease(entry: Entry, model: ServedModel): ModelLease {
    let held = true;
    return {
      model,
      [Symbol.dispose]: () => {
        if (!held) return;
        held = false;
        this.#release(entry);
      },
    };
  }

  #release(entry: Entry): void {
    entry.leases -= 1;
    // A load that nobody waits for any more is on its way out already: the next asker gets a fresh one.
    if (entry.load.aborted) this.#remove(entry);
    this.#rest(entry);
  }

  /** Nobody uses it: unload it after a while. */
  #rest(entry: Entry): void {
    const { modelTimeout = 0, pinned } = this.#options;
    if (pinned || modelTimeout <= 0 || entry.leases > 0 || !entry.loaded || this.#entries.get(entry.key) !== entry)
      return;
    clearTimeout(entry.idle);
    entry.idle = setTimeout(() => {
      this.#unload(entry);
    }, modelTimeout * 1000);
    entry.idle.unref();
  }

  #unload(entry: Entry): void {
    const { engine, logger } = this.#options;
    if (!entry.loaded || this.#entries.get(entry.key) !== entry) return;
    this.#entries.delete(entry.key);
    logger?.info(`unloading ${entry.loaded.id}: not used for ${this.#options.modelTimeout} s`);
    this.#leave(
      entry.key,
      engine.unload(entry.loaded.handle).catch((error: unknown) => {
        logger?.warn(`unloading failed: ${error instanceof Error ? error.message : String(error)}`);
      }),
    );
  }

  #remove(entry: Entry): void {
    if (this.#entries.get(entry.key) !== entry) return;
    this.#entries.delete(entry.key);
    this.#leave(
      entry.key,
      entry.load.settled.catch(() => undefined),
    );
  }

  #leave(key: string, gone: Promise<unknown>): void {
    const all = Promise.all([this.#leaving.get(key), gone]).then(() => {
      if (this.#leaving.get(key) === all) this.#leaving.delete(key);
    });
    this.#leaving.set(key, all);
  }

  #isPinned(pinned: LoadOptions, id: string): boolean {
    const names = namesOf(pinned.model, this.#options.servedModelName, this.#entries.get('')?.loaded?.id);
    return names.has(id) || names.has(canonicalId(id));
  }

  #listPinned(pinned: LoadOptions): ListedModel {
    const entry = this.#entries.get('');
    const id = displayName(pinned.model, this.#options.servedModelName, entry?.loaded?.id);
    return entry ? listEntry(entry, id) : { id, created: 0, ownedBy: ownerOf(pinned.model), state: 'available' };
  }

  #listCached(model: CachedModel): ListedModel {
    const entry = this.#entries.get(canonicalId(model.id));
    const listed = { id: model.id, created: model.modified, ownedBy: ownerOf(model.id) };
    return entry ? { ...listEntry(entry, model.id), ...listed } : { ...listed, state: 'available' };
  }

  #cached(): Promise<readonly CachedModel[]> {
    const { listCached, engine } = this.#options;
    return listCached ? listCached() : engine.listCached();
  }
}

function listEntry(entry: Entry, id: string): ListedModel {
  const { loaded } = entry;
  const listed = { id, created: entry.created, ownedBy: ownerOf(entry.options.model) };
  return loaded ? { ...listed, state: 'ready', contextLength: loaded.maxModelLen } : { ...listed, state: 'loading' };
}

/** A function, so that a check before a wait does not count as one after it. */
function isAborted(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true;
}
