/**
 * `npm run leak [-- --clients 500 --rounds 3]`: mixed clients with random aborts against `tsserve serve` as a process
 * of its own with real weights. After each round nothing may run, every KV block must be free and no connection open; and
 * from the second round on the process may not grow: the first one fills caches and pools.
 */

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';

import { runMixedClients } from './lib/mixed-clients.mjs';
import { megabytes, root, runScript, say, Stop } from './lib/terminal.mjs';
import { fetchWeights, textModels } from './lib/weights.mjs';

/** Memory that a round may add: a garbage collector is no clock. */
const TOLERANCE = 24e6;
const SETTLE_MS = 60_000;

await runScript(async () => {
  const { values } = parseArgs({
    options: { clients: { type: 'string', default: '500' }, rounds: { type: 'string', default: '3' } },
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
    const [, first, ...later] = levels;
    for (const level of later) {
      if (level.bytes > first.bytes + TOLERANCE) {
        throw new Stop(`the process grew from ${megabytes(first.bytes)} to ${megabytes(level.bytes)}`);
      }
      if (level.handles > first.handles) {
        throw new Stop(`${level.handles} handles are open, ${first.handles} were after the first round`);
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
  const args = ['--import=tsx', 'ts/cli/main.ts', 'serve', model, ...flags];
  const process_ = spawn(process.execPath, args, { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] });
  let url;
  for await (const line of createInterface({ input: process_.stdout })) {
    url ??= / listens on (\S+)/.exec(line)?.[1];
    if (line.startsWith('loaded ')) return { process: process_, url };
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
    if (idle) return { bytes: figures.tsserve_resident_memory_bytes, handles: await openHandles(server.process.pid) };
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

/** Files and sockets; where the system does not tell, 0. */
async function openHandles(pid) {
  const folder = `/proc/${pid}/fd`;
  return existsSync(folder) ? (await readdir(folder)).length : 0;
}

function describe(what, { bytes, handles }) {
  say(`${what}: ${megabytes(bytes)}, ${handles} handles, all KV blocks free`);
}
