/** Everything that has to stand before the program or its tests can run; each step does nothing when it is already done. */

import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';

import { whenChanged } from './stamp.mjs';
import { npm, root, say, Stop, tool } from './terminal.mjs';
import { checkNode, checkRust } from './toolchain.mjs';

const libc = process.platform === 'linux' ? (isMusl() ? '-musl' : '-gnu') : process.platform === 'win32' ? '-msvc' : '';
export const addonFile = `tsserve.${process.platform}-${process.arch}${libc}.node`;

/** Node's packages, the addon and the compiled TypeScript. */
export async function ensureBuilt() {
  await ensurePackages();
  await ensureAddon();
  await ensureTypeScript();
}

export async function ensurePackages() {
  checkNode();
  if (await packagesMatchLock()) return;
  say('installing the npm packages …');
  // Not `npm ci`: it refuses a lock file without the optional packages of every other platform. Versions are the lock's all the same.
  const { code } = await npm(['install', '--no-save', '--no-audit', '--no-fund', '--loglevel=error']);
  if (code !== 0) throw new Stop("the npm packages could not be installed: see npm's message above");
}

export async function ensureAddon() {
  const inputs = ['Cargo.toml', 'Cargo.lock', 'rust-toolchain.toml', 'package.json', 'crates'];
  await whenChanged('addon', { inputs, outputs: [addonFile, 'index.js', 'index.d.ts'] }, async () => {
    await checkRust();
    say('building the native addon (the first time takes some minutes) …');
    // Apple's GPU is part of the ordinary addon there: Metal needs nothing that macOS lacks.
    const metal = process.platform === 'darwin' && process.arch === 'arm64' ? ['--', '--features', 'metal'] : [];
    const { code } = await npm(['run', '--silent', 'build:native', ...metal]);
    if (code !== 0) throw new Stop("the native addon could not be built: see the compiler's message above");
  });
}

export async function ensureTypeScript() {
  const inputs = ['tsconfig.json', 'tsconfig.build.json', 'package-lock.json', 'index.d.ts', 'ts'];
  await whenChanged('typescript', { inputs, outputs: ['dist/index.js', 'dist/cli/main.js'] }, async () => {
    say('compiling the TypeScript …');
    await rm(join(root, 'dist'), { recursive: true, force: true });
    const { code } = await tool('typescript/bin/tsc', ['-p', 'tsconfig.build.json']);
    if (code !== 0) throw new Stop("the TypeScript could not be compiled: see the compiler's message above");
  });
}

/** Is every package of the lock file installed in its version? Optional ones may be absent: they are for other platforms. */
async function packagesMatchLock() {
  const lock = await readJson('package-lock.json');
  const installed = await readJson('node_modules/.package-lock.json').catch(() => undefined);
  if (installed === undefined) return false;
  return Object.entries(lock.packages).every(([path, wanted]) => {
    if (path === '') return true;
    const found = installed.packages[path];
    return found === undefined ? wanted.optional === true : found.version === wanted.version;
  });
}

async function readJson(path) {
  return JSON.parse(await readFile(join(root, path), 'utf8'));
}

function isMusl() {
  return process.report?.getReport().header.glibcVersionRuntime === undefined;
}

/** Compiled or interpreted, the CLI runs in this process: one process less to forward signals to. */
export async function runCli(args) {
  const entry = join(root, 'dist', 'cli', 'main.js');
  process.argv = [process.argv[0], entry, ...args];
  await import(new URL('../../dist/cli/main.js', import.meta.url).href);
}
