/** `npm run bench [-- --model PATH] [--runs N] [--quick] [--kv-cache-type TYPE] [--json]`: how fast this build is on this machine. */

import { cpus } from 'node:os';
import { parseArgs } from 'node:util';

import { formatBytes } from '../ts/cli/format.js';
import { createNativeEngine } from '../ts/engine/native.js';
import { KV_CACHE_TYPES, type KvCacheType, type LoadedModel } from '../ts/engine/types.js';
import { readBandwidth } from './bandwidth.js';
import { GenerationBench } from './generation.js';
import { measureStartUp, type StartUp } from './server.js';
import { repeat, type Figure } from './statistics.js';

interface Row {
  readonly name: string;
  readonly unit: string;
  readonly figure: Figure;
}

interface Report {
  readonly date: string;
  readonly machine: { readonly cpu: string; readonly cores: number; readonly node: string };
  readonly model: LoadedModel;
  readonly rows: readonly Row[];
  readonly startUp: StartUp;
  /** Bytes per second that the compute threads can read. */
  readonly bandwidth: number;
  /** Decode at depth 16 as a share of what that bandwidth allows for the weights as they are stored. */
  readonly bandwidthShare: number;
}

const { values: flags } = parseArgs({
  options: {
    model: { type: 'string' },
    runs: { type: 'string', default: '5' },
    quick: { type: 'boolean', default: false },
    'kv-cache-type': { type: 'string', default: 'f16' },
    json: { type: 'boolean', default: false },
  },
});
if (flags.model === undefined) throw new Error('--model names the weights to measure with');
const kvCacheType = KV_CACHE_TYPES.find((name) => name === flags['kv-cache-type']);
if (kvCacheType === undefined) throw new Error(`--kv-cache-type knows ${KV_CACHE_TYPES.join(', ')}`);
const runs = flags.quick ? 1 : Number(flags.runs);
const decodeTokens = flags.quick ? 16 : 64;

const report = await measure(flags.model, kvCacheType);
process.stdout.write(flags.json ? `${JSON.stringify(report, undefined, 2)}\n` : table(report));

async function measure(modelPath: string, kvCacheType: KvCacheType): Promise<Report> {
  note('start-up');
  const startUp = await measureStartUp(modelPath);
  const engine = createNativeEngine();
  try {
    const model = await engine.load({
      model: modelPath,
      device: 'cpu',
      maxNumSeqs: 16,
      maxModelLen: 2048,
      prefixCache: false,
      kvCacheType,
    });
    const bench = new GenerationBench(engine, model);
    const rows: Row[] = [];
    const add = async (name: string, unit: string, once: () => Promise<number>): Promise<Figure> => {
      note(name);
      const figure = await repeat(runs, once);
      rows.push({ name, unit, figure });
      return figure;
    };
    const shallow = await add('decode at depth 16', 'tok/s', () => bench.decode(16, decodeTokens));
    for (const depth of [256, 1024])
      await add(`decode at depth ${depth}`, 'tok/s', () => bench.decode(depth, decodeTokens));
    for (const length of [128, 512]) await add(`prefill of ${length}`, 'tok/s', () => bench.prefill(length));
    for (const size of [1, 4, 8, 16]) await add(`batch of ${size}`, 'tok/s', () => bench.batch(size, decodeTokens));
    for (const size of [1, 16])
      await add(`Node's thread, batch of ${size}`, 'µs/token', () => bench.borderCost(size, decodeTokens));
    note('memory bandwidth');
    const bandwidth = await readBandwidth(model.threads);
    const [cpu] = cpus();
    return {
      date: new Date().toISOString(),
      machine: { cpu: cpu?.model ?? 'unknown', cores: cpus().length, node: process.version },
      model: { ...model, chatTemplate: undefined, chatTemplates: undefined },
      rows,
      startUp,
      bandwidth,
      bandwidthShare: (shallow.median * model.weightBytes) / bandwidth,
    };
  } finally {
    await engine.close();
  }
}

function table({ machine, model, rows, startUp, bandwidth, bandwidthShare }: Report): string {
  const lines = rows.map(({ name, unit, figure: { median, min, max } }) => {
    const spread = `${digits(min)} to ${digits(max)}`;
    return `${name.padEnd(28)} ${digits(median).padStart(9)} ${unit.padEnd(9)} (${spread})`;
  });
  const resident = startUp.residentBytes === undefined ? 'unknown' : formatBytes(startUp.residentBytes);
  return [
    `${model.id}: ${model.weightFormat}, ${formatBytes(model.weightBytes)}; ${model.device}, ${model.dtype}, ${model.cpuLevel}, ${model.threads} threads; ${model.kvCacheType ?? ''} KV`,
    `${machine.cpu}, ${machine.cores} cores, Node ${machine.node}; median of ${rows[0]?.figure.runs ?? 0} (least to most)`,
    '',
    ...lines,
    '',
    `start-up: listening after ${startUp.listening.toFixed(2)} s, ready after ${startUp.ready.toFixed(2)} s, ${resident} resident`,
    `memory: ${formatBytes(bandwidth)}/s read by ${model.threads} threads, so at most ${digits(bandwidth / model.weightBytes)} tok/s for the ` +
      `stored weights; decode at depth 16 reaches ${(bandwidthShare * 100).toFixed(1)} % of it`,
    '',
  ].join('\n');
}

function digits(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toFixed(2);
}

function note(text: string): void {
  process.stderr.write(`measuring ${text} …\n`);
}
