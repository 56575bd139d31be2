/** What a GGUF file says about its sizes: as much as the limits of a machine on it take. */

import { open } from 'node:fs/promises';

import type { KvCacheType } from '../../ts/engine/types.js';

/** Sizes of a model that bound its speed. */
export interface ModelSizes {
  /** Bytes of the weights that every token takes: all but an embedding table that is not the head too. */
  readonly streamedBytes: number;
  /** Weights of the layers' matrices, and of the head's. */
  readonly bodyWeights: number;
  readonly headWeights: number;
  /** Per layer: bytes of one position's keys and values in f16, and the positions that are looked at. */
  readonly layers: readonly { readonly kvBytes: number; readonly window: number }[];
}

/** Weights of a block and its bytes, by GGUF's type number. */
const blocks: Readonly<Record<number, readonly [weights: number, bytes: number]>> = {
  0: [1, 4],
  1: [1, 2],
  2: [32, 18],
  3: [32, 20],
  6: [32, 22],
  7: [32, 24],
  8: [32, 34],
  12: [256, 144],
  13: [256, 176],
  14: [256, 210],
  30: [1, 2],
  39: [32, 17],
};

/** Headers are a few MB: mostly the vocabulary. */
const maxHeader = 64 << 20;

export async function readModelSizes(path: string): Promise<ModelSizes> {
  const file = await open(path);
  try {
    const { bytesRead, buffer } = await file.read(Buffer.alloc(maxHeader), 0, maxHeader, 0);
    return modelSizes(buffer.subarray(0, bytesRead));
  } finally {
    await file.close();
  }
}

export function modelSizes(header: Buffer): ModelSizes {
  const reader = new Reader(header);
  if (reader.text(4) !== 'GGUF') throw new Error('not a GGUF file');
  reader.u32();
  const nTensors = reader.u64();
  const nValues = reader.u64();
  const values = new Map<string, unknown>();
  for (let i = 0; i < nValues; i += 1) values.set(reader.string(), reader.value(reader.u32()));
  const tensors = Array.from({ length: nTensors }, () => reader.tensor());
  const matrices = tensors.filter(({ dimensions }) => dimensions > 1);
  const untied = tensors.some(({ name }) => name === 'output.weight');
  const isHead = (name: string): boolean => name === (untied ? 'output.weight' : 'token_embd.weight');
  const isTable = (name: string): boolean => untied && name === 'token_embd.weight';
  const sum = (numbers: readonly number[]): number => numbers.reduce((total, number) => total + number, 0);
  return {
    streamedBytes: sum(tensors.filter(({ name }) => !isTable(name)).map(({ bytes }) => bytes)),
    bodyWeights: sum(matrices.filter(({ name }) => !isHead(name) && !isTable(name)).map(({ weights }) => weights)),
    headWeights: sum(matrices.filter(({ name }) => isHead(name)).map(({ weights }) => weights)),
    layers: layersOf(values),
  };
}

/** The same model with another type of cache. */
export function withCache(sizes: ModelSizes, type: KvCacheType): ModelSizes {
  // 32 bytes and a scale in the place of 32 halves.
  const share = type === 'q8_0' ? 34 / 64 : 1;
  return { ...sizes, layers: sizes.layers.map((layer) => ({ ...layer, kvBytes: layer.kvBytes * share })) };
}

function layersOf(values: ReadonlyMap<string, unknown>): ModelSizes['layers'] {
  const architecture = String(values.get('general.architecture'));
  const number = (key: string): number | undefined => {
    const value = values.get(`${architecture}.${key}`);
    return typeof value === 'number' ? value : undefined;
  };
  const heads = number('attention.head_count') ?? NaN;
  const keyLength = number('attention.key_length') ?? (number('embedding_length') ?? NaN) / heads;
  const valueLength = number('attention.value_length') ?? keyLength;
  const kvBytes = 2 * (number('attention.head_count_kv') ?? heads) * (keyLength + valueLength);
  const window = number('attention.sliding_window') ?? Infinity;
  // Gemma's files leave the pattern out: every sixth layer sees all positions.
  const pattern = number('attention.sliding_window_pattern') ?? 6;
  return Array.from({ length: number('block_count') ?? NaN }, (_, layer) => ({
    kvBytes,
    window: (layer + 1) % pattern === 0 ? Infinity : window,
  }));
}

interface Tensor {
  readonly name: string;
  readonly dimensions: number;
  readonly weights: number;
  readonly bytes: number;
}

/** Reads GGUF's little-endian values one after the other. */
class Reader {
  #at = 0;

  constructor(private readonly data: Buffer) {}

  u32(): number {
    return this.data.readUInt32LE(this.#skip(4));
  }

  u64(): number {
    return Number(this.data.readBigUInt64LE(this.#skip(8)));
  }

  text(length: number): string {
    const start = this.#skip(length);
    return this.data.toString('utf8', start, start + length);
  }

  string(): string {
    return this.text(this.u64());
  }

  /** Lists are read past: none of them is a size. */
  value(type: number): unknown {
    switch (type) {
      case 0:
      case 7:
        return this.data.readUInt8(this.#skip(1));
      case 1:
        return this.data.readInt8(this.#skip(1));
      case 2:
        return this.data.readUInt16LE(this.#skip(2));
      case 3:
        return this.data.readInt16LE(this.#skip(2));
      case 4:
        return this.u32();
      case 5:
        return this.data.readInt32LE(this.#skip(4));
      case 6:
        return this.data.readFloatLE(this.#skip(4));
      case 8:
        return this.string();
      case 9: {
        const element = this.u32();
        for (let left = this.u64(); left > 0; left -= 1) this.value(element);
        return undefined;
      }
      case 10:
        return this.u64();
      case 11:
        return Number(this.data.readBigInt64LE(this.#skip(8)));
      case 12:
        return this.data.readDoubleLE(this.#skip(8));
      default:
        throw new Error(`GGUF has no value type ${type}`);
    }
  }

  tensor(): Tensor {
    const name = this.string();
    const sizes = Array.from({ length: this.u32() }, () => this.u64());
    const type = this.u32();
    this.u64();
    const block = blocks[type];
    if (block === undefined) throw new Error(`${name} has the unknown type ${type}`);
    const weights = sizes.reduce((product, size) => product * size, 1);
    return { name, dimensions: sizes.length, weights, bytes: (weights / block[0]) * block[1] };
  }

  #skip(length: number): number {
    const start = this.#at;
    this.#at += length;
    if (this.#at > this.data.length) throw new Error('the GGUF header ends early, or is longer than 64 MB');
    return start;
  }
}
