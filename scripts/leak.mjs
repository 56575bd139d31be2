/**
 * `npm run leak [-- --clients 500 --rounds 4]`: mixed clients with random aborts against `tsserve serve` as a process
 * of its own with real weights. After each round nothing may run, every KV block must be free and no connection open; and
 * after two rounds, which fill caches and pools, neither the process nor JavaScript's heap may grow. Garbage is collected
 * before they are measured, through the inspector.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';

import WebSocket from 'ws';

import { runMixedClients } from './lib/mixed-clients.mjs';
import { megabytes, root, runScript, say, Stop } from './lib/terminal.mjs';
import { fetchWeights, textModels } from './lib/weights.mjs';

/** Rounds until the level is taken that later ones are held to. */
const WARM_ROUNDS = 2;
/** What the process may show more than that: pages that are free go back as the allocators like. */
const TOLERANCE = 40e6;
/** Handles more than that: a file that the store has open at the moment. A leak is one for every few clients. */
const HANDLE_TOLERANCE = 4;
/** Live bytes on the heap more than that. */
const HEAP_TOLERANCE = 3e6;
const SETTLE_MS = 60_000;

await runScript(async () => {
  const { values } = parseArgs({
    options: { clients: { type: 'string', default: '500' }, rounds: { type: 'string', default: '4' } },
  });
  const model = await fetchWeights((await textModels())[0]);
  const folder = await mkdtemp(join(tmpdir(), 'tsserve-leak-'));
  const server = await serve(model, join(folder, 'responses.db'));
  try {
    const levels = [await settled(server)];
    describe('before', levels[0]);
    for (let round = 1; round <= Number(values.rounds); round++) {
      const start = performance.now();
      const failures = [];
      const ends = await runMixedClients(server.url, {
        clients: Number(values.clients),
        seed: round,
        onAnswer: (status, text) => status >= 500 && failures.push(`${status} ${text.slice(0, 300)}`),
      });
      if (failures.length > 0) throw new Stop(`${failures.length} answers were 5xx: ${failures[0]}`);
      const level = await settled(server);
      const seconds = ((performance.now() - start) / 1000).toFixed(0);
      describe(`round ${round} (${seconds} s, ${JSON.stringify(ends)})`, level);
      levels.push(level);
    }
    const warm = levels[WARM_ROUNDS];
    for (const level of levels.slice(WARM_ROUNDS + 1)) {
      if (level.heap > warm.heap + HEAP_TOLERANCE) {
        throw new Stop(`the heap grew from ${megabytes(warm.heap)} to ${megabytes(level.heap)}`);
      }
      if (level.bytes > warm.bytes + TOLERANCE) {
        throw new Stop(`the process grew from ${megabytes(warm.bytes)} to ${megabytes(level.bytes)}`);
      }
      if (level.handles > warm.handles + HANDLE_TOLERANCE) {
        throw new Stop(`${level.handles} handles are open, and ${warm.handles} were before`);
      }
    }
    say('nothing is left behind');
  } finally {
    server.process.kill('SIGINT');
    await new Promise((resolve) => server.process.once('exit', resolve));
    await rm(folder, { recursive: true, force: true });
  }
});

async function serve(model, store) {
  const flags = ['--port', '0', '--log-level', 'error', '--responses-store', store];
  // A cache that the first round touches whole: memory that is only promised does not count as taken.
  flags.push('--kv-cache-memory', '128M', '--max-model-len', '2048');
  const args = ['--inspect=127.0.0.1:0', '--import=tsx', 'ts/cli/main.ts', 'serve', model, ...flags];
  const process_ = spawn(process.execPath, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
  let inspector;
  createInterface({ input: process_.stderr }).on('line', (line) => {
    inspector ??= /^Debugger listening on (\S+)/.exec(line)?.[1];
    if (/\berror\b/.test(line)) say(line);
  });
  let url;
  for await (const line of createInterface({ input: process_.stdout })) {
    url ??= / listens on (\S+)/.exec(line)?.[1];
    if (line.startsWith('loaded ')) return { process: process_, url, inspector };
  }
  throw new Stop('the server ended before its model was loaded');
}

/** Waits until nothing runs, then says what the process holds. */
async function settled(server) {
  const deadline = performance.now() + SETTLE_MS;
  for (;;) {
    const figures = await metrics(server.url);
    const busy = figures.tsserve_sequences_running + figures.tsserve_sequences_waiting;
    const held = figures.tsserve_kv_blocks - figures.tsserve_kv_blocks_free;
    // The one that asks for the figures is running, too.
    const idle = busy === 0 && held === 0 && figures.tsserve_http_requests_running === 1;
    if (idle) {
      const heap = await collectGarbage(server.inspector);
      const { tsserve_resident_memory_bytes: bytes } = await metrics(server.url);
      return { bytes, heap, handles: await openHandles(server.process.pid) };
    }
    if (performance.now() > deadline) {
      const requests = figures.tsserve_http_requests_running - 1;
      throw new Stop(`after a minute ${busy} sequences, ${held} KV blocks and ${requests} requests are still held`);
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function metrics(url) {
  const text = await (await fetch(`${url}/metrics`, { headers: { connection: 'close' } })).text();
  return Object.fromEntries(
    [...text.matchAll(/^(tsserve_\w+)(?:\{[^}]*\})? (\S+)$/gm)].map(([, k, v]) => [k, Number(v)]),
  );
}

/** @returns what is alive on the heap, in bytes */
async function collectGarbage(inspector) {
  const socket = new WebSocket(inspector);
  await once(socket, 'open');
  const call = async (method, params = {}) => {
    socket.send(JSON.stringify({ id: 1, method, params }));
    for (;;) {
      const [data] = await once(socket, 'message');
      const message = JSON.parse(data.toString());
      if (message.id === 1) return message.result;
    }
  };
  for (let i = 0; i < 3; i++) await call('HeapProfiler.collectGarbage');
  const { usedSize } = await call('Runtime.getHeapUsage');
  socket.close();
  await once(socket, 'close');
  return usedSize;
}

/** Files and sockets; where the system does not tell, 0. */
async function openHandles(pid) {
  const folder = `/proc/${pid}/fd`;
  return existsSync(folder) ? (await readdir(folder)).length : 0;
}

function describe(what, { bytes, heap, handles }) {
  say(`${what}: ${megabytes(bytes)}, heap ${(heap / 1e6).toFixed(1)} MB, ${handles} handles, all KV blocks free`);
}
