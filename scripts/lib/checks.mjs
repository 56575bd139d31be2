/** The checks that `npm test` and `npm run ready` are made of. Each says how many tests passed and failed. */

import { readdir } from 'node:fs/promises';
import { join } from 'node:path';

import { addonFile } from './setup.mjs';
import { capture, root, run, say, Stop, tool } from './terminal.mjs';

/**
 * Arguments of cargo for the machine's own target, named: `napi build` names it too, and cargo keeps what it built with
 * and without a named target apart. All crates would be built twice.
 */
async function forHost([command, ...args]) {
  const { text } = await capture('rustc', ['-vV']);
  const host = /^host: (\S+)$/m.exec(text)?.[1];
  return host === undefined ? [command, ...args] : [command, '--target', host, ...args];
}

const cargo = (args) => async () => run('cargo', await forHost(args), { stdout: 'inherit' });
const node = (entry, args) => () => tool(entry, args, { stdout: 'inherit' });

export const rustTests = {
  name: 'cargo test',
  count: /^test result: \w+\. (\d+) passed; (\d+) failed/gm,
  run: async () => counted('cargo', await forHost(['test', '--release', '--workspace', '--no-fail-fast']))(),
};
export const nodeTests = {
  name: 'mocha',
  count: /^\s+(?:(\d+) passing|(\d+) failing)/gm,
  run: counted(process.execPath, [join(root, 'node_modules/mocha/bin/mocha.js'), '__test__/*.test.ts']),
};
export const clippy = {
  name: 'clippy',
  run: cargo(['clippy', '--release', '--workspace', '--all-targets', '--keep-going', '--', '-D', 'warnings']),
};
export const rustFormat = {
  name: 'rustfmt',
  run: () => run('cargo', ['fmt', '--all', '--check'], { stdout: 'inherit' }),
};
export const types = { name: 'tsc', run: node('typescript/bin/tsc', ['-p', 'tsconfig.json']) };
export const lint = { name: 'eslint', run: node('eslint/bin/eslint.js', ['.']) };
export const format = {
  name: 'prettier',
  run: node('prettier/bin/prettier.cjs', ['--check', '--log-level', 'warn', '.']),
};

/** Building must leave index.js and index.d.ts as they are committed. */
export const generatedFiles = {
  name: 'generated files',
  async run() {
    const { code, missing, text } = await capture('git', [
      'diff',
      '--exit-code',
      '--stat',
      '--',
      'index.js',
      'index.d.ts',
    ]);
    if (missing || /not a git repository/i.test(text)) return { skipped: 'this is not a git checkout' };
    if (code !== 0) say(`${text}index.js or index.d.ts changed by building ${addonFile}: commit them`);
    return { code };
  },
};

/** Metal code is type-checked from any machine that has the target's standard library. */
export const metal = {
  name: 'metal type check',
  async run() {
    const target = 'aarch64-apple-darwin';
    await capture('rustup', ['target', 'add', target]);
    const { text } = await capture('rustc', ['--print', 'target-libdir', '--target', target]);
    const library = await readdir(text.trim()).catch(() => []);
    if (!library.some((name) => name.startsWith('libcore-')))
      return { skipped: `the Rust target ${target} is not installed` };
    return run('cargo', ['check', '--release', '--target', target, '-p', 'tsserve-models', '--features', 'metal'], {
      stdout: 'inherit',
    });
  },
};

export const licences = {
  name: 'cargo-deny',
  async run() {
    if ((await capture('cargo', ['deny', '--version'])).code !== 0) return { skipped: 'cargo-deny is not installed' };
    return run('cargo', ['deny', '--offline', 'check', 'licenses', 'bans', 'sources'], { stdout: 'inherit' });
  },
};

/** Runs the checks one after the other, all of them, and closes with one plain line. */
export async function runChecks(checks) {
  let passed = 0;
  const failures = [];
  for (const check of checks) {
    say(`\n── ${check.name}`);
    const result = await check.run();
    if (result.missing) throw new Stop(`${check.name} could not be started: the program is missing`);
    if (result.skipped !== undefined) {
      say(`skipped: ${result.skipped}`);
      continue;
    }
    const counts = check.count === undefined ? { passed: 0, failed: 0 } : tally(result.text, check.count);
    passed += counts.passed;
    failures.push(...Array.from({ length: counts.failed }, () => check.name));
    // A failure that no test accounts for: the compiler, a lint, a crash.
    if (result.code !== 0 && counts.failed === 0) failures.push(check.name);
    if (result.code === 0 && check.count === undefined) passed += 1;
  }
  if (failures.length > 0) say(`\nfailed: ${[...new Set(failures)].join(', ')}`);
  process.stdout.write(`\n${passed} passed, ${failures.length} failed\n`);
  if (failures.length > 0) process.exitCode = 1;
}

/** Shows what the program prints and keeps it for counting. */
function counted(command, args) {
  return async () => {
    let text = '';
    const stdout = (chunk) => {
      process.stdout.write(chunk);
      text += chunk;
    };
    return { ...(await run(command, args, { stdout })), text };
  };
}

function tally(text, pattern) {
  const totals = { passed: 0, failed: 0 };
  for (const match of text.matchAll(pattern)) {
    totals.passed += Number(match[1] ?? 0);
    totals.failed += Number(match[2] ?? 0);
  }
  return totals;
}
