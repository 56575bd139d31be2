import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { expect } from 'chai';

interface Package {
  readonly name: string;
  readonly manifest_path: string;
  readonly dependencies: readonly { readonly name: string; readonly kind: 'dev' | 'build' | null }[];
}

/** Our crates in the order in which they may depend on each other; `never`: foreign crates that are kept out. */
const ours: Readonly<Record<string, { readonly mayUse: readonly string[]; readonly never: RegExp }>> = {
  'tsserve-engine': { mayUse: [], never: /^(candle|tokenizers|napi|hf-hub)/ },
  'tsserve-kernels': { mayUse: [], never: /^(candle|tokenizers|napi|hf-hub)/ },
  'tsserve-text': { mayUse: [], never: /^(candle|napi|hf-hub)/ },
  'tsserve-models': { mayUse: ['tsserve-engine', 'tsserve-kernels'], never: /^(tokenizers|napi|hf-hub)/ },
  'tsserve-speech': { mayUse: [], never: /^(candle|tokenizers|napi|hf-hub)/ },
  'tsserve-core': {
    mayUse: ['tsserve-engine', 'tsserve-models', 'tsserve-speech', 'tsserve-text'],
    never: /^(candle|tokenizers|napi)/,
  },
  'tsserve-node': { mayUse: ['tsserve-core'], never: /^(candle|tokenizers|hf-hub)/ },
};

describe('dependencies of the crates', () => {
  let crates: readonly Package[];
  before(async function () {
    this.timeout(60_000);
    const cwd = fileURLToPath(new URL('../', import.meta.url));
    const args = ['metadata', '--format-version', '1', '--no-deps', '--offline'];
    const { stdout } = await promisify(execFile)('cargo', args, { cwd, maxBuffer: 64 << 20 });
    crates = (JSON.parse(stdout) as { packages: Package[] }).packages;
  });

  it('are declared for every crate', () => {
    for (const { name } of crates) expect(Object.keys(ours)).to.include(name);
    expect(crates.map(({ name }) => name)).to.include.members([
      'tsserve-engine',
      'tsserve-models',
      'tsserve-core',
      'tsserve-node',
    ]);
  });

  it('point down the order of the crates', () => {
    for (const { name, dependencies } of crates) {
      const rule = ours[name]!;
      const used = dependencies.filter(({ kind }) => kind !== 'dev').map((dependency) => dependency.name);
      const wrong = used.filter((other) => (other in ours ? !rule.mayUse.includes(other) : rule.never.test(other)));
      expect(wrong, name).to.deep.equal([]);
    }
  });

  it('keep candle in one crate', () => {
    const users = crates.filter(({ dependencies }) => dependencies.some(({ name }) => name.startsWith('candle')));
    expect(users.map(({ name }) => name)).to.deep.equal(['tsserve-models']);
  });

  it('obey the lints of the workspace', async () => {
    for (const crate of crates) {
      const manifest = await readFile(crate.manifest_path, 'utf8');
      expect(manifest, crate.name).to.match(/\[lints\]\s+workspace = true/);
    }
  });
});
