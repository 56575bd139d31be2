// The OpenAI API as a part of your own Express app.  node examples/express-mount.mjs [MODEL]
import { createEngine, createRouter } from 'tsserve';
import express from 'express';
import { model } from './model.mjs';

const engine = await createEngine({ model });
const app = express();
app.get('/', (_req, res) => res.send('my own page'));
app.use('/ai', createRouter(engine));

const server = app.listen(Number(process.env.PORT ?? 8000), '127.0.0.1', async () => {
  const url = `http://127.0.0.1:${server.address().port}/ai/v1/chat/completions`;
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ messages: [{ role: 'user', content: 'Say hello.' }], max_tokens: 16 }),
  });
  const answer = await response.json();
  console.log(answer.choices[0].message.content);
  // An example should end; a server would stay.
  server.close();
  await engine.close();
});
