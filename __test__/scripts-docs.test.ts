import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';

import { expect } from 'chai';

import { compatibilityPage, generatedPages } from '../scripts/docs.js';
import { ROUTES } from '../ts/http/routes/index.js';
import { runCli } from './helpers/cli.js';

const root = new URL('../', import.meta.url);
const read = (path: string): Promise<string> => readFile(new URL(path, root), 'utf8');

describe('documentation', () => {
  it('lists every field as the parsers know it', async () => {
    expect(await read('docs/openai-compatibility.md')).to.equal(compatibilityPage());
  });

  it('has every generated page as it would be made now', async () => {
    for (const [path, page] of await generatedPages()) expect(await read(`docs/${path}`), path).to.equal(page);
  });

  it('names every endpoint in the README', async () => {
    const readme = await read('README.md');
    for (const { method, path } of ROUTES) expect(readme).to.include(`${method} ${path.replace(/[*:](\w+)/g, '{$1}')}`);
  });

  for (const command of ['serve', 'transcribe']) {
    it(`names every flag of ${command}`, async () => {
      const page = await read('docs/cli.md');
      const { stdout } = await runCli([command, '--help']);
      const flags = new Set(stdout.match(/(?<=^\s+(?:-\w, )?)--[a-z-]+/gm));
      flags.delete('--help');
      expect(flags.size).to.be.greaterThan(15);
      for (const flag of flags) expect(page).to.include(flag);
    });
  }

  it('links to files that exist', async () => {
    const pages = [
      'README.md',
      'CONTRIBUTING.md',
      ...(await readdir(new URL('docs/', root), { recursive: true }))
        .filter((name) => name.endsWith('.md'))
        .map((name) => `docs/${name.replaceAll('\\', '/')}`),
    ];
    for (const page of pages) {
      for (const [, link] of (await read(page)).matchAll(/\]\(([^):#]+)\)/g)) {
        expect(existsSync(new URL(link!, new URL(page, root))), `${page}: ${link!}`).to.equal(true);
      }
    }
  });

  it('names scripts that exist', async () => {
    const { scripts } = JSON.parse(await read('package.json')) as { scripts: Record<string, string> };
    for (const page of ['README.md', 'CONTRIBUTING.md', 'docs/cli.md', 'docs/cuda.md', 'docs/transcription.md']) {
      for (const [, name] of (await read(page)).matchAll(/npm run ([\w:-]+)/g))
        expect(scripts, page).to.have.property(name!);
    }
  });
});
