/** `npm start [-- MODEL] [-- flags of tsserve serve]`: from a fresh clone to a serving model. */

import { ensureBuilt, runCli } from './lib/setup.mjs';
import { runScript } from './lib/terminal.mjs';
import { obtainDefaultModel } from './lib/weights.mjs';

await runScript(async () => {
  const args = process.argv.slice(2);
  await ensureBuilt();
  // A model, where one is named, stands first.
  const named = args.length > 0 && !args[0].startsWith('-');
  const asksForHelp = args.includes('--help') || args.includes('-h');
  const model = named || asksForHelp ? [] : [await obtainDefaultModel()];
  await runCli(['serve', ...model, ...args]);
});
