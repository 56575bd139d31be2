/** `npm run tsserve -- <command>`: the CLI from a clone, built if need be. */

import { ensureBuilt, runCli } from './lib/setup.mjs';
import { runScript } from './lib/terminal.mjs';

await runScript(async () => {
  await ensureBuilt();
  await runCli(process.argv.slice(2));
});
