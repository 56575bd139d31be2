/** The checks that `npm test` and `npm run ready` are made of. Each says how many tests passed and failed. */

import { readdir, realpath } from 'node:fs/promises';
import { dirname, join } from 'node:path';

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

/** Is the target's standard library here, or could it be fetched? */
async function hasTarget(target) {
  await capture('rustup', ['target', 'add', target]);
  const { text } = await capture('rustc', ['--print', 'target-libdir', '--target', target]);
  const library = await readdir(text.trim()).catch(() => []);
  return library.some((name) => name.startsWith('libcore-'));
}

const appleTarget = 'aarch64-apple-darwin';

/** Metal code is type-checked from any machine that has the target's standard library. */
export const metal = {
  name: 'metal type check',
  async run() {
    if (!(await hasTarget(appleTarget))) return { skipped: `the Rust target ${appleTarget} is not installed` };
    const args = ['check', '--release', '--target', appleTarget, '-p', 'tsserve-models', '--features', 'metal'];
    return run('cargo', args, { stdout: 'inherit' });
  },
};

const armTarget = 'aarch64-unknown-linux-gnu';
const armCompiler = 'aarch64-linux-gnu-gcc';
const armKernels = ['--release', '--target', armTarget, '-p', 'tsserve-kernels'];

/** Why kernels for aarch64 need not or cannot be compiled here. */
async function armSkipped() {
  if (process.arch === 'arm64') return 'this machine is aarch64: its own tests and clippy are those of aarch64';
  return (await hasTarget(armTarget)) ? undefined : `the Rust target ${armTarget} is not installed`;
}

export const armClippy = {
  name: 'clippy of aarch64 kernels',
  async run() {
    const skipped = await armSkipped();
    if (skipped !== undefined) return { skipped };
    return run('cargo', ['clippy', ...armKernels, '--all-targets', '--', '-D', 'warnings'], { stdout: 'inherit' });
  },
};

/** Processors that are emulated, and the level that is to be found on each: all instructions, without i8mm, without dotprod. */
const newestArm = { cpu: 'max', level: 'i8mm' };
const olderArms = [
  { cpu: 'neoverse-n1', level: 'neon' },
  { cpu: 'cortex-a72', level: 'scalar' },
];

/** The kernels' tests on an emulated processor, or why they cannot be run. */
async function emulatedTests({ cpu, level }, filter = []) {
  const skipped = await armSkipped();
  if (skipped !== undefined) return { skipped };
  // The loader of the target's programs lies in the folder that the emulator is to take for the root.
  const loader = await capture(armCompiler, ['-print-file-name=ld-linux-aarch64.so.1']);
  if (loader.code !== 0) return { skipped: `the cross compiler ${armCompiler} is not installed` };
  const path = await realpath(loader.text.trim()).catch(() => undefined);
  if (path === undefined) return { skipped: `${armCompiler} has no C library for its target` };
  const emulator = await firstInstalled(['qemu-aarch64-static', 'qemu-aarch64']);
  if (emulator === undefined) return { skipped: 'qemu-aarch64-static is not installed' };
  const env = {
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER: armCompiler,
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER: `${emulator} -cpu ${cpu} -L ${dirname(dirname(path))}`,
    TSSERVE_EXPECTED_CPU: level,
  };
  return counted('cargo', ['test', ...armKernels, '--no-fail-fast', '--', ...filter], { env })();
}

/** All of them where there is every instruction, so that kernels run at all levels. */
export const armTests = {
  name: 'cargo test of aarch64 kernels, emulated',
  count: rustTests.count,
  run: () => emulatedTests(newestArm),
};

/** Those of levels, where there are fewer: the level is found, and its kernels need nothing else. */
export const olderArmTests = {
  name: 'cargo test of aarch64 kernels on older processors, emulated',
  count: rustTests.count,
  async run() {
    const whole = { code: 0, text: '' };
    for (const arm of olderArms) {
      const part = await emulatedTests(arm, ['level']);
      if (part.skipped !== undefined || part.missing) return part;
      whole.code ||= part.code;
      whole.text += part.text;
    }
    return whole;
  },
};

async function firstInstalled(programs) {
  for (const program of programs) if ((await capture(program, ['--version'])).code === 0) return program;
  return undefined;
}

/** The kernels alone for macOS: nothing is linked. */
export const appleKernels = {
  name: 'macOS type check of kernels',
  async run() {
    if (!(await hasTarget(appleTarget))) return { skipped: `the Rust target ${appleTarget} is not installed` };
    return run('cargo', ['check', '--release', '--target', appleTarget, '-p', 'tsserve-kernels'], {
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
function counted(command, args, options) {
  return async () => {
    let text = '';
    const stdout = (chunk) => {
      process.stdout.write(chunk);
      text += chunk;
    };
    return { ...(await run(command, args, { ...options, stdout })), text };
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
