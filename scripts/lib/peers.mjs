/**
 * The programs that `npm run bench -- --peers` measures beside tsserve, and the probe of what the machine can do. All of
 * them lie under `.tsserve/peers`, fetched and built when they are first asked for; the product needs none of them.
 */

import { existsSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { availableParallelism, freemem } from 'node:os';
import { join } from 'node:path';

import { whenChanged } from './stamp.mjs';
import { capture, npm, root, run, say, Stop } from './terminal.mjs';
import { checkRust } from './toolchain.mjs';
import { findPip, reasonOfPip, sha256 } from './weights.mjs';

const folder = join(root, '.tsserve', 'peers');
export const executable = process.platform === 'win32' ? '.exe' : '';
/** One compiler takes about so much for llama.cpp's larger files. */
const compilerMemory = 1.5e9;

/** llama.cpp built for this very machine; resolves to the folder of its programs. */
export async function ensureLlamaCpp() {
  const pinned = JSON.parse(await readFile(join(root, 'bench/peers/llama-cpp.json'), 'utf8'));
  const home = join(folder, `llama-cpp-${pinned.version}`);
  const programs = join(home, 'bin');
  const outputs = pinned.targets.map(
    (target) => `.tsserve/peers/llama-cpp-${pinned.version}/bin/${target}${executable}`,
  );
  await whenChanged('peer-llama-cpp', { inputs: ['bench/peers/llama-cpp.json'], outputs }, async () => {
    await buildPinned('llama.cpp', pinned, home, (source) => [source, {}]);
  });
  return programs;
}

/**
 * Fetches a pinned source into `home` and builds its targets to `home/bin`. `projectOf` tells of the folder of the source
 * which folder CMake is run in, and with which options besides the pinned ones.
 */
export async function buildPinned(what, pinned, home, projectOf) {
  const missing = await missingTools();
  if (missing.length > 0) throw new Stop(`building ${what} takes ${missing.join(' and ')}: install that first`);
  await mkdir(home, { recursive: true });
  const source = join(home, pinned.source);
  if (!existsSync(source)) await fetchSource(what, pinned, home);
  say(`building ${what} (some minutes) …`);
  const build = join(home, 'build');
  const [project, more] = projectOf(source);
  const options = Object.entries({ ...pinned.options, ...more }).map(([name, value]) => `-D${name}=${value}`);
  const jobs = Math.max(1, Math.min(availableParallelism(), Math.floor(freemem() / compilerMemory)));
  const commands = [
    ['-S', project, '-B', build, ...options],
    ['--build', build, '--config', 'Release', '--parallel', String(jobs), '--target', ...pinned.targets],
  ];
  let text = '';
  for (const command of commands) {
    const result = await capture('cmake', command);
    text += result.text;
    await writeFile(join(home, 'build.log'), text);
    if (result.code !== 0) throw new Stop(`${what} could not be built: see ${join(home, 'build.log')}`);
  }
  const programs = join(home, 'bin');
  await mkdir(programs, { recursive: true });
  for (const target of pinned.targets) {
    const built = ['bin', 'bin/Release'].map((part) => join(build, part, `${target}${executable}`)).find(existsSync);
    if (built === undefined) throw new Stop(`${what} was built without ${target}: see ${join(home, 'build.log')}`);
    await copyFile(built, join(programs, `${target}${executable}`));
  }
  // Gigabytes of objects, and nothing else is made of them.
  await Promise.all([rm(build, { recursive: true, force: true }), rm(join(home, topOf(pinned)), { recursive: true })]);
}

/** node-llama-cpp with the binary its package brings for this machine; resolves to the folder it is installed in. */
export async function ensureNodeLlamaCpp() {
  const home = join(folder, 'node-llama-cpp');
  const outputs = ['.tsserve/peers/node-llama-cpp/node_modules/node-llama-cpp/package.json'];
  await whenChanged('peer-node-llama-cpp', { inputs: ['bench/peers/package.json'], outputs }, async () => {
    say('installing node-llama-cpp for the bench …');
    await rm(home, { recursive: true, force: true });
    await mkdir(home, { recursive: true });
    const manifest = JSON.parse(await readFile(join(root, 'bench/peers/package.json'), 'utf8'));
    const system = { linux: 'linux', darwin: 'mac', win32: 'win' }[process.platform];
    const binary = `@node-llama-cpp/${system}-${process.arch}${system === 'mac' && process.arch === 'arm64' ? '-metal' : ''}`;
    manifest.dependencies[binary] = manifest.dependencies['node-llama-cpp'];
    await writeFile(join(home, 'package.json'), JSON.stringify(manifest));
    // Its optional packages are binaries for every GPU, half a gigabyte; its install script would look for a compiler.
    const flags = ['--omit=optional', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'];
    const { code } = await npm(['install', ...flags], { cwd: home });
    if (code !== 0) throw new Stop("node-llama-cpp could not be installed: see npm's message above");
  });
  return home;
}

/** The probe of crates/kernels; resolves to its path. */
export async function ensureProbe() {
  const target = join(folder, `probe${executable}`);
  const inputs = ['Cargo.lock', 'crates/kernels'];
  await whenChanged('peer-probe', { inputs, outputs: [`.tsserve/peers/probe${executable}`] }, async () => {
    await checkRust();
    say('building the probe …');
    const args = ['build', '--release', '-p', 'tsserve-kernels', '--example', 'probe', '--message-format', 'json'];
    let text = '';
    const { code } = await run('cargo', args, { stdout: (chunk) => (text += chunk) });
    const built = /"executable":"((?:[^"\\]|\\.)*)"/.exec(text)?.[1];
    if (code !== 0 || built === undefined)
      throw new Stop("the probe could not be built: see the compiler's message above");
    await mkdir(folder, { recursive: true });
    await copyFile(JSON.parse(`"${built}"`), target);
  });
  return target;
}

