/** `tsserve list`: the models of the local cache that can be served. */

import type { Command } from 'commander';

import { createNativeEngine } from '../engine/native.js';
import { formatBytes } from './format.js';

export function addListCommand(program: Command): void {
  program
    .command('list')
    .summary('list the models of the Hugging Face cache')
    .description('Lists the models of the Hugging Face cache that can be served without a download.')
    .option('--json', 'as JSON')
    .action(list);
}

async function list(flags: { readonly json?: boolean }): Promise<void> {
  const engine = createNativeEngine();
  try {
    const models = await engine.listCached();
    if (flags.json === true) {
      process.stdout.write(`${JSON.stringify(models, undefined, 2)}\n`);
      return;
    }
    if (models.length === 0) process.stderr.write('the cache holds no model that can be served\n');
    const width = Math.max(0, ...models.map(({ id }) => id.length));
    for (const { id, bytes } of models) process.stdout.write(`${id.padEnd(width)}  ${formatBytes(bytes)}\n`);
  } finally {
    await engine.close();
  }
}
