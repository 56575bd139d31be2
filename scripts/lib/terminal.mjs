/** What the scripts say, and how they start other programs. Progress goes to stderr, so that stdout stays the program's. */

import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../../', import.meta.url));

/** A failure the user can act on: its message is one sentence. */
export class Stop extends Error {}

export function say(text) {
  process.stderr.write(`${text}\n`);
}

/** Runs `main`; a `Stop` becomes its sentence and exit code 1, anything else keeps its stack. */
export async function runScript(main) {
  try {
    await main();
  } catch (error) {
    if (!(error instanceof Stop)) throw error;
    say(`tsserve: ${error.message}`);
    process.exitCode = 1;
  }
}

/**
 * Runs a program in the repository's root and resolves to its exit code (or -1 if it could not be started, with
 * `missing` true). What it prints goes to stderr, unless `stdout` says 'inherit' or a function that takes each chunk.
 */
export function run(command, args, { env, stdout, stderr, cwd = root } = {}) {
  return new Promise((resolve) => {
    const sink = (choice) => (typeof choice === 'function' ? 'pipe' : choice === 'inherit' ? 1 : 2);
    // npm and cargo's shims are batch files on Windows, which only a shell starts.
    const shell = process.platform === 'win32' && /^(npm|npx|pip3?)$/.test(command);
    const child = spawn(command, args, {
      cwd,
      shell,
      env: { ...process.env, ...env },
      stdio: ['ignore', sink(stdout), sink(stderr)],
    });
    if (typeof stdout === 'function') child.stdout.on('data', stdout);
    if (typeof stderr === 'function') child.stderr.on('data', stderr);
    child.on('error', (error) => resolve({ code: -1, missing: error.code === 'ENOENT' }));
    child.on('close', (code, signal) => resolve({ code: code ?? 128, signal, missing: false }));
  });
}

/** Like `run`, silent: the program's output as text. */
export async function capture(command, args, options) {
  let text = '';
  const take = (chunk) => (text += chunk);
  const result = await run(command, args, { ...options, stdout: take, stderr: take });
  return { ...result, text };
}

/** npm by the copy that started this script, where there is one. */
export function npm(args, options) {
  const cli = process.env.npm_execpath;
  return cli?.endsWith('.js') ? run(process.execPath, [cli, ...args], options) : run('npm', args, options);
}

/** A tool of node_modules, by its entry file. */
export function tool(entry, args, options) {
  return run(
    process.execPath,
    [fileURLToPath(new URL(`../../node_modules/${entry}`, import.meta.url)), ...args],
    options,
  );
}

export function megabytes(bytes) {
  return bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${Math.max(1, Math.round(bytes / 1e6))} MB`;
}
