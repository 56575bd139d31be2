/** `npm test`: sets up what is missing, then runs every test and check. */

import * as checks from './lib/checks.mjs';
import { ensureBuilt } from './lib/setup.mjs';
import { runScript } from './lib/terminal.mjs';
import { fetchWeights, knownModels } from './lib/weights.mjs';

await runScript(async () => {
  await ensureBuilt();
  for (const model of await knownModels()) await fetchWeights(model);
  await checks.runChecks([
    checks.generatedFiles,
    checks.rustFormat,
    checks.format,
    checks.types,
    checks.lint,
    checks.rustTests,
    checks.clippy,
    checks.nodeTests,
  ]);
});
