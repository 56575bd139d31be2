/**
 * `npm run bench -- --peers`: tsserve beside llama.cpp and node-llama-cpp, in one run. `--model PATH` (again for more),
 * `--rounds N`, `--quick`, `--only REGEX` (names as in the table), `--peer NAME`, `--out FILE` (adds to what it holds),
 * `--json`, `--kv-cache-type TYPE` (of tsserve and llama.cpp). scripts/bench.mjs adds the paths of the programs.
 */

import { availableParallelism, cpus } from 'node:os';
import { basename } from 'node:path';
import { parseArgs } from 'node:util';

import { KV_CACHE_TYPES, type KvCacheType } from '../../ts/engine/types.js';
import { median } from '../statistics.js';
import { chatLoad } from './chat-load.js';
import { contenderNames, type Conditions, type Contender, type ContenderName } from './contenders.js';
import { readModelSizes, withCache, type ModelSizes } from './gguf.js';
import { LlamaCpp } from './llama-cpp.js';
import { NodeLlamaCpp } from './node-llama-cpp.js';
import { Probe } from './probe.js';
import {
  merge,
  readResults,
  writeResults,
  type Chat,
  type ChatSample,
  type Footprint,
  type ModelResults,
  type Results,
  type Sample,
  type ServerFootprint,
  type Speed,
} from './results.js';
import { limit, type Workload } from './roofline.js';
import { startLlamaServer, startTsserve, type RunningServer } from './servers.js';
import { resultsTable } from './table.js';
import { openTsserve, type Tsserve } from './tsserve.js';

const { values: flags } = parseArgs({
  options: {
    peers: { type: 'boolean' },
    model: { type: 'string', multiple: true, default: [] },
    peer: { type: 'string', multiple: true, default: ['llama.cpp', 'node-llama-cpp'] },
    rounds: { type: 'string', default: '7' },
    quick: { type: 'boolean', default: false },
    only: { type: 'string', default: '' },
    threads: { type: 'string', default: String(availableParallelism()) },
    out: { type: 'string' },
    json: { type: 'boolean', default: false },
    'kv-cache-type': { type: 'string', default: 'f16' },
    probe: { type: 'string' },
    'llama-cpp': { type: 'string' },
    'node-llama-cpp': { type: 'string' },
  },
});

const rounds = flags.quick ? 2 : Number(flags.rounds);
const threads = Number(flags.threads);
const generated = flags.quick ? 32 : 64;
const wanted = new RegExp(flags.only);

const speeds: readonly { readonly name: string; readonly work: Workload }[] = [
  ...[16, 256, 1024].map((depth) => ({ name: `decode at depth ${depth}`, work: { kind: 'decode', depth } as const })),
  ...[128, 512].map((length) => ({ name: `prefill of ${length}`, work: { kind: 'prefill', length } as const })),
  ...[4, 8, 16].map((size) => ({ name: `${size} sequences`, work: { kind: 'batch', size } as const })),
];

/** Requests of each user per round: enough for a tail with one user, few enough to end with many. */
const chats = [
  { users: 1, each: 4 },
  { users: 8, each: 2 },
  { users: 32, each: 1 },
].flatMap((load) =>
  [true, false].map((prefixCache) => ({
    ...load,
    prefixCache,
    name: `chat of ${load.users} ${load.users === 1 ? 'user' : 'users'}, prefix cache ${prefixCache ? 'on' : 'off'}`,
  })),
);
const maxUsers = 32;
const footprintName = 'start and memory';

for (const name of flags.peer)
  if (!contenderNames.includes(name as ContenderName)) throw new Error(`--peer knows ${contenderNames.join(', ')}`);
const kvCacheType = cacheTypeOf(flags['kv-cache-type']);
if (kvCacheType !== 'f16' && flags.out !== undefined)
  throw new Error('--out adds to figures of f16 caches: measure other ones without it');
