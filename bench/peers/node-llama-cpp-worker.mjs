/**
 * node-llama-cpp in a process of its own, as it is installed under `.tsserve/peers`: `node FILE HOME MODEL THREADS CONTEXT
 * SEQUENCES`. It answers each workload that it is sent with tokens per second, and is asleep between them.
 */

import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [home, modelPath, threads, context, sequences] = process.argv.slice(2);
const entry = createRequire(join(home, 'package.json')).resolve('node-llama-cpp');
const { getLlama, LlamaLogLevel } = await import(pathToFileURL(entry).href);

const llama = await getLlama({
  build: 'never',
  gpu: false,
  maxThreads: Number(threads),
  logLevel: LlamaLogLevel.error,
  progressLogs: false,
});
const model = await llama.loadModel({ modelPath });

let state = 0x2545f491;
/** Ids that no earlier prompt began with. */
function prompt(length) {
  const size = model.fileInfo.metadata.tokenizer.ggml.tokens.length;
  return Array.from({ length }, () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return 100 + ((state >>> 0) % (size - 200));
  });
}

/** When each token of one sequence came. */
async function generate(sequence, length, tokens) {
  await sequence.clearHistory();
  const times = [];
  for await (const token of sequence.evaluate(prompt(length), { temperature: 0, yieldEogToken: true })) {
    void token;
    times.push(performance.now());
    if (times.length === tokens) break;
  }
  return times;
}

const rate = (times) => (times.length - 1) / ((times.at(-1) - times[0]) / 1000);

async function measure({ kind, depth, length, size, batchPrompt, generated }) {
  const wanted = kind === 'batch' ? Number(size) : 1;
  const one = kind === 'batch' ? batchPrompt + generated + 1 : Number(context);
  const held = await model.createContext({
    contextSize: Math.max(one, 256),
    sequences: wanted,
    threads: Number(threads),
    batchSize: 512,
  });
  try {
    const first = held.getSequence();
    if (kind === 'decode') return rate(await generate(first, depth, generated));
    if (kind === 'prefill') {
      const start = performance.now();
      const [end] = await generate(first, length, 1);
      return length / ((end - start) / 1000);
    }
    const all = [first, ...Array.from({ length: wanted - 1 }, () => held.getSequence())];
    const traces = await Promise.all(all.map((sequence) => generate(sequence, batchPrompt, generated)));
    // Counted while all of them decode.
    const start = Math.max(...traces.map((times) => times[0]));
    const end = Math.min(...traces.map((times) => times.at(-1)));
    return traces.flat().filter((at) => at > start && at <= end).length / ((end - start) / 1000);
  } finally {
    await held.dispose();
  }
}

process.on('message', (work) => {
  measure(work).then(
    (value) => process.send({ value }),
    (error) => process.send({ error: String(error) }),
  );
});
process.on('disconnect', () => process.exit());
process.send({ sequences });
