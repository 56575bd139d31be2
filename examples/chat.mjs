// One question, one answer.  node examples/chat.mjs [MODEL]
import { createEngine } from 'tsserve';
import { model } from './model.mjs';

const engine = await createEngine({ model });
const answer = await engine.chat({
  messages: [
    { role: 'system', content: 'Answer in one sentence.' },
    { role: 'user', content: 'What is a llama?' },
  ],
  maxTokens: 64,
});
console.log(answer.text);
console.log(`${answer.usage.completionTokens} tokens, ended by ${answer.finishReason}`);
// No close(): a script may simply end.
