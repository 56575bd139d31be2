import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { dirname, join, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

import { expect } from 'chai';

const root = fileURLToPath(new URL('../', import.meta.url));

/** Which folders of ts/ a folder may import from, besides itself. ESLint holds the same while one types. */
const order = ['cli', 'http', 'app', 'responses', 'mcp', 'chat', 'speech', 'engine', 'protocol', 'net'];
const leaves = ['engine', 'protocol', 'net'];
const mayImport = (folder: string): string[] => (leaves.includes(folder) ? [] : order.slice(order.indexOf(folder) + 1));

const bindingImporters = [
  'ts/engine/addon.ts',
  'ts/engine/native.ts',
  'ts/engine/binding.ts',
  'ts/engine/transcription.ts',
];

interface Import {
  readonly from: string;
  readonly to: string;
}

async function importsOfTs(): Promise<Import[]> {
  const found: Import[] = [];
  for (const entry of await readdir(join(root, 'ts'), { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || !entry.name.endsWith('.ts')) continue;
    const file = join(entry.parentPath, entry.name);
    const source = await readFile(file, 'utf8');
    for (const match of source.matchAll(/(?:\bfrom\s+|\bimport\s*\(?\s*|new URL\(\s*)'(\.[^']+)'/g)) {
      const target = relative(root, join(dirname(file), match[1]!))
        .split(sep)
        .join('/');
      found.push({ from: relative(root, file).split(sep).join('/'), to: target });
    }
  }
  return found;
}

describe('imports of ts/', () => {
  let imports: Import[];
  before(async () => {
    imports = await importsOfTs();
  });

  it('are found', () => {
    expect(imports.length).to.be.greaterThan(30);
  });

  it('point down the order of the folders', () => {
    const wrong = imports.filter(({ from, to }) => {
      const [, folder = '', ...rest] = from.split('/');
      const [top, other = ''] = to.split('/');
      if (top !== 'ts' || rest.length === 0 || other === folder) return false;
      return !order.includes(folder) || !mayImport(folder).includes(other);
    });
    expect(wrong).to.deep.equal([]);
  });

  it('name the generated binding in its importers only', () => {
    const importers = imports.filter(({ to }) => /^index\.js/.test(to)).map(({ from }) => from);
    for (const importer of importers) expect(bindingImporters).to.include(importer);
    expect(importers).to.include('ts/engine/addon.ts');
  });

  it('name files that exist', () => {
    const sources = imports.filter(({ to }) => to.startsWith('ts/') && to.endsWith('.js'));
    const missing = sources.filter(
      ({ to }) => !existsSync(join(root, to.replace(/\.js$/, '.ts'))) && !existsSync(join(root, to)),
    );
    expect(missing).to.deep.equal([]);
  });
});
