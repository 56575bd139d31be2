/** Those that are measured, behind one interface. */

import type { KvCacheType } from '../../ts/engine/types.js';
import type { Workload } from './roofline.js';

/** Who is measured, in the order of all tables and plots. */
export const contenderNames = ['tsserve', 'llama.cpp', 'node-llama-cpp'] as const;
export type ContenderName = (typeof contenderNames)[number];

export interface Contender {
  readonly name: ContenderName;
  /** What it is, for the report: version and settings. */
  readonly about: string;
  /** Gets ready for a workload with one unrecorded run, or several where it has a choice to make. */
  prepare(work: Workload): Promise<void>;
  /** Tokens per second. */
  measure(work: Workload): Promise<number>;
  close(): Promise<void>;
}

/** What all contenders are given alike. */
export interface Conditions {
  readonly model: string;
  readonly threads: number;
  /** How keys and values are kept, where a contender can choose. */
  readonly kvCacheType: KvCacheType;
  /** Tokens that decode and batch generate per sequence. */
  readonly generated: number;
}

/** The longest sequence that any workload has. */
export const maxContext = 2048;
export const maxSequences = 16;
