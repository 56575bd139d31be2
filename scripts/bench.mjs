/**
 * `npm run bench [-- --runs N --quick --json --model PATH]`: builds if need be, then measures on the default weights.
 * With `--server` it measures the server around a scripted engine instead, without weights or addon.
 */

import { ensureBuilt } from './lib/setup.mjs';
import { run, runScript } from './lib/terminal.mjs';
import { fetchWeights, textModels } from './lib/weights.mjs';

await runScript(async () => {
  const args = process.argv.slice(2);
  if (args.includes('--server')) {
    const script = ['--import=tsx', 'bench/server-overhead.ts', ...args];
    process.exitCode = (await run(process.execPath, script, { stdout: 'inherit' })).code;
    return;
  }
  await ensureBuilt();
  const named = args.some((arg) => arg === '--model' || arg.startsWith('--model='));
  const model = named ? [] : ['--model', await fetchWeights((await textModels())[0])];
  const { code } = await run(process.execPath, ['--import=tsx', 'bench/main.ts', ...model, ...args], {
    stdout: 'inherit',
  });
  process.exitCode = code;
});
