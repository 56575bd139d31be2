/** Uses the native engine with an addon that plays its part, and prints what came of it, as JSON. */

import { createNativeEngine } from '../../ts/engine/native.js';
import type { Transcription } from '../../ts/engine/speech.js';
import { EngineError } from '../../ts/engine/types.js';

async function read(events: AsyncIterable<{ readonly type: string }>): Promise<unknown[]> {
  const all: unknown[] = [];
  try {
    for await (const event of events) all.push(event.type);
  } catch (error) {
    all.push(
      error instanceof EngineError ? { code: error.code, message: error.message, param: error.param } : String(error),
    );
  }
  return all;
}

const engine = createNativeEngine();
const model = await engine.load({ model: 'folder' });
const hear = (path: string, signal?: AbortSignal): Transcription =>
  engine.transcribe({ model: model.handle, audio: { path } }, signal);

const whole = await read(hear('a.wav'));
const [several, talk] = await Promise.all([
  read(hear('b.wav')),
  read(engine.generate({ model: model.handle, prompt: { text: 'x', addSpecialTokens: false } })),
]);
const noise = await read(hear('noise.wav'));
const broken = await read(hear('breaks.wav'));
const abort = new AbortController();
const left: string[] = [];
for await (const event of hear('endless.wav')) {
  left.push(event.type);
  if (event.type === 'segment') break;
}
const endless = hear('endless.wav', abort.signal);
setTimeout(() => abort.abort(), 50);
const aborted = (await read(endless)).at(-1);
const before = await read(hear('a.wav', abort.signal));
const open = read(hear('endless.wav'));
await engine.close();
const closed = (await open).at(-1);
const { kind, languages } = model;
process.stdout.write(
  JSON.stringify({ kind, languages, whole, several, talk, noise, broken, left, aborted, before, closed }),
);
