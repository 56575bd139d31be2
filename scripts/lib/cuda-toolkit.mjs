/** A CUDA toolkit to compile with: the system's, or one put together from wheels under `.tsserve/cuda`. */

import { createWriteStream, existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { delimiter, dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';

import { capture, root, run, say, Stop } from './terminal.mjs';
import { download, sha256 } from './weights.mjs';
import { listEntries, openEntry } from './zip.mjs';

const folder = join(root, '.tsserve', 'cuda');
const toolkit = join(folder, 'nvidia', 'cu13');

/** Resolves to the environment to build in. `CUDA_COMPUTE_CAP` may be set by the caller; 80 (Ampere) runs on all later ones. */
export async function cudaEnvironment() {
  const computeCap = process.env.CUDA_COMPUTE_CAP ?? '80';
  if ((await capture('nvcc', ['--version'])).code === 0) return { CUDA_COMPUTE_CAP: computeCap };
  const list = JSON.parse(await readFile(new URL('../cuda.json', import.meta.url), 'utf8'));
  if (`${process.platform}-${process.arch}` !== list.platform) {
    throw new Stop('nvcc is missing: install the CUDA toolkit and put its bin folder on PATH');
  }
  for (const wheel of list.wheels) await unpackWheel(wheel);
  const links = await linkLibraries();
  const environment = {
    CUDA_HOME: toolkit,
    CUDA_PATH: toolkit,
    CUDA_ROOT: toolkit,
    CUDA_TOOLKIT_ROOT_DIR: toolkit,
    CUDA_COMPUTE_CAP: computeCap,
    CUDARC_CUDA_VERSION: String(list.version),
    NVCC: join(toolkit, 'bin', 'nvcc'),
    PATH: `${join(toolkit, 'bin')}${delimiter}${process.env.PATH ?? ''}`,
    LIBRARY_PATH: [links, process.env.LIBRARY_PATH].filter(Boolean).join(delimiter),
  };
  const nvcc = await capture('nvcc', ['--version'], { env: environment });
  if (nvcc.code !== 0)
    throw new Stop(`the fetched nvcc does not run on this machine: ${nvcc.text.trim().split('\n').at(-1)}`);
  return environment;
}

/** Each wheel leaves a mark, so that an interrupted run goes on where it stopped. */
async function unpackWheel(wheel) {
  const mark = join(folder, '.done', `${wheel.name}-${wheel.version}`);
  if (existsSync(mark)) return;
  await mkdir(dirname(mark), { recursive: true });
  const temporary = await mkdtemp(join(folder, 'wheel-'));
  try {
    say(`fetching ${wheel.name} ${wheel.version} …`);
    const file = await download({ requirement: `${wheel.name}==${wheel.version}`, folder: temporary });
    if ((await sha256(file)) !== wheel.sha256) {
      throw new Stop(`the package ${wheel.name} ${wheel.version} is not what was expected: its checksum is wrong`);
    }
    for (const name of await listEntries(file)) {
      if (!name.startsWith('nvidia/') || name.split('/').includes('..')) continue;
      const target = join(folder, name);
      await mkdir(dirname(target), { recursive: true });
      await pipeline(...(await openEntry(file, name)), createWriteStream(`${target}.unfinished`));
      await rename(`${target}.unfinished`, target);
      if (/\/bin\/[^/]+$/.test(name)) await chmod(target, 0o755);
    }
    await writeFile(mark, '');
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

/** The wheels hold `libX.so.13` only, and no driver library: the linker wants `libX.so`, and a stub of libcuda. */
async function linkLibraries() {
  const links = join(folder, 'links');
  await rm(links, { recursive: true, force: true });
  await mkdir(links, { recursive: true });
  const libraries = join(toolkit, 'lib');
  for (const name of await readdir(libraries)) {
    const plain = /^(lib[\w-]+\.so)\.\d+(\.\d+)*$/.exec(name)?.[1];
    if (plain !== undefined && !existsSync(join(links, plain)))
      await symlink(join(libraries, name), join(links, plain));
  }
  const source = join(links, 'stub.c');
  await writeFile(source, '');
  const stub = ['-shared', '-fPIC', '-Wl,-soname,libcuda.so.1', '-o', join(links, 'libcuda.so'), source];
  if ((await run('cc', stub)).code !== 0) throw new Stop('a C compiler is missing: install one and run this again');
  return links;
}
