/** `npm run weights [-- ID…]`: fetches the real weights that the tests use; without ids, all of them. */

import { runScript, Stop } from './lib/terminal.mjs';
import { fetchWeights, knownModels } from './lib/weights.mjs';

await runScript(async () => {
  const ids = process.argv.slice(2).filter((arg) => arg !== '--all');
  const unknown = process.argv.slice(2).find((arg) => arg.startsWith('-') && arg !== '--all');
  if (unknown !== undefined) throw new Stop(`unknown option ${unknown}: name models, or --all`);
  const all = await knownModels();
  const models = ids.length === 0 ? all : ids.map((id) => all.find((model) => model.id === id) ?? refuse(id, all));
  for (const model of models) process.stdout.write(`${await fetchWeights(model)}\n`);
});

function refuse(id, all) {
  throw new Stop(`${id} is not known: choose from ${all.map((model) => model.id).join(', ')}`);
}
