/** `--responses-store`: where responses are kept. */

import { mkdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';

import type { Logger } from '../http/logger.js';
import { createMemoryStore } from '../responses/memory-store.js';
import type { ResponseStore } from '../responses/store.js';
import { CliFailure } from './failure.js';

export interface OpenResponses {
  /** false: nothing is kept. */
  readonly store: ResponseStore | false;
  readonly close: () => void;
}

/**
 * @param where a file, 'memory' or 'off'. Default: a file of this user; if that cannot be used, memory, with a warning
 * @throws CliFailure for a named file that cannot be used
 */
export async function openResponses(where: string | undefined, logger: Logger): Promise<OpenResponses> {
  if (where === 'off') return { store: false, close: () => undefined };
  if (where === 'memory') return inMemory();
  try {
    return await inFile(where ?? defaultFile());
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    if (where !== undefined) throw new CliFailure(`responses cannot be kept in ${where}: ${reason}`);
    logger.warn(`responses are kept in memory only: ${reason}`);
    return inMemory();
  }
}

function inMemory(): OpenResponses {
  const store = createMemoryStore();
  return { store, close: () => store.close() };
}

async function inFile(path: string): Promise<OpenResponses> {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  // A native module, needed only here.
  const { lockFile, openSqliteStore } = await import('../responses/sqlite-store.js');
  const unlock = lockFile(`${path}.lock`);
  try {
    const store = openSqliteStore(path);
    return {
      store,
      close: () => {
        store.close();
        unlock();
      },
    };
  } catch (error) {
    unlock();
    throw error;
  }
}

/** Where each system keeps the data of programs. */
export function defaultFile(
  platform: NodeJS.Platform = process.platform,
  environment: Readonly<Record<string, string | undefined>> = process.env,
  home = homedir(),
): string {
  return join(dataFolder(platform, environment, home), 'tsserve', 'responses.db');
}

function dataFolder(
  platform: NodeJS.Platform,
  environment: Readonly<Record<string, string | undefined>>,
  home: string,
): string {
  const named = environment[platform === 'win32' ? 'LOCALAPPDATA' : 'XDG_DATA_HOME'];
  if (named !== undefined && named !== '') return named;
  if (platform === 'win32') return join(home, 'AppData', 'Local');
  return platform === 'darwin' ? join(home, 'Library', 'Application Support') : join(home, '.local', 'share');
}
