/** Runs the command line from its sources, as a process of its own. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));

/** Where servers of tests keep their responses. */
const dataFolder = mkdtempSync(path.join(tmpdir(), 'tsserve-data-'));
process.once('exit', () => rmSync(dataFolder, { recursive: true, force: true }));

export interface CliResult {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export function spawnCli(args: readonly string[], env: NodeJS.ProcessEnv = {}): ChildProcessWithoutNullStreams {
  const child = spawn(process.execPath, ['--import=tsx', 'ts/cli/main.ts', ...args], {
    cwd: root,
    env: {
      ...process.env,
      TSSERVE_API_KEY: '',
      NO_COLOR: '1',
      XDG_DATA_HOME: dataFolder,
      LOCALAPPDATA: dataFolder,
      ...env,
    },
    stdio: 'pipe',
  });
  child.stdout.setEncoding('utf8');
  child.stderr.setEncoding('utf8');
  return child;
}

/** Resolves when the process has ended and all that it printed is here. */
export function finished(child: ChildProcessWithoutNullStreams): Promise<CliResult> {
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (text) => (stdout += String(text)));
  child.stderr.on('data', (text) => (stderr += String(text)));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
}

export async function runCli(args: readonly string[], input = '', env: NodeJS.ProcessEnv = {}): Promise<CliResult> {
  const child = spawnCli(args, env);
  child.stdin.end(input);
  return finished(child);
}
