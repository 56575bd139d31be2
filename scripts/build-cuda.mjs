/**
 * `npm run build:cuda`: the addon for NVIDIA GPUs, beside the ordinary one. Builds without a GPU, and on Linux x64
 * without a CUDA toolkit; `--toolkit-only` stops when a toolkit is there.
 */

import { copyFile, mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';

import { cudaEnvironment } from './lib/cuda-toolkit.mjs';
import { ensurePackages } from './lib/setup.mjs';
import { root, run, runScript, say, Stop, tool } from './lib/terminal.mjs';
import { checkRust } from './lib/toolchain.mjs';

await runScript(async () => {
  await ensurePackages();
  await checkRust();
  const env = await cudaEnvironment();
  if (process.argv.includes('--toolkit-only')) {
    await run('nvcc', ['--version'], { env, stdout: 'inherit' });
    return;
  }
  // A folder of its own: the feature would otherwise rebuild candle for both addons, back and forth.
  const output = join(root, '.tsserve', 'cuda-addon');
  await mkdir(output, { recursive: true });
  say('building the CUDA addon (about a quarter of an hour the first time) …');
  const args = ['build', '--platform', '--release', '--no-js', '--dts', 'index.d.ts', '--features', 'cuda'];
  const paths = ['--manifest-path', 'crates/node/Cargo.toml', '--target-dir', 'target/cuda', '--output-dir', output];
  const { code } = await tool('@napi-rs/cli/dist/cli.js', [...args, ...paths], { env });
  if (code !== 0) throw new Stop("the CUDA addon could not be built: see the compiler's message above");
  const built = (await readdir(output)).find((name) => name.endsWith('.node'));
  if (built === undefined) throw new Stop('the build left no addon');
  const name = built.replace(/^tsserve\./, 'tsserve-cuda.');
  await copyFile(join(output, built), join(root, name));
  process.stdout.write(`${name}\n`);
});
