/** whisper.cpp through @fugood/whisper.node: `node FILE HOME MODEL.bin THREADS`, one JSON line in, one out. */

import { createRequire } from 'node:module';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const [home, filePath, threads] = process.argv.slice(2);
const require = createRequire(join(home, 'package.json'));
const entry = require.resolve('@fugood/whisper.node');
const { initWhisper } = await import(pathToFileURL(entry).href);
const manifest = JSON.parse(await readFile(join(home, 'node_modules/@fugood/whisper.node/package.json'), 'utf8'));
const context = await initWhisper({ filePath, useGpu: false });

async function listen(path, mode) {
  const start = performance.now();
  let firstSegment;
  const { promise } = context.transcribeFile(path, {
    language: 'en',
    maxThreads: Number(threads),
    temperature: 0,
    ...(mode === 'beam 5' ? { beamSize: 5 } : { bestOf: 1 }),
    onNewSegments: () => (firstSegment ??= (performance.now() - start) / 1000),
  });
  const { result } = await promise;
  const seconds = (performance.now() - start) / 1000;
  return { text: result, seconds, firstSegment: firstSegment ?? seconds };
}

const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);
say({ about: `${manifest.version}, its prebuilt binary, f16` });
for await (const line of createInterface({ input: process.stdin })) {
  const { path, mode } = JSON.parse(line);
  await listen(path, mode).then(say, (error) => say({ error: String(error) }));
}
