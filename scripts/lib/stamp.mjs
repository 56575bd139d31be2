/** Has anything changed since a step last succeeded? By content, so that a fresh checkout's file times do not matter. */

import { createHash } from 'node:crypto';
import { mkdir, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { root } from './terminal.mjs';

const stamps = join(root, '.tsserve', 'stamps');

/** A hash over the names and contents of files and folders, given relative to the root. Missing ones count as absent. */
export async function hashOf(paths) {
  const hash = createHash('sha256');
  for (const path of paths) await addTo(hash, path);
  return hash.digest('hex');
}

/**
 * Runs `make` unless the inputs are as they were when it last succeeded and its outputs are as it left them.
 *
 * @returns whether `make` ran
 */
export async function whenChanged(name, { inputs, outputs }, make) {
  const file = join(stamps, name);
  const before = await hashOf(inputs);
  const known = await readFile(file, 'utf8').catch(() => '');
  if (known !== '' && known === `${before} ${await traces(outputs)}`) return false;
  await rm(file, { force: true });
  await make();
  await mkdir(stamps, { recursive: true });
  await writeFile(file, `${before} ${await traces(outputs)}`);
  return true;
}

async function addTo(hash, path) {
  const full = join(root, path);
  const info = await stat(full).catch(() => undefined);
  if (info === undefined) return;
  if (info.isDirectory()) {
    for (const entry of (await readdir(full)).sort()) await addTo(hash, `${path}/${entry}`);
    return;
  }
  const content = await readFile(full);
  hash.update(`${path}\0${content.length}\0`).update(content);
}

/** Size and time of each output: someone may have built another state by hand in between. */
async function traces(outputs) {
  const parts = await Promise.all(
    outputs.map(async (path) => {
      const info = await stat(join(root, path)).catch(() => undefined);
      return info === undefined ? 'absent' : `${info.size}@${info.mtimeMs}`;
    }),
  );
  return parts.join(' ');
}
