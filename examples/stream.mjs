// The answer as it is written, then its figures.  node examples/stream.mjs [MODEL]
import { createEngine } from 'tsserve';
import { model } from './model.mjs';

const engine = await createEngine({
  model,
  onProgress: (progress) => {
    if (progress.stage === 'download') console.error(`${progress.file}: ${progress.done} of ${progress.total} bytes`);
  },
});
console.error(`${engine.info.id}: ${engine.info.weightFormat}, context ${engine.info.maxModelLen}`);

const stream = engine.chat({
  messages: [{ role: 'user', content: 'Count from one to ten.' }],
  temperature: 0.7,
  seed: 1,
  maxTokens: 64,
});
for await (const part of stream) process.stdout.write(part.text);

// The same stream can be awaited for the whole.
const { usage, timings } = await stream;
console.log(`\n${usage.completionTokens} tokens, ${(usage.completionTokens / timings.decode).toFixed(1)} tok/s`);
await engine.close();
