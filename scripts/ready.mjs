/** `npm run ready`: all of `npm test`, and what only a developer's machine can check. Run it before you push. */

import * as checks from './lib/checks.mjs';
import { ensureBuilt } from './lib/setup.mjs';
import { npm, runScript, Stop } from './lib/terminal.mjs';
import { fetchWeights, knownModels } from './lib/weights.mjs';

await runScript(async () => {
  await ensureBuilt();
  // Even when no source changed: the generated files must come out as they are committed.
  const { code } = await npm(['run', '--silent', 'build:native']);
  if (code !== 0) throw new Stop("the native addon could not be built: see the compiler's message above");
  for (const model of await knownModels()) await fetchWeights(model);
  await checks.runChecks([
    checks.generatedFiles,
    checks.rustFormat,
    checks.format,
    checks.types,
    checks.lint,
    checks.clippy,
    checks.metal,
    checks.licences,
    checks.armClippy,
    checks.rustTests,
    checks.armTests,
    checks.olderArmTests,
    checks.nodeTests,
  ]);
});
