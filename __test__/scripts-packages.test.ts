import { readdir, readFile } from 'node:fs/promises';

import { expect } from 'chai';

const read = (path: string): Promise<string> => readFile(new URL(`../${path}`, import.meta.url), 'utf8');
const readJson = async (path: string): Promise<any> => JSON.parse(await read(path));

/** What napi calls each target, and what npm needs to pick it. */
const platforms: Readonly<Record<string, { tag: string; os: string; cpu: string; libc?: string }>> = {
  'x86_64-unknown-linux-gnu': { tag: 'linux-x64-gnu', os: 'linux', cpu: 'x64', libc: 'glibc' },
  'aarch64-unknown-linux-gnu': { tag: 'linux-arm64-gnu', os: 'linux', cpu: 'arm64', libc: 'glibc' },
  'x86_64-apple-darwin': { tag: 'darwin-x64', os: 'darwin', cpu: 'x64' },
  'aarch64-apple-darwin': { tag: 'darwin-arm64', os: 'darwin', cpu: 'arm64' },
  'x86_64-pc-windows-msvc': { tag: 'win32-x64-msvc', os: 'win32', cpu: 'x64' },
};

describe('packages', () => {
  it('have one version', async () => {
    const { version } = await readJson('package.json');
    expect(/^version = "(.+)"$/m.exec(await read('Cargo.toml'))?.[1]).to.equal(version);
    expect((await readJson('package-lock.json')).version).to.equal(version);
    expect(await read('CHANGELOG.md')).to.include(`## ${version}`);
  });

  it('cover every target, each with its platform', async () => {
    const main = await readJson('package.json');
    expect([...main.napi.targets].sort()).to.deep.equal(Object.keys(platforms).sort());
    const tags = Object.values(platforms).map(({ tag }) => tag);
    expect((await readdir(new URL('../npm/', import.meta.url))).sort()).to.deep.equal(tags.sort());
    for (const { tag, os, cpu, libc } of Object.values(platforms)) {
      const platform = await readJson(`npm/${tag}/package.json`);
      const file = `${main.napi.binaryName}.${tag}.node`;
      expect(platform).to.include({ name: `tsserve-${tag}`, version: main.version, license: main.license, main: file });
      expect(platform).to.deep.include({ files: [file], os: [os], cpu: [cpu], engines: main.engines });
      expect(platform.libc).to.deep.equal(libc === undefined ? undefined : [libc]);
    }
  });

  it('are all built by the release', async () => {
    const release = await read('.github/workflows/release.yml');
    for (const target of Object.keys(platforms)) expect(release).to.include(`target: ${target}\n`);
  });

  it('publish the library and nothing of the scripts', async () => {
    const { files, exports, bin } = await readJson('package.json');
    expect(files).to.deep.equal(['dist/', 'index.js', 'index.d.ts', 'CHANGELOG.md']);
    expect(exports).to.have.all.keys('.', './package.json');
    expect(bin).to.deep.equal({ tsserve: 'dist/cli/main.js' });
  });

  it('have workflows with pinned actions and no standing rights', async () => {
    for (const name of await readdir(new URL('../.github/workflows/', import.meta.url))) {
      const text = await read(`.github/workflows/${name}`);
      expect(text, name).to.match(/^permissions: \{\}$/m);
      for (const [, action] of text.matchAll(/uses: (\S+)/g)) expect(action, name).to.match(/@[0-9a-f]{40}$/);
    }
  });
});
