/** Picks the native addon (CPU or CUDA) and loads it through the generated loader, once per thread. */

import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

import { EngineError, type Device } from './types.js';

export type Addon = typeof import('../../index.js');

export interface LoadedAddon {
  readonly addon: Addon;
  readonly variant: 'cpu' | 'cuda';
  /** Why a variant that was looked for is not used; one sentence. */
  readonly note: string | undefined;
}

const require = createRequire(import.meta.url);
const platformTag = `${process.platform}-${process.arch}`;
let loading: Promise<LoadedAddon> | undefined;

/**
 * The addon of this thread. The first call decides the variant: `cuda` insists on it, `auto` takes it if it is
 * installed and loads.
 *
 * @throws EngineError `device_unavailable`, `internal`
 */
export async function loadAddon(device: Device): Promise<LoadedAddon> {
  loading ??= openAddon(device).catch((error: unknown) => {
    loading = undefined;
    throw error;
  });
  const loaded = await loading;
  if (device === 'cuda' && loaded.variant !== 'cuda') {
    throw new EngineError('device_unavailable', loaded.note ?? 'this process has already loaded the CPU addon');
  }
  return loaded;
}

async function openAddon(device: Device): Promise<LoadedAddon> {
  if (device === 'cpu' || device === 'metal') return openCpu(undefined);
  const cuda = findCudaAddon();
  if (cuda === undefined) {
    const note = `this install has no CUDA addon for ${platformTag}: build it with 'npm run build:cuda'`;
    if (device === 'cuda') throw new EngineError('device_unavailable', note);
    return openCpu(undefined);
  }
  try {
    return { addon: await importLoader(cuda), variant: 'cuda', note: undefined };
  } catch (error) {
    const note = cudaSentence(messages(error));
    if (device === 'cuda') throw new EngineError('device_unavailable', note, undefined, { cause: error });
    return openCpu(note);
  }
}

async function openCpu(note: string | undefined): Promise<LoadedAddon> {
  try {
    return { addon: await importLoader(undefined), variant: 'cpu', note };
  } catch (error) {
    throw new EngineError(
      'internal',
      `the native addon for ${platformTag} could not be loaded: reinstall tsserve, or build it with 'npm run build'`,
      undefined,
      { cause: error },
    );
  }
}

/** The generated loader knows no variants: it takes a path from this variable before looking anywhere else. */
async function importLoader(path: string | undefined): Promise<Addon> {
  const before = process.env.NAPI_RS_NATIVE_LIBRARY_PATH;
  if (path !== undefined) process.env.NAPI_RS_NATIVE_LIBRARY_PATH = path;
  try {
    // A module that failed once stays failed under its URL, so each variant has its own.
    return (
      path === undefined
        ? await import('../../index.js')
        : await import(new URL('../../index.js?cuda', import.meta.url).href)
    ) as Addon;
  } finally {
    if (path !== undefined) {
      if (before === undefined) delete process.env.NAPI_RS_NATIVE_LIBRARY_PATH;
      else process.env.NAPI_RS_NATIVE_LIBRARY_PATH = before;
    }
  }
}

function findCudaAddon(): string | undefined {
  const libc = process.platform === 'linux' ? '-gnu' : process.platform === 'win32' ? '-msvc' : '';
  const file = `tsserve-cuda.${platformTag}${libc}.node`;
  const local = fileURLToPath(new URL(`../../${file}`, import.meta.url));
  if (existsSync(local)) return local;
  try {
    return require.resolve(`tsserve-${platformTag}-cuda/${file}`);
  } catch {
    return undefined;
  }
}

/** One sentence for a CUDA addon that the system's loader refused with these words. */
export function cudaSentence(words: string): string {
  const library = /\b(lib(?:cu|nv)[\w.-]*\.so[\w.]*|(?:cu|nv)\w+\.dll)/i.exec(words)?.[1];
  // The driver's library is the first that the addon names, so it is the one missed where both are missing.
  if (library !== undefined && /^(libcuda\.so|nvcuda\.dll)/i.test(library)) {
    return 'no NVIDIA driver was found on this machine, so CUDA cannot be used';
  }
  if (library !== undefined) {
    return `the NVIDIA driver is there but the CUDA libraries are not: ${library} could not be loaded (install the CUDA 13 runtime, cuBLAS and cuRAND, or name their folder in LD_LIBRARY_PATH)`;
  }
  return `the CUDA addon could not be loaded: ${words.split('\n', 1)[0] ?? 'unknown reason'}`;
}

function messages(error: unknown): string {
  const parts: string[] = [];
  for (let e = error; e instanceof Error; e = e.cause) {
    parts.push(e.message);
    if (e instanceof AggregateError) parts.push(...e.errors.map(String));
  }
  return parts.length > 0 ? parts.join('\n') : String(error);
}
