/**
 * `node scripts/check-python-clients.mjs`: Python's own clients against a real server with the default weights. A check of
 * its own, not part of `npm test`: it needs Python, and installs `openai` and `huggingface_hub` into .tsserve/python.
 */

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { root, run, runScript, say, Stop } from './lib/terminal.mjs';
import { fetchWeights, textModels } from './lib/weights.mjs';

const packages = ['openai>=2', 'huggingface_hub>=1'];
const folder = join(root, '.tsserve', 'python');

await runScript(async () => {
  await install();
  const model = await fetchWeights((await textModels())[0]);
  const key = 'check-key';
  for (const keys of [[], ['--api-key', key]]) {
    const server = await serve(model, keys);
    try {
      const name = keys.length === 0 ? 'without a key' : 'with a key';
      const { code } = await run('python3', [join(root, 'scripts', 'check_python_clients.py'), server.url], {
        stdout: 'inherit',
        stderr: 'inherit',
        env: { PYTHONPATH: folder, TSSERVE_KEY: keys.length === 0 ? 'not-needed' : key },
      });
      if (code !== 0) throw new Stop(`Python's clients are not content ${name}`);
      say(`Python's clients are content ${name}`);
    } finally {
      server.process.kill('SIGINT');
    }
  }
});

async function install() {
  if (existsSync(join(folder, 'openai')) && existsSync(join(folder, 'huggingface_hub'))) return;
  say(`installing ${packages.join(', ')} into ${folder} …`);
  const args = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--no-input', '--target', folder];
  const { code, missing } = await run('python3', [...args, ...packages], { stderr: 'inherit' });
  if (missing) throw new Stop('python3 is missing: install Python 3.10 or newer with pip');
  if (code !== 0) throw new Stop('pip could not install the clients');
}

/** Starts the command line from its sources on a free port; resolves when its model is loaded. */
async function serve(model, flags) {
  const args = ['--import=tsx', 'ts/cli/main.ts', 'serve', model, '--port', '0', '--log-level', 'error', ...flags];
  const process_ = spawn(process.execPath, args, { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] });
  let url;
  for await (const line of createInterface({ input: process_.stdout })) {
    url ??= / listens on (\S+)/.exec(line)?.[1];
    if (line.startsWith('loaded ')) return { process: process_, url };
  }
  throw new Stop('the server ended before its model was loaded');
}
