/** `npm run weights [-- ID…]`: fetches the real weights that the tests use; without ids, all text models. */

import { runScript, Stop } from './lib/terminal.mjs';
import { fetchWeights, knownModels, textModels } from './lib/weights.mjs';

await runScript(async () => {
  const ids = process.argv.slice(2).filter((arg) => arg !== '--all');
  const unknown = process.argv.slice(2).find((arg) => arg.startsWith('-') && arg !== '--all');
  if (unknown !== undefined) throw new Stop(`unknown option ${unknown}: name models, or --all`);
  const text = await textModels();
  const all = await knownModels();
  const models =
    ids.length === 0 ? text : ids.map((id) => text.find((model) => model.id === id) ?? refuse(id, text, all));
  for (const model of models) process.stdout.write(`${await fetchWeights(model)}\n`);
});

function refuse(id, text, all) {
  const why = all.some((model) => model.id === id) ? 'is not a text model' : 'is not known';
  throw new Stop(`${id} ${why}: choose from ${text.map((model) => model.id).join(', ')}`);
}
