/** Models by id: one that is pinned, or any of the hub's on demand. */

import type { LocalModel, LocalModelOptions } from '../chat/local-model.js';
import { unreadVariables } from '../chat/template-defaults.js';
import { createTemplateRenderer, type TemplateRenderer } from '../chat/template.js';
import {
  EngineError,
  type CachedModel,
  type Engine,
  type LoadedModel,
  type LoadOptions,
  type LoadProgress,
  type ModelStats,
} from '../engine/types.js';
import { canonicalId, displayName, namesOf, ownerOf, requireRepositoryId } from './model-names.js';
import { cacheWithin, defaultMemoryBudget, noRoom, planRoom, type Occupant, type RoomLimits } from './room.js';
import { SharedLoad } from './shared-load.js';
import type { ListedModel, ModelLease, ModelRegistry, ModelStatus, ServedModel } from './types.js';

/** What the registry tells; a subset of what every logger has. */
export interface RegistryLogger {
  info(message: string): void;
  warn(message: string): void;
}

export interface RegistryOptions {
  readonly engine: Engine;
  /** chat/local-model.ts's. Who wants to list and load models before its parsers and grammars are there passes a promise of it. */
  readonly createLocalModel: (options: LocalModelOptions) => LocalModel | Promise<LocalModel>;
  /** Serve exactly this model; requests need not name it. It is loaded by the first `acquire` and stays. */
  readonly pinned?: LoadOptions;
  /** How models are loaded on demand; for the pinned one, what its own options leave out. */
  readonly defaults: Omit<LoadOptions, 'model'>;
  /** A further name of the pinned model, and the one it is listed under. */
  readonly servedModelName?: string;
  /** Seconds after which an unused model is unloaded; 0: never. The pinned one stays. @default 0 */
  readonly modelTimeout?: number;
  /** Models loaded at once on demand; beyond it the least recently used one that is idle leaves. @default no limit */
  readonly maxLoadedModels?: number;
  /** Bytes that models loaded on demand may take together. Default: most of the memory. */
  readonly memoryBudget?: number;
  /** For every model's chat template, where a request does not say. */
  readonly templateVariables?: Readonly<Record<string, unknown>>;
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
  options: LoadOptions;
  readonly load: SharedLoad;
  loaded?: LoadedModel;
  /** Unix seconds of the load. */
  readonly created: number;
  leases: number;
  /** A count of uses, over all models. */
  lastUsed: number;
  /** Bytes it takes, once room was made for it; before the load is done what its files tell. */
  bytes: number | undefined;
  /** What the engine says it is, as soon as it says so. */
  canonical?: string;
  /** It turned out to be a model that is loaded already: whoever waits for it shall have that one. */
  isTwin?: boolean;
  idle?: NodeJS.Timeout;
}

class Registry implements ModelRegistry {
  readonly #options: RegistryOptions;
  readonly #templates: TemplateRenderer;
  readonly #entries = new Map<string, Entry>();
  /** Models on their way out by key: the same one is not loaded again before its memory is free. */
  readonly #leaving = new Map<string, Promise<unknown>>();
  /** What ids without a file turned out to mean, by key. */
  readonly #meant = new Map<string, string>();
  /** KV caches of models whose default is more than the budget holds, by key, bytes. */
  readonly #caches = new Map<string, number>();
  readonly #limits: RoomLimits;
  /** Room is made for one model after the other: each sees what the one before has taken. */
  #makingRoom: Promise<unknown> = Promise.resolve();
  #uses = 0;
  #closed = false;

  constructor(options: RegistryOptions) {
    this.#options = options;
    const { maxLoadedModels = Number.POSITIVE_INFINITY, memoryBudget = defaultMemoryBudget() } = options;
    this.#limits = { maxModels: maxLoadedModels, maxBytes: memoryBudget };
    this.#templates = options.templates ?? createTemplateRenderer();
  }

