/** Run as a script: answers a question and ends without closing anything. */

import { workerData } from 'node:worker_threads';

import { createEngine } from 'tsserve';

const model = workerData?.model ?? process.argv[2];
const engine = await createEngine({ model, maxModelLen: 256, maxNumSeqs: 2 });
const { text } = await engine.chat({
  messages: [{ role: 'user', content: 'What is the capital of France?' }],
  maxTokens: 12,
});
console.log(text);
