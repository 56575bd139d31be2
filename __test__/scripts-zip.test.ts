import { createWriteStream } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { deflateRawSync } from 'node:zlib';

import { expect } from 'chai';

interface Zip {
  listEntries(path: string): Promise<string[]>;
  openEntry(path: string, name: string): Promise<any[]>;
}

/** A zip archive of one or two entries, made by hand so that it can be made wrong. */
function archive(
  entries: readonly { name: string; data: Buffer; packed?: boolean; size?: number; flags?: number }[],
): Buffer {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const { name, data, packed = false, size = data.length, flags = 0 } of entries) {
    const body = packed ? deflateRawSync(data) : data;
    const local = Buffer.alloc(30);
    local.writeUInt32LE(0x04034b50, 0);
    local.writeUInt16LE(name.length, 26);
    const central = Buffer.alloc(46);
    central.writeUInt32LE(0x02014b50, 0);
    central.writeUInt16LE(flags, 8);
    central.writeUInt16LE(packed ? 8 : 0, 10);
    central.writeUInt32LE(body.length, 20);
    central.writeUInt32LE(size, 24);
    central.writeUInt16LE(name.length, 28);
    central.writeUInt32LE(offset, 42);
    parts.push(local, Buffer.from(name), body);
    directory.push(central, Buffer.from(name));
    offset += 30 + name.length + body.length;
  }
  const listing = Buffer.concat(directory);
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(entries.length, 8);
  end.writeUInt16LE(entries.length, 10);
  end.writeUInt32LE(listing.length, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([...parts, listing, end, Buffer.from('a comment')]);
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
    const bytes = archive([
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
    expect(await refusal(archive([{ name: 'y', data }]))).to.equal('the archive has no x');
    expect(await refusal(archive([{ name: 'x', data, size: 9 }]))).to.match(/longer than stated/);
    expect(await refusal(archive([{ name: 'x', data, size: 11, packed: true }]))).to.match(
      /has 10 bytes, stated were 11/,
    );
    expect(await refusal(archive([{ name: 'x', data, flags: 1 }]))).to.match(/encrypted/);
    const whole = archive([{ name: 'x', data }]);
    expect(await refusal(whole.subarray(20))).to.match(/broken zip|no entry/);
    const far = Buffer.from(whole);
    far.writeUInt32LE(1000, whole.length - 9 - 6);
    expect(await refusal(far)).to.match(/reaches past the end/);
  });
});
