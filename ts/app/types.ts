/** Models by id: what the HTTP layer, the CLI and `createEngine` stand on. */

import type { ChatModel } from '../chat/types.js';
import type { Engine, LoadedModel, LoadProgress, ModelStats } from '../engine/types.js';

/** A model that is loaded and can be asked. */
export interface ServedModel {
  /** The id it was asked by. */
  readonly id: string;
  readonly info: LoadedModel;
  readonly chat: ChatModel;
  /** Seed of requests that bring none, if it is fixed. */
  readonly defaultSeed?: number;
  /** For raw completions and tokenising; `info.handle` names the model. */
  readonly engine: Engine;
  /** Renders the chat template. Throws EngineError `template_error`. */
  applyChatTemplate(request: Parameters<ChatModel['chat']>[0]): Promise<string>;
}

/** A model that can be asked for, loaded or not. */
export interface ListedModel {
  readonly id: string;
  /** Unix seconds: when its files were made. */
  readonly created: number;
  readonly ownedBy: string;
  /** 'ready' | 'loading' | 'available' (would be loaded on demand). */
  readonly state: 'ready' | 'loading' | 'available';
  /** Served context length in tokens, once known. */
  readonly contextLength?: number;
}

/** A held model: not unloaded until released. */
export interface ModelLease extends Disposable {
  readonly model: ServedModel;
}

/** A model in memory, and what it is doing. */
export interface ModelStatus {
  readonly info: LoadedModel;
  readonly stats: ModelStats;
  /** Requests that hold it. */
  readonly leases: number;
}

export interface ModelRegistry {
  /**
   * The model of that id, loading it if need be (one load however many ask). Without id: the pinned model.
   * Throws EngineError `model_not_found` for an id that is not served or does not exist.
   */
  acquire(
    id: string | undefined,
    options?: { readonly signal?: AbortSignal; readonly onProgress?: (progress: LoadProgress) => void },
  ): Promise<ModelLease>;
  list(): Promise<ListedModel[]>;
  /** Undefined if no such model can be asked for. */
  find(id: string): Promise<ListedModel | undefined>;
  /** The models that are loaded now. */
  loaded(): readonly ModelStatus[];
  /** Unloads the models that nobody uses, never the pinned one; resolves to their ids when their memory is free. */
  unloadIdle(): Promise<readonly string[]>;
  close(): Promise<void>;
}
