/** Lines typed in earlier sessions, for the arrow keys. */

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';

/** Lines that are kept. */
const MAX_LINES = 1000;

export interface History {
  /** Newest first, as readline wants them. */
  load(): string[];
  save(lines: readonly string[]): void;
}

export function historyFile(env: NodeJS.ProcessEnv = process.env): string {
  const state = env.XDG_STATE_HOME;
  return join(
    state === undefined || state === '' ? join(homedir(), '.local', 'state') : state,
    'tsserve',
    'chat-history',
  );
}

/** A file that only its owner can read, oldest line first. One that cannot be read or written is no reason to complain. */
export function fileHistory(file: string): History {
  return {
    load: () => {
      try {
        return readFileSync(file, 'utf8').split('\n').filter(Boolean).slice(-MAX_LINES).reverse();
      } catch {
        return [];
      }
    },
    save: (lines) => {
      const kept = lines.slice(0, MAX_LINES).reverse();
      try {
        mkdirSync(dirname(file), { recursive: true });
        writeFileSync(file, kept.map((line) => `${line}\n`).join(''), { mode: 0o600 });
      } catch {
        // A read-only home, say.
      }
    },
  };
}
