/** `npm run bench [-- --runs N --quick --json --model PATH]`: builds if need be, then measures on the default weights. */

import { ensureBuilt } from './lib/setup.mjs';
import { run, runScript } from './lib/terminal.mjs';
import { fetchWeights, textModels } from './lib/weights.mjs';

await runScript(async () => {
  const args = process.argv.slice(2);
  await ensureBuilt();
  const named = args.some((arg) => arg === '--model' || arg.startsWith('--model='));
  const model = named ? [] : ['--model', await fetchWeights((await textModels())[0])];
  const { code } = await run(process.execPath, ['--import=tsx', 'bench/main.ts', ...model, ...args], {
    stdout: 'inherit',
  });
  process.exitCode = code;
});
