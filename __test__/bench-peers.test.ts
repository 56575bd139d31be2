import { expect } from 'chai';

import { modelSizes } from '../bench/peers/gguf.js';
import { performancePages } from '../bench/peers/page.js';
import { merge, ratioTo, shareOf, speedOf, type Results, type Speed } from '../bench/peers/results.js';
import { limit } from '../bench/peers/roofline.js';
import { resultsTable } from '../bench/peers/table.js';
import { medianInterval, percentile } from '../bench/statistics.js';

const peaks = { bandwidth: 1000, integerPeak: 8000 };

describe('bench with peers', () => {
  it('takes ratios within rounds, so that a machine that changes between them does not count', () => {
    const speed = speedFrom([
      [200, 100],
      [20, 10],
      [60, 30],
    ]);
    expect(speedOf(speed, 'tsserve')).to.deep.equal({ median: 60, min: 20, max: 200, runs: 3 });
    expect(ratioTo(speed, 'llama.cpp')).to.deep.equal({ median: 2, low: 2, high: 2 });
    expect(ratioTo(speed, 'node-llama-cpp')).to.equal(undefined);
    expect(shareOf(speed, 'llama.cpp')).to.equal(0.075);
  });

  it('gives intervals that hold the median and do not change from call to call', () => {
    const values = [1, 1.1, 0.9, 1.3, 1.05, 0.97, 1.2];
    const [low, high] = medianInterval(values);
    expect(low).to.be.within(0.9, 1.05);
    expect(high).to.be.within(1.05, 1.3);
    expect(medianInterval(values)).to.deep.equal([low, high]);
    expect(percentile([5, 1, 4, 2, 3], 0.5)).to.equal(3);
    expect(percentile([5, 1, 4, 2, 3], 0.99)).to.equal(5);
  });

  it('bounds work by bytes or by operations, and looks no further back than a window', () => {
    const sizes = {
      streamedBytes: 100,
      bodyWeights: 150,
      headWeights: 50,
      layers: [
        { kvBytes: 1, window: Infinity },
        { kvBytes: 1, window: 10 },
      ],
    };
    expect(limit(sizes, peaks, { kind: 'decode', depth: 88 }, 4)).to.equal(1000 / 200);
    expect(limit(sizes, peaks, { kind: 'prefill', length: 100 }, 4)).to.equal(100 / (30_100 / 8000));
    expect(limit(sizes, peaks, { kind: 'batch', size: 1 }, 4)).to.equal(1000 / 144);
    expect(limit(sizes, peaks, { kind: 'batch', size: 100 }, 4)).to.equal(8000 / 400);
  });

  it('reads sizes from GGUF headers: an embedding table beside a head is not streamed', () => {
    const tied = modelSizes(ggufHeader([['token_embd.weight', [64, 10], 8]]));
    expect(tied).to.deep.include({ streamedBytes: 680, bodyWeights: 0, headWeights: 640 });
    expect(tied.layers).to.deep.equal(Array(2).fill({ kvBytes: 2 * 1 * (32 + 32), window: Infinity }));
    const untied = modelSizes(
      ggufHeader([
        ['token_embd.weight', [64, 10], 8],
        ['output.weight', [64, 10], 1],
        ['blk.0.attn_q.weight', [64, 64], 3],
        ['output_norm.weight', [64], 0],
      ]),
    );
    expect(untied).to.deep.include({ streamedBytes: 1280 + 2560 + 256, bodyWeights: 4096, headWeights: 640 });
    expect(() => modelSizes(ggufHeader([]).subarray(0, 60))).to.throw('ends early');
  });

  it('adds to earlier results, and makes table, page and plots of them', () => {
    const machine = { cpu: 'a <fast> CPU', cores: 2, node: 'v20', threads: 2 };
    const model = { weightFormat: 'Q4_1', weightBytes: 1e6, contenders: { tsserve: 'packed' }, chats: {} };
    const first: Results = {
      machine,
      models: { m: { ...model, speeds: { 'decode at depth 16': speedFrom([[1, 2]]) } } },
    };
    const second: Results = {
      machine,
      models: { m: { ...model, speeds: { 'prefill of 128': speedFrom([[300, 100]]) } } },
    };
    const both = merge(first, second);
    expect(Object.keys(both.models.m!.speeds)).to.deep.equal(['decode at depth 16', 'prefill of 128']);
    expect(resultsTable(both)).to.include('3.00x (95 %: 3.00 to 3.00)');
    const pages = performancePages(both);
    expect([...pages.keys()]).to.deep.equal(['performance/m-decode.svg', 'performance/m-many.svg', 'performance.md']);
    for (const [path] of pages) if (path.endsWith('.svg')) expect(pages.get('performance.md')).to.include(`(${path})`);
    expect(pages.get('performance/m-many.svg')).to.match(/^<svg[^]*<\/svg>\n$/);
  });
});

function speedFrom(rounds: readonly (readonly [ours: number, theirs: number])[]): Speed {
  const sample = (value: number) => ({ value, limit: 400, ...peaks });
  return {
    date: '2026-11-23T00:00:00.000Z',
    rounds: rounds.map(([ours, theirs]) => ({ tsserve: sample(ours), 'llama.cpp': sample(theirs) })),
  };
}

/** A header with two layers, two heads and one key-value head, 64 wide. */
function ggufHeader(tensors: readonly (readonly [name: string, sizes: readonly number[], type: number])[]): Buffer {
  const u32 = (value: number): Buffer => Buffer.from(Uint32Array.of(value).buffer);
  const u64 = (value: number): Buffer => Buffer.from(BigUint64Array.of(BigInt(value)).buffer);
  const string = (text: string): Buffer => Buffer.concat([u64(Buffer.byteLength(text)), Buffer.from(text)]);
  const number = (key: string, value: number): Buffer => Buffer.concat([string(`llama.${key}`), u32(4), u32(value)]);
  return Buffer.concat([
    Buffer.from('GGUF'),
    u32(3),
    u64(tensors.length),
    u64(6),
    ...[string('general.architecture'), u32(8), string('llama')],
    ...[string('tokenizer.ggml.tokens'), u32(9), u32(8), u64(2), string('a'), string('b')],
    number('block_count', 2),
    number('embedding_length', 64),
    number('attention.head_count', 2),
    number('attention.head_count_kv', 1),
    ...tensors.map(([name, sizes, type]) =>
      Buffer.concat([string(name), u32(sizes.length), ...sizes.map(u64), u32(type), u64(0)]),
    ),
  ]);
}
