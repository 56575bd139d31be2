/** How long `tsserve serve` takes to be ready, and the memory it then holds. */

import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

export interface StartUp {
  /** Seconds from the process's start until it listens. */
  readonly listening: number;
  /** Seconds from the process's start until the model is loaded. */
  readonly ready: number;
  /** Bytes resident once ready; unknown on Windows. */
  readonly residentBytes: number | undefined;
}

export async function measureStartUp(model: string): Promise<StartUp> {
  const cli = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));
  const start = performance.now();
  const server = spawn(process.execPath, [cli, 'serve', model, '--port', '0', '--log-level', 'error'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = once(server, 'exit');
  let listening = NaN;
  try {
    for await (const line of createInterface({ input: server.stdout })) {
      const seconds = (performance.now() - start) / 1000;
      if (line.includes(' listens on ')) listening = seconds;
      if (line.startsWith('loaded '))
        return { listening, ready: seconds, residentBytes: await residentBytes(server.pid) };
    }
    throw new Error('the server ended before it was ready');
  } finally {
    server.kill('SIGTERM');
    await ended;
  }
}

async function residentBytes(pid: number | undefined): Promise<number | undefined> {
  if (pid === undefined || process.platform === 'win32') return undefined;
  const { stdout } = await promisify(execFile)('ps', ['-o', 'rss=', '-p', String(pid)]);
  return Number(stdout.trim()) * 1024;
}
