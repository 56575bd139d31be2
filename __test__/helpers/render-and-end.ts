/** A script that renders and ends without closing anything; run by template-worker.test.ts. */

import { createTemplateRenderer } from '../../ts/chat/template.js';

const renderer = createTemplateRenderer();
const text = await renderer.render({
  template: '{{ messages[0].content }}',
  messages: [{ role: 'user', content: 'hi' }],
  addGenerationPrompt: false,
  continueFinalMessage: false,
  specialTokens: {},
});
process.stdout.write(`rendered: ${text}\n`);
