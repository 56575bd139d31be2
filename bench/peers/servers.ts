/** The servers as processes: how long they take to start, and what they hold. */

import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import type { KvCacheType } from '../../ts/engine/types.js';

/** Room for each user of a chat. */
const contextPerUser = 1024;
/** Linux counts a process's CPU time in hundredths of a second. */
const ticksPerSecond = 100;
const startTimeout = 120_000;

export interface RunningServer {
  readonly port: number;
  /** Milliseconds from the start until /health answers at all, and until it says that the model is there. */
  readonly toHealth: number;
  readonly toReady: number;
  /** Bytes resident; undefined where there is no /proc. */
  resident(): Promise<number | undefined>;
  /** Share of one core that the process takes while nobody asks it anything. */
  idleCpu(seconds: number): Promise<number>;
  close(): Promise<void>;
}

export async function startTsserve(
  model: string,
  threads: number,
  users: number,
  kvCacheType: KvCacheType,
): Promise<RunningServer> {
  const cli = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
  const limits = ['--threads', threads, '--max-num-seqs', users, '--max-model-len', contextPerUser].map(String);
  const quiet = ['--log-level', 'error', '--responses-store', 'off'];
  const args = [cli, 'serve', model, ...quiet, '--device', 'cpu', '--kv-cache-type', kvCacheType, ...limits];
  return start(process.execPath, args);
}

export async function startLlamaServer(
  programs: string,
  model: string,
  threads: number,
  users: number,
  kvCacheType: KvCacheType,
): Promise<RunningServer> {
  const cache = ['-ctk', kvCacheType, '-ctv', kvCacheType];
  const limits = ['-t', threads, '-np', users, '-c', users * contextPerUser].map(String);
  return start(join(programs, 'llama-server'), ['-m', model, '--log-disable', '--offline', ...cache, ...limits]);
}

/** Starts a server on a free port and waits until its /health says that the model is loaded. */
async function start(program: string, args: readonly string[]): Promise<RunningServer> {
  const port = await freePort();
  const started = performance.now();
  const child = spawn(program, [...args, '--port', String(port)], { stdio: ['ignore', 'ignore', 'inherit'] });
  const ended = once(child, 'exit');
  let toHealth: number | undefined;
  for (;;) {
    const state = await health(port);
    const passed = performance.now() - started;
    if (state !== 'silent') toHealth ??= passed;
    if (state === 'ready') return running(child, ended, port, toHealth ?? passed, passed);
    if (child.exitCode !== null || passed > startTimeout) {
      child.kill('SIGKILL');
      throw new Error(`${program} did not get ready`);
    }
    await sleep(2);
  }
}

function running(
  child: ChildProcess,
  ended: Promise<unknown>,
  port: number,
  toHealth: number,
  toReady: number,
): RunningServer {
  const proc = (file: string): Promise<string | undefined> =>
    readFile(`/proc/${child.pid ?? 0}/${file}`, 'utf8').catch(() => undefined);
  const cpuTicks = async (): Promise<number> => {
    // Past the name, which may hold anything, the 12th and 13th values are user and system time.
    const values = (await proc('stat'))?.split(') ').at(-1)?.split(' ') ?? [];
    return Number(values[11]) + Number(values[12]);
  };
  return {
    port,
    toHealth,
    toReady,
    async resident() {
      const kilobytes = /^VmRSS:\s+(\d+) kB/m.exec((await proc('status')) ?? '')?.[1];
      return kilobytes === undefined ? undefined : Number(kilobytes) * 1024;
    },
    async idleCpu(seconds) {
      const before = await cpuTicks();
      await sleep(seconds * 1000);
      return ((await cpuTicks()) - before) / ticksPerSecond / seconds;
    },
    async close() {
      child.kill('SIGKILL');
      await ended;
    },
  };
}

/** llama-server answers with an error while it loads; tsserve is alive at once and lists the models that are ready. */
async function health(port: number): Promise<'silent' | 'loading' | 'ready'> {
  try {
    const response = await fetch(`http://127.0.0.1:${port}/health`);
    const { status, models } = (await response.json()) as { readonly status?: string; readonly models?: unknown[] };
    return status === 'ok' && models?.length !== 0 ? 'ready' : 'loading';
  } catch {
    return 'silent';
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port is free');
  return address.port;
}