if (flags.model.length === 0) throw new Error('--model names the weights to measure with');
if (flags.probe === undefined) throw new Error('--probe names the program that measures the machine');
const probe = new Probe(flags.probe, threads);
try {
  let results: Results = {
    machine: { cpu: cpus()[0]?.model ?? 'unknown', cores: cpus().length, node: process.version, threads },
    models: {},
  };
  for (const path of flags.model) {
    results = merge(results, { ...results, models: { [basename(path, '.gguf')]: await measureModel(path) } });
    // After each model, so that what a long run has measured is not lost with it.
    if (flags.out !== undefined) await writeResults(flags.out, merge(await readResults(flags.out), results));
  }
  process.stdout.write(flags.json ? `${JSON.stringify(results, undefined, 2)}\n` : resultsTable(results));
} finally {
  probe.close();
}

async function measureModel(path: string): Promise<ModelResults> {
  const conditions: Conditions = { model: path, threads, generated, kvCacheType };
  const tsserve = await openTsserve(conditions);
  const about: Partial<Record<ContenderName, string>> = { tsserve: tsserve.about };
  const known = { weightFormat: tsserve.model.weightFormat, weightBytes: tsserve.model.weightBytes, contenders: about };
  let measured: Record<string, Speed>;
  try {
    measured = await measureSpeeds(tsserve, conditions, about);
  } finally {
    await tsserve.close();
  }
  // Servers come after the engine is closed: two copies of the weights would take each other's memory and caches.
  const chatted = tsserve.model.chatTemplate === undefined ? {} : await measureChats(path);
  const footprint = wanted.test(footprintName) ? await measureFootprint(tsserve, path) : undefined;
  return { ...known, speeds: measured, chats: chatted, ...(footprint === undefined ? {} : { footprint }) };
}

async function measureSpeeds(
  tsserve: Tsserve,
  conditions: Conditions,
  about: Partial<Record<ContenderName, string>>,
): Promise<Record<string, Speed>> {
  const chosen = speeds.filter(({ name }) => wanted.test(name));
  const measured: Record<string, Speed> = {};
  if (chosen.length === 0) return measured;
  const sizes = withCache(await readModelSizes(conditions.model), conditions.kvCacheType);
  const contenders: Contender[] = [tsserve];
  try {
    if (flags['llama-cpp'] !== undefined && flags.peer.includes('llama.cpp'))
      contenders.push(await LlamaCpp.open(flags['llama-cpp'], conditions, !flags.quick));
    if (flags['node-llama-cpp'] !== undefined && flags.peer.includes('node-llama-cpp'))
      contenders.push(await NodeLlamaCpp.open(flags['node-llama-cpp'], conditions));
    for (const contender of contenders) about[contender.name] = contender.about;
    for (const { name, work } of chosen) {
      note(`${tsserve.model.id}: ${name}`);
      measured[name] = await measureSpeed(contenders, sizes, work);
    }
    return measured;
  } finally {
    for (const contender of contenders) if (contender !== tsserve) await contender.close();
  }
}

async function measureSpeed(contenders: readonly Contender[], sizes: ModelSizes, work: Workload): Promise<Speed> {
  const able: Contender[] = [];
  for (const contender of contenders) {
    try {
      await contender.prepare(work);
      able.push(contender);
    } catch (error) {
      if (contender.name === 'tsserve') throw error;
      note(`the rest without ${contender.name}, which failed (${String(error)}):`);
    }
  }
  const taken: Partial<Record<ContenderName, Sample>>[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const samples: Partial<Record<ContenderName, Sample>> = {};
    for (const contender of inTurn(able, round)) {
      const peaks = await probe.measure(sizes.streamedBytes);
      const value = await contender.measure(work);
      samples[contender.name] = { value, limit: limit(sizes, peaks, work, generated), ...peaks };
    }
    taken.push(samples);
  }
  return { date: new Date().toISOString(), rounds: taken };
}

