/**
 * `npm run bench [-- --runs N --quick --json --model PATH]`: builds if need be, then measures on the default weights.
 * With `--server` it measures the server around a scripted engine instead, without weights or addon. With `--peers` it
 * measures llama.cpp and node-llama-cpp in the same run, which are fetched and built first. With `--whisper` it measures
 * transcription, with `--peers` beside whisper.cpp and faster-whisper.
 */

import { ensureBuilt } from './lib/setup.mjs';
import { ensureLlamaCpp, ensureNodeLlamaCpp, ensureProbe } from './lib/peers.mjs';
import { run, runScript } from './lib/terminal.mjs';
import { fetchWeights, speechModel, textModels } from './lib/weights.mjs';
import { ensureFasterWhisper, ensureGgml, ensureWhisperCpp } from './lib/whisper-peers.mjs';

await runScript(async () => {
  const args = process.argv.slice(2);
  if (args.includes('--server')) {
    const script = ['--import=tsx', 'bench/server-overhead.ts', ...args];
    process.exitCode = (await run(process.execPath, script, { stdout: 'inherit' })).code;
    return;
  }
  await ensureBuilt();
  const given = (flag) => args.some((arg) => arg === flag || arg.startsWith(`${flag}=`));
  const named = given('--model');
  if (args.includes('--whisper')) {
    process.exitCode = await benchWhisper(args, named);
    return;
  }
  if (args.includes('--peers')) {
    process.exitCode = await benchPeers(args, named, given);
    return;
  }
  const model = named ? [] : ['--model', await fetchWeights((await textModels())[0])];
  const { code } = await run(process.execPath, ['--import=tsx', 'bench/main.ts', ...model, ...args], {
    stdout: 'inherit',
  });
  process.exitCode = code;
});

/** All text models by default, of which the first alone says whether everything works. */
async function benchPeers(args, named, given) {
  const paths = ['--probe', await ensureProbe()];
  const names = args.flatMap((arg, i) =>
    args[i - 1] === '--peer' ? [arg] : arg.startsWith('--peer=') ? [arg.slice(7)] : [],
  );
  const wanted = (name) => names.length === 0 || names.includes(name);
  // Whoever has built llama.cpp names the folder of its programs.
  if (wanted('llama.cpp') && !given('--llama-cpp')) paths.push('--llama-cpp', await ensureLlamaCpp());
  if (wanted('node-llama-cpp') && !given('--node-llama-cpp'))
    paths.push('--node-llama-cpp', await ensureNodeLlamaCpp());
  if (!named) {
    const models = await textModels();
    for (const model of args.includes('--quick') ? models.slice(0, 1) : models)
      paths.push('--model', await fetchWeights(model));
  }
  const script = ['--import=tsx', 'bench/peers/main.ts', ...paths, ...args];
  return (await run(process.execPath, script, { stdout: 'inherit' })).code;
}

async function benchWhisper(args, named) {
  const model = await fetchWeights(await speechModel());
  const paths = named ? [] : ['--model', model];
  if (args.includes('--peers')) {
    paths.push('--faster-whisper', await ensureFasterWhisper(), '--whisper-cpp', await ensureWhisperCpp());
    paths.push('--ggml', await ensureGgml(model));
  }
  const script = ['--import=tsx', 'bench/whisper/main.ts', ...paths, ...args];
  return (await run(process.execPath, script, { stdout: 'inherit' })).code;
}
