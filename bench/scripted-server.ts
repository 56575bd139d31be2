/** The whole server over the tests' scripted engine, as a process of its own: what is left is what the server costs. */

import { createRegistry } from '../ts/app/registry.js';
import { createLocalModel } from '../ts/chat/local-model.js';
import { createApp } from '../ts/http/app.js';
import { createHttpServer, listen } from '../ts/http/server.js';
import { say, ScriptedEngine } from '../__test__/helpers/scripted-engine.js';

const WORDS = ' word'.repeat(4096);

const engine = new ScriptedEngine({ script: (request) => say(WORDS, { request }), credit: 256 });
const registry = createRegistry({ engine, pinned: { model: 'org/model' }, defaults: {}, createLocalModel });
const { port } = await listen(createHttpServer(createApp({ registry })), { host: '127.0.0.1', port: 0 });

/** Microseconds of CPU per token that the scripted engine and its queue take by themselves. */
async function engineCost(tokens: number): Promise<number> {
  const before = process.cpuUsage();
  let seen = 0;
  while (seen < tokens) {
    for await (const event of engine.generate({ model: 1, prompt: { ids: [1] }, maxTokens: 2048 })) {
      if (event.type === 'delta') seen += event.nTokens;
    }
  }
  const { user, system } = process.cpuUsage(before);
  return (user + system) / seen;
}

process.on('message', (question) => {
  if (question === 'cpu') process.send?.(process.cpuUsage());
  else if (question === 'engine') void engineCost(50_000).then((cost) => process.send?.(cost));
});
process.send?.(port);
