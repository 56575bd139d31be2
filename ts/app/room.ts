/** Which models have to leave so that another one fits: least recently used first, never one in use. */

import { totalmem } from 'node:os';

import { EngineError } from '../engine/types.js';

/** A model that is loaded or on its way in. */
export interface Occupant {
  readonly key: string;
  /** Weights and KV cache; while it loads, what is known of it. */
  readonly bytes: number;
  /** Larger is later. */
  readonly lastUsed: number;
  /** Held by a request, generating, or still loading. */
  readonly busy: boolean;
}

export interface RoomLimits {
  /** At least 1. */
  readonly maxModels: number;
  readonly maxBytes: number;
}

export type RoomPlan = { readonly fits: true; readonly evict: readonly string[] } | NoRoom;

interface NoRoom {
  readonly fits: false;
  /** The one that stays exceeded once all idle models are gone; `never` if nothing would help. */
  readonly limit: 'models' | 'memory' | 'never';
  readonly busy: readonly string[];
}

/** @param neededBytes of the newcomer, which is not among the occupants */
export function planRoom(occupants: readonly Occupant[], neededBytes: number, limits: RoomLimits): RoomPlan {
  const busy = occupants.filter((occupant) => occupant.busy).map(({ key }) => key);
  if (neededBytes > limits.maxBytes) return { fits: false, limit: 'never', busy };
  const idle = occupants.filter((occupant) => !occupant.busy).sort((a, b) => a.lastUsed - b.lastUsed);
  const evict: string[] = [];
  let models = occupants.length + 1;
  let bytes = occupants.reduce((sum, occupant) => sum + occupant.bytes, neededBytes);
  for (const { key, bytes: freed } of idle) {
    if (models <= limits.maxModels && bytes <= limits.maxBytes) break;
    evict.push(key);
    models -= 1;
    bytes -= freed;
  }
  if (models > limits.maxModels) return { fits: false, limit: 'models', busy };
  if (bytes > limits.maxBytes) return { fits: false, limit: 'memory', busy };
  return { fits: true, evict };
}

/** Seconds after which a model in use may have become idle. */
const RETRY_AFTER_NO_ROOM = 5;

/** What is said of a model of `bytes` that does not fit. */
export function noRoom(key: string, bytes: number, { limit, busy }: NoRoom, limits: RoomLimits): EngineError {
  const budget = `${mebibytes(limits.maxBytes)} for models (--memory-budget)`;
  if (limit === 'never') {
    return new EngineError('model_too_large', `'${key}' takes ${mebibytes(bytes)}, and there are ${budget}`, 'model');
  }
  const rule =
    limit === 'models' ? `${limits.maxModels} may be loaded at once (--max-loaded-models)` : `there are ${budget}`;
  const names = busy.map((name) => `'${name}'`).join(', ');
  return new EngineError(
    'queue_full',
    `there is no room for '${key}' while ${names} ${busy.length === 1 ? 'is' : 'are'} in use: ${rule}`,
    'model',
    { retryAfter: RETRY_AFTER_NO_ROOM },
  );
}

function mebibytes(bytes: number): string {
  return `${Math.ceil(bytes / 2 ** 20)} MiB`;
}

/** Share of what the weights leave of a budget that one model's KV cache may take: another model may want the rest. */
const CACHE_SHARE = 0.5;

/** Bytes for the KV cache of a model whose default would exceed the budget; 0 or less if its weights alone do. */
export function cacheWithin(budget: number, weightBytes: number): number {
  return Math.floor((budget - weightBytes) * CACHE_SHARE);
}

/** Share of the machine's memory that models may fill unless the operator says otherwise. */
const MEMORY_SHARE = 0.8;

/** Bytes for weights and KV caches: a share of the machine's memory, or of the container's where that is less. */
export function defaultMemoryBudget(): number {
  const constrained = process.constrainedMemory();
  const memory = constrained > 0 ? Math.min(constrained, totalmem()) : totalmem();
  return Math.floor(memory * MEMORY_SHARE);
}
