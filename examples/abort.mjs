// Two ways to stop an answer.  node examples/abort.mjs [MODEL]
import { createEngine, EngineError } from 'tsserve';
import { model } from './model.mjs';

const engine = await createEngine({ model });
const messages = [{ role: 'user', content: 'Tell me a very long story.' }];

// Leaving the loop ends the generation.
let parts = 0;
for await (const part of engine.chat({ messages, ignoreEos: true })) {
  process.stdout.write(part.text);
  parts += 1;
  if (parts === 10) break;
}

// So does a signal; here it is thrown out of the loop.
const abort = new AbortController();
try {
  for await (const part of engine.chat({ messages, ignoreEos: true }, { signal: abort.signal })) {
    process.stdout.write(part.text);
    abort.abort();
  }
} catch (error) {
  if (!(error instanceof EngineError) || error.code !== 'cancelled') throw error;
  console.log('\nstopped');
}
await engine.close();
