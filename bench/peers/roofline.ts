/** What the machine allows at most: bytes over its bandwidth, or operations over its integer peak, whichever takes longer. */

import type { ModelSizes } from './gguf.js';

/** What the probe measured. */
export interface Peaks {
  /** Bytes per second read by all threads, from a set as large as the weights. */
  readonly bandwidth: number;
  /** 8-bit multiplications and additions per second of all threads. */
  readonly integerPeak: number;
}

/** What is measured: `rows` tokens at once, one of each sequence or a prompt. */
export type Workload =
  | { readonly kind: 'decode'; readonly depth: number }
  | { readonly kind: 'prefill'; readonly length: number }
  | { readonly kind: 'batch'; readonly size: number };

/** Tokens of each sequence's prompt in a batch, and tokens that every measurement generates. */
export const batchPrompt = 32;

/** Tokens per second. */
export function limit(sizes: ModelSizes, { bandwidth, integerPeak }: Peaks, work: Workload, generated: number): number {
  const { streamedBytes, bodyWeights, headWeights } = sizes;
  switch (work.kind) {
    case 'decode':
      return bandwidth / (streamedBytes + kvBytes(sizes, work.depth + generated / 2));
    case 'prefill': {
      const operations = 2 * (work.length * bodyWeights + headWeights);
      return work.length / Math.max(operations / integerPeak, streamedBytes / bandwidth);
    }
    case 'batch': {
      const bytes = streamedBytes + work.size * kvBytes(sizes, batchPrompt + generated / 2);
      const operations = 2 * work.size * (bodyWeights + headWeights);
      return work.size / Math.max(operations / integerPeak, bytes / bandwidth);
    }
  }
}

/** Bytes of keys and values that one token looks at, `depth` tokens into its sequence. */
function kvBytes({ layers }: ModelSizes, depth: number): number {
  return layers.reduce((sum, layer) => sum + layer.kvBytes * Math.min(depth, layer.window), 0);
}
