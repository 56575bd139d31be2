// Plain text, without a chat template; tokens counted before and after.  node examples/complete.mjs [MODEL]
import { createEngine } from 'tsserve';
import { model } from './model.mjs';

const engine = await createEngine({ model });
const prompt = 'The capital of France is';
console.log(`${await engine.countTokens(prompt)} tokens: ${(await engine.tokenize(prompt)).join(' ')}`);

const { text, usage } = await engine.complete({ prompt, maxTokens: 8, stop: ['\n'] });
console.log(prompt + text);
console.log(usage);
await engine.close();
