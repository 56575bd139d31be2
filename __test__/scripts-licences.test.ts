import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { expect } from 'chai';

const root = fileURLToPath(new URL('../', import.meta.url));

/** Is an SPDX expression satisfied by allowed licences? `AND` binds tighter than `OR`; `/` is an old way to write `OR`. */
function satisfied(expression: string, allowed: ReadonlySet<string>): boolean {
  const words = expression.replaceAll('/', ' OR ').match(/[()]|[^\s()]+/g) ?? [];
  let at = 0;
  const either = (): boolean => {
    let value = both();
    while (words[at] === 'OR') {
      at += 1;
      const other = both();
      value = value || other;
    }
    return value;
  };
  const both = (): boolean => {
    let value = one();
    while (words[at] === 'AND') {
      at += 1;
      const other = one();
      value = value && other;
    }
    return value;
  };
  const one = (): boolean => {
    if (words[at] === '(') {
      at += 1;
      const value = either();
      at += 1;
      return value;
    }
    let name = words[at++] ?? '';
    if (words[at] === 'WITH') {
      name += ` WITH ${words[at + 1] ?? ''}`;
      at += 2;
    }
    return allowed.has(name);
  };
  return either() && at === words.length;
}

describe('licences', () => {
  it('of every crate are on the list of deny.toml, and all of that list is needed', async () => {
    const deny = await readFile(new URL('../deny.toml', import.meta.url), 'utf8');
    const list = /^allow = \[([^\]]*)\]/m.exec(deny)![1]!;
    const allowed = new Set([...list.matchAll(/"([^"]+)"/g)].map((match) => match[1]!));
    const args = ['metadata', '--format-version', '1', '--locked', '--all-features'];
    const { stdout } = await promisify(execFile)('cargo', args, { cwd: root, maxBuffer: 256 << 20 });
    const crates = (JSON.parse(stdout) as { packages: { name: string; license: string | null }[] }).packages;
    const refused = crates.filter(({ license }) => license === null || !satisfied(license, allowed));
    expect(refused.map(({ name, license }) => `${name}: ${license ?? 'none'}`)).to.deep.equal([]);
    for (const licence of allowed) {
      expect(
        crates.some((crate) => crate.license?.includes(licence)),
        licence,
      ).to.equal(true);
    }
  }).timeout(120_000);

  it('are read as SPDX expressions', () => {
    const allowed = new Set(['MIT', 'ISC', 'Apache-2.0']);
    for (const good of ['MIT', 'X OR MIT', 'MIT/X', '(X OR MIT) AND ISC', 'MIT AND (X OR ISC)'])
      expect(satisfied(good, allowed), good).to.equal(true);
    for (const bad of ['X', 'MIT AND X', '(X OR Y) AND MIT', 'Apache-2.0 WITH Z', ''])
      expect(satisfied(bad, allowed), bad).to.equal(false);
  });
});