/** pip checks the sum; of the package only the part that is wanted is unpacked. */
async function fetchSource(what, pinned, home) {
  const temporary = await mkdtemp(join(home, 'source-'));
  try {
    say(`fetching ${pinned.name} ${pinned.version} …`);
    const requirement = `${pinned.name}==${pinned.version}`;
    const list = join(temporary, 'requirements.txt');
    await writeFile(list, `${requirement} --hash=sha256:${pinned.sha256}\n`);
    const pip = await findPip(`pip is missing, which fetches the source of ${what}: install Python with pip`);
    const args = ['download', '--no-deps', `--no-binary=${pinned.name}`, '--require-hashes', '--no-input'];
    let complaint = '';
    const { code } = await run(pip.command, [...pip.args, ...args, '--dest', temporary, '-r', list], {
      stderr: (chunk) => (complaint += chunk),
    });
    if (code !== 0) throw new Stop(`${requirement} could not be fetched with pip: ${reasonOfPip(complaint)}`);
    const archive = join(temporary, pinned.archive);
    if (!existsSync(archive) || (await sha256(archive)) !== pinned.sha256)
      throw new Stop(`the package ${requirement} is not what was expected: its checksum is wrong`);
    if ((await run('tar', ['-xzf', archive, '-C', temporary, pinned.source])).code !== 0)
      throw new Stop(`the package ${requirement} could not be unpacked: see tar's message above`);
    await rename(join(temporary, topOf(pinned)), join(home, topOf(pinned)));
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

function topOf({ source }) {
  return source.split('/')[0];
}

async function missingTools() {
  const compilers = [process.env.CXX, 'c++', 'g++', 'clang++'].filter(Boolean);
  const found = async (commands) => {
    for (const command of commands) if ((await capture(command, ['--version'])).code === 0) return true;
    return false;
  };
  const missing = [];
  if (!(await found(['cmake']))) missing.push('CMake');
  if (process.platform !== 'win32' && !(await found(compilers))) missing.push('a C++ compiler');
  return missing;
}