  async acquire(id: string | undefined, { signal, onProgress }: AcquireOptions = {}): Promise<ModelLease> {
    for (;;) {
      // Most ids are clear at once, and then the load begins at once.
      const meant = this.#keyOf(id);
      const key = typeof meant === 'string' ? meant : await meant;
      if (this.#closed) throw new EngineError('closed', 'the server is shutting down');
      if (isAborted(signal)) {
        throw new EngineError('cancelled', 'the wait for the model was aborted', undefined, { cause: signal?.reason });
      }
      const entry = this.#entry(id, key);
      // Held from now on, so that it is not unloaded between the load's end and the lease.
      entry.leases += 1;
      entry.lastUsed = ++this.#uses;
      clearTimeout(entry.idle);
      try {
        const info = entry.loaded ?? (await entry.load.wait(onProgress, signal));
        // The registry's own bookkeeping of the load is a promise behind; the facts are the same.
        entry.loaded ??= info;
        return this.#lease(entry, await this.#serve(entry, id, info));
      } catch (error) {
        this.#release(entry);
        if (entry.isTwin === true) continue;
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
      if (!listed.has(entry.canonical ?? entry.key)) listed.set(entry.key, listEntry(entry, entry.key));
    }
    return [...listed.values()];
  }

  async find(id: string): Promise<ListedModel | undefined> {
    const { pinned } = this.#options;
    if (pinned) return this.#isPinned(pinned, id) ? { ...this.#listPinned(pinned), id } : undefined;
    const key = await this.#keyOf(id);
    const entry = this.#entries.get(key) ?? this.#loadedAs(key);
    if (entry) return listEntry(entry, id);
    const cached = (await this.#cached()).find((model) => canonicalId(model.id) === key);
    return cached && { ...this.#listCached(cached), id };
  }

  loaded(): ModelStatus[] {
    return [...this.#entries.values()].flatMap((entry) =>
      entry.loaded === undefined
        ? []
        : [{ info: entry.loaded, stats: this.#stats(entry.loaded), leases: entry.leases }],
    );
  }

  async unloadIdle(): Promise<string[]> {
    if (this.#options.pinned) return [];
    const idle = [...this.#entries.values()].filter((entry) => entry.loaded !== undefined && !this.#isBusy(entry));
    for (const entry of idle) this.#unload(entry, 'it was asked to');
    await Promise.all(idle.map(async ({ key }) => this.#leaving.get(key)));
    return idle.map(({ key }) => key);
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

  /**
   * What an id means, as far as the cache tells: a repository that is there with nothing but one model file is that file.
   * The engine would find the same; to know it before the load is to load it once.
   */
  #keyOf(id: string | undefined): string | Promise<string> {
    if (id === undefined || this.#options.pinned) return '';
    const key = canonicalId(id);
    if (key.includes(':') || this.#entries.has(key) || this.#loadedAs(key)) return key;
    const choose = (cached: readonly CachedModel[]): string => {
      const ids = cached.map((model) => canonicalId(model.id));
      const files = ids.filter((other) => other.startsWith(`${key}:`));
      return files.length === 1 && !ids.includes(key) ? (files[0] ?? key) : key;
    };
    // The load says what is wrong with the cache.
    return this.#cached().then(choose, () => key);
  }

  /** The entry for an id, loading it if there is none. Throws if the id is not served. */
  #entry(id: string | undefined, key: string): Entry {
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
    const entry = this.#entries.get(key) ?? this.#loadedAs(key);
    if (entry) return entry;
    requireRepositoryId(id);
    return this.#start(key, { ...defaults, model: key, hubOnly: true });
  }

  #start(key: string, options: LoadOptions): Entry {
    const { engine, logger } = this.#options;
    const load = new SharedLoad(async (onProgress, signal) => {
      await this.#leaving.get(key);
      if (!this.#options.pinned) await this.#makeRoom(entry, await this.#fileBytes(key));
      if (isAborted(signal)) throw new EngineError('cancelled', 'the load was aborted');
      logger?.info(`loading ${options.model}`);
      const loaded = await this.#loadWithinBudget(entry, onProgress, signal);
      try {
        // Aborted too late for the engine to notice.
        if (isAborted(signal)) throw new EngineError('cancelled', 'the load was aborted');
        this.#refuseTwin(entry, canonicalId(loaded.id));
        if (!this.#options.pinned) await this.#makeRoom(entry, loaded.weightBytes + loaded.kvBytes);
        return loaded;
      } catch (error) {
        await engine.unload(loaded.handle);
        throw error;
      }
    });
    const created = Math.floor(Date.now() / 1000);
    const entry: Entry = { key, options, load, created, leases: 0, lastUsed: ++this.#uses, bytes: undefined };
    this.#entries.set(key, entry);
    load.settled.then(
      (loaded) => {
        entry.loaded = loaded;
        logger?.info(`loaded ${loaded.id} in ${loaded.loadSeconds.toFixed(1)} s`);
        for (const warning of loaded.warnings) logger?.warn(warning);
        const unread = unreadVariables(loaded, this.#options.templateVariables ?? {});
        if (unread.length > 0) logger?.warn(`the chat template of ${loaded.id} does not read ${unread.join(', ')}`);
        this.#rest(entry);
      },
      (error: unknown) => {
        // Not remembered: the next request tries again.
        this.#remove(entry);
        if (entry.isTwin === true) return;
        logger?.warn(`${options.model} was not loaded: ${error instanceof Error ? error.message : String(error)}`);
      },
    );
    return entry;
  }

  /**
   * Two names that were asked for before anything was in the cache can turn out to be one model. Throws EngineError
   * `cancelled` for the one that comes second; whoever waits for it asks again and finds the first.
   */
  #refuseTwin(entry: Entry, canonical: string): void {
    this.#meant.set(entry.key, canonical);
    entry.canonical = canonical;
    entry.isTwin = [...this.#entries.values()].some((other) => other !== entry && other.canonical === canonical);
    if (entry.isTwin) throw new EngineError('cancelled', `'${entry.key}' is loaded as '${canonical}'`);
  }

  /** The engine lays a cache out for the machine. Where the budget is less than that, it is done again with a share of it. */
  async #loadWithinBudget(
    entry: Entry,
    onProgress: (progress: LoadProgress) => void,
    signal: AbortSignal,
  ): Promise<LoadedModel> {
    const { pinned, engine } = this.#options;
    const known = this.#caches.get(entry.key);
    if (known !== undefined) entry.options = { ...entry.options, kvCacheMemory: known };
    const loaded = await this.#load(entry, onProgress, signal);
    const { weightBytes, kvBytes } = loaded;
    const cache = cacheWithin(this.#limits.maxBytes, weightBytes);
    const fits = weightBytes + kvBytes <= this.#limits.maxBytes;
    if (pinned || fits || entry.options.kvCacheMemory !== undefined || cache <= 0) return loaded;
    await engine.unload(loaded.handle);
    this.#caches.set(entry.key, cache);
    entry.options = { ...entry.options, kvCacheMemory: cache };
    return this.#load(entry, onProgress, signal);
  }

  /** The engine knows best what is free: what it has no memory for is tried again with one idle model less. */
  async #load(entry: Entry, onProgress: (progress: LoadProgress) => void, signal: AbortSignal): Promise<LoadedModel> {
    for (;;) {
      try {
        return await this.#options.engine.load(entry.options, onProgress, signal);
      } catch (error) {
        if (!(error instanceof EngineError) || error.code !== 'model_too_large' || isAborted(signal)) throw error;
        const [oldest] = [...this.#entries.values()]
          .filter((other) => other !== entry && other.loaded !== undefined && !this.#isBusy(other))
          .sort((a, b) => a.lastUsed - b.lastUsed);
        if (!oldest) throw error;
        this.#unload(oldest, `${entry.key} needs its memory`);
        await this.#leaving.get(oldest.key);
      }
    }
  }

  /** Unloads what must go so that `entry` may take `bytes`. Throws EngineError `queue_full` or `model_too_large`. */
  async #makeRoom(entry: Entry, bytes: number): Promise<void> {
    const turn = this.#makingRoom.then(async () => {
      // Who has not been let in yet takes nothing: two that ask at once must not both be refused for each other.
      const others = [...this.#entries.values()].filter((other) => other !== entry && other.bytes !== undefined);
      const plan = planRoom(
        others.map((other) => this.#occupant(other)),
        bytes,
        this.#limits,
      );
      if (!plan.fits) throw noRoom(entry.key, bytes, plan, this.#limits);
      entry.bytes = bytes;
      for (const other of others) {
        if (plan.evict.includes(other.key)) this.#unload(other, `${entry.key} needs its place`);
      }
      await Promise.all(plan.evict.map(async (key) => this.#leaving.get(key)));
    });
    this.#makingRoom = turn.catch(() => undefined);
    await turn;
  }

  #occupant(entry: Entry): Occupant {
    const { key, bytes = 0, lastUsed } = entry;
    return { key, bytes, lastUsed, busy: entry.loaded === undefined || this.#isBusy(entry) };
  }

  #isBusy({ leases, loaded }: Entry): boolean {
    if (leases > 0) return true;
    if (!loaded) return false;
    const { running, waiting } = this.#stats(loaded);
    return running + waiting > 0;
  }

  #stats({ handle }: LoadedModel): ModelStats {
    return this.#options.engine.stats(handle);
  }

  /** What the files of an id take on disk; 0 if they are not here yet. */
  async #fileBytes(key: string): Promise<number> {
    try {
      return (await this.#cached()).find((model) => canonicalId(model.id) === key)?.bytes ?? 0;
    } catch {
      // The load says what is wrong with the cache.
      return 0;
    }
  }

  /** A model that was asked for by another name and turned out to be this one. */
  #loadedAs(key: string): Entry | undefined {
    const meant = this.#meant.get(key) ?? key;
    return [...this.#entries.values()].find(({ canonical, isTwin }) => canonical === meant && isTwin !== true);
  }

  async #serve(entry: Entry, asked: string | undefined, info: LoadedModel): Promise<ServedModel> {
    const { engine, pinned, servedModelName } = this.#options;
    const { templateVariables } = this.#options;
    const { defaultSeed } = entry.options;
    const chat = await this.#options.createLocalModel({
      engine,
      info,
      templates: this.#templates,
      ...(templateVariables === undefined ? {} : { templateVariables }),
    });
    const id = asked ?? displayName(entry.options.model, pinned && servedModelName, info.id);
    return {
      id,
      info,
      chat,
      engine,
      ...(defaultSeed === undefined ? {} : { defaultSeed }),
      applyChatTemplate: async (request) => chat.applyChatTemplate(request),
    };
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
    entry.lastUsed = ++this.#uses;
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
      if (this.#isBusy(entry)) this.#rest(entry);
      else this.#unload(entry, `not used for ${modelTimeout} s`);
    }, modelTimeout * 1000);
    entry.idle.unref();
  }

  #unload(entry: Entry, reason: string): void {
    const { engine, logger } = this.#options;
    if (!entry.loaded || this.#entries.get(entry.key) !== entry) return;
    clearTimeout(entry.idle);
    this.#entries.delete(entry.key);
    logger?.info(`unloading ${entry.loaded.id}: ${reason}`);
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
    const entry = this.#entries.get(canonicalId(model.id)) ?? this.#loadedAs(canonicalId(model.id));
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
  if (!loaded) return { ...listed, state: 'loading' };
  // A recording may be as long as it likes.
  const length = loaded.kind === 'text' ? { contextLength: loaded.maxModelLen } : {};
  return { ...listed, state: 'ready', ...length };
}

/** A function, so that a check before a wait does not count as one after it. */
function isAborted(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true;
}
