import { createWriteStream } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';

import { expect } from 'chai';

import { zipArchive } from './helpers/zip.js';

interface Zip {
  listEntries(path: string): Promise<string[]>;
  openEntry(path: string, name: string): Promise<any[]>;
}

describe('zip reader of the scripts', () => {
  let zip: Zip;
  let folder: string;
  before(async () => {
    zip = (await import(new URL('../scripts/lib/zip.mjs', import.meta.url).href)) as Zip;
    folder = await mkdtemp(join(tmpdir(), 'tsserve-zip-'));
  });
  after(() => rm(folder, { recursive: true }));

  const unpack = async (bytes: Buffer, name: string): Promise<Buffer> => {
    const path = join(folder, 'a.zip');
    const target = join(folder, 'out');
    await writeFile(path, bytes);
    await pipeline([...(await zip.openEntry(path, name)), createWriteStream(target)]);
    return readFile(target);
  };
  const refusal = async (bytes: Buffer, name = 'x'): Promise<string> => {
    try {
      await unpack(bytes, name);
    } catch (error) {
      return (error as Error).message;
    }
    return 'nothing was wrong';
  };

  it('reads stored, deflated and empty entries', async () => {
    const data = Buffer.from('weights '.repeat(10_000));
    const bytes = zipArchive([
      { name: 'stored', data },
      { name: 'folder/deflated', data, packed: true },
      { name: 'empty', data: Buffer.alloc(0) },
    ]);
    expect((await unpack(bytes, 'stored')).equals(data)).to.equal(true);
    expect((await unpack(bytes, 'folder/deflated')).equals(data)).to.equal(true);
    expect(await unpack(bytes, 'empty')).to.have.length(0);
    expect(await zip.listEntries(join(folder, 'a.zip'))).to.deep.equal(['stored', 'folder/deflated', 'empty']);
  });

  it('refuses archives that lie', async () => {
    const data = Buffer.from('0123456789');
    expect(await refusal(Buffer.from('no archive at all, just text'))).to.match(/no end record/);
    expect(await refusal(Buffer.alloc(0))).to.match(/no end record/);
    expect(await refusal(zipArchive([{ name: 'y', data }]))).to.equal('the archive has no x');
    expect(await refusal(zipArchive([{ name: 'x', data, size: 9 }]))).to.match(/longer than stated/);
    expect(await refusal(zipArchive([{ name: 'x', data, size: 11, packed: true }]))).to.match(
      /has 10 bytes, stated were 11/,
    );
    expect(await refusal(zipArchive([{ name: 'x', data, flags: 1 }]))).to.match(/encrypted/);
    const whole = zipArchive([{ name: 'x', data }]);
    expect(await refusal(whole.subarray(20))).to.match(/broken zip|no entry/);
    const far = Buffer.from(whole);
    far.writeUInt32LE(1000, whole.length - 9 - 6);
    expect(await refusal(far)).to.match(/reaches past the end/);
  });
});