async function measureChats(path: string): Promise<Record<string, Chat>> {
  const chosen = chats.filter(({ name }) => wanted.test(name));
  const measured: Record<string, Chat> = {};
  if (chosen.length === 0) return measured;
  const servers = await startServers(path, maxUsers);
  try {
    for (const { name, users, each, prefixCache } of chosen) {
      note(`${basename(path)}: ${name}`);
      const load = { users, each: flags.quick ? 1 : each, tokens: generated, prefixCache };
      // Unrecorded: every slot of llama-server sees the shared prompt once.
      for (const [, { port }] of servers) await chatLoad({ ...load, port, each: 1 });
      const taken: Partial<Record<ContenderName, ChatSample>>[] = [];
      for (let round = 0; round < Math.min(rounds, 5); round += 1) {
        const samples: Partial<Record<ContenderName, ChatSample>> = {};
        for (const [server, { port }] of inTurn(servers, round)) samples[server] = await chatLoad({ ...load, port });
        taken.push(samples);
      }
      measured[name] = { date: new Date().toISOString(), users, prefixCache, rounds: taken };
    }
    return measured;
  } finally {
    for (const [, server] of servers) await server.close();
  }
}

async function measureFootprint({ model }: Tsserve, path: string): Promise<Footprint> {
  note(`${model.id}: ${footprintName}`);
  const users = 16;
  const taken = new Map<ContenderName, ServerFootprint[]>();
  for (let round = 0; round < Math.min(rounds, 3); round += 1) {
    for (const [name, start] of inTurn(serverStarts(path, users), round)) {
      const server = await start();
      try {
        const residentReady = (await server.resident()) ?? NaN;
        if (model.chatTemplate !== undefined)
          await chatLoad({ port: server.port, users: 8, each: 1, tokens: generated, prefixCache: true });
        const residentUsed = (await server.resident()) ?? NaN;
        const idleCpu = await server.idleCpu(flags.quick ? 1 : 5);
        const { toHealth, toReady } = server;
        taken.set(name, [...(taken.get(name) ?? []), { toHealth, toReady, residentReady, residentUsed, idleCpu }]);
      } finally {
        await server.close();
      }
    }
  }
  const servers: Partial<Record<ContenderName, ServerFootprint>> = {};
  for (const [name, samples] of taken) {
    const middle = (part: keyof ServerFootprint): number => median(samples.map((sample) => sample[part]));
    servers[name] = {
      toHealth: middle('toHealth'),
      toReady: middle('toReady'),
      residentReady: middle('residentReady'),
      residentUsed: middle('residentUsed'),
      idleCpu: middle('idleCpu'),
    };
  }
  return { date: new Date().toISOString(), servers, kvBytes: kvBytesFor(model, users) };
}

type ServerStart = readonly [name: ContenderName, start: () => Promise<RunningServer>];

function serverStarts(path: string, users: number): readonly ServerStart[] {
  const starts: ServerStart[] = [['tsserve', () => startTsserve(path, threads, users, kvCacheType)]];
  const programs = flags['llama-cpp'];
  if (programs !== undefined && flags.peer.includes('llama.cpp'))
    starts.push(['llama.cpp', () => startLlamaServer(programs, path, threads, users, kvCacheType)]);
  return starts;
}

async function startServers(path: string, users: number): Promise<readonly [ContenderName, RunningServer][]> {
  const servers: [ContenderName, RunningServer][] = [];
  try {
    for (const [name, start] of serverStarts(path, users)) servers.push([name, await start()]);
    return servers;
  } catch (error) {
    for (const [, server] of servers) await server.close();
    throw error;
  }
}

/** The servers keep 1024 positions for each user; the engine here was loaded with another number. */
function kvBytesFor({ kvBytes, kvBlocks, blockSize }: Tsserve['model'], users: number): number {
  return (kvBytes / (kvBlocks * blockSize)) * users * 1024;
}

function cacheTypeOf(name: string): KvCacheType {
  const found = KV_CACHE_TYPES.find((type) => type === name);
  if (found === undefined) throw new Error(`--kv-cache-type knows ${KV_CACHE_TYPES.join(', ')}`);
  return found;
}

/** In every other round the other way round, so that a machine that gets slower favours nobody. */
function inTurn<T>(all: readonly T[], round: number): readonly T[] {
  return round % 2 === 0 ? all : [...all].reverse();
}

function note(text: string): void {
  process.stderr.write(`measuring ${text} …\n`);
}
