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

/** Packages that a file brings with it: what it imports at once, types and dynamic imports aside. */
async function packagesOf(file: string, seen = new Set<string>()): Promise<Set<string>> {
  seen.add(file);
  const source = await readFile(join(root, file), 'utf8');
  const packages = new Set<string>();
  for (const [, name = ''] of source.matchAll(/^(?:import|export)\s+(?!type\b)(?:[^'";]*\sfrom\s+)?'([^']+)'/gm)) {
    if (!name.startsWith('.')) {
      if (!name.startsWith('node:')) packages.add(name);
      continue;
    }
    const target = join(dirname(file), name.replace(/\.js$/, '.ts'));
    if (seen.has(target)) continue;
    for (const more of await packagesOf(target, seen)) packages.add(more);
  }
  return packages;
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

  it('let serve listen before it imports most of the program', async () => {
    expect([...(await packagesOf('ts/cli/serve.ts'))]).to.deep.equal(['commander']);
    expect([...(await packagesOf('ts/cli/serve-app.ts'))]).to.include('express');
  });

  it('name files that exist', () => {
    const sources = imports.filter(({ to }) => to.startsWith('ts/') && to.endsWith('.js'));
    const missing = sources.filter(
      ({ to }) => !existsSync(join(root, to.replace(/\.js$/, '.ts'))) && !existsSync(join(root, to)),
    );
    expect(missing).to.deep.equal([]);
  });
});
