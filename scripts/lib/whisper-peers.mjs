/**
 * The programs that `npm run bench -- --whisper --peers` measures beside tsserve. All of them lie under `.tsserve/peers`,
 * fetched when they are first asked for; the product needs none of them.
 */

import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';

import { buildPinned, executable } from './peers.mjs';
import { whenChanged } from './stamp.mjs';
import { root, run, say, Stop } from './terminal.mjs';
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

/** whisper.cpp built for this very machine; resolves to the program that the bench asks. */
export async function ensureWhisperCpp() {
  const inputs = ['bench/whisper/whisper-cpp.json', 'bench/whisper/native'];
  const pinned = JSON.parse(await readFile(join(root, inputs[0]), 'utf8'));
  const name = `whisper-cpp-${pinned.version}`;
  const program = `${name}/bin/${pinned.targets[0]}${executable}`;
  await whenChanged('peer-whisper-cpp', { inputs, outputs: [`.tsserve/peers/${program}`] }, () =>
    buildPinned('whisper.cpp', pinned, join(folder, name), (source) => [
      join(root, inputs[1]),
      { WHISPER_SOURCE: source },
    ]),
  );
  return join(folder, program);
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
