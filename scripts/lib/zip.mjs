/**
 * Reads entries of a zip archive as streams. Every size and offset of the archive is checked before it is used; only
 * what wheels hold is known: stored and deflated entries, no encryption, below 4 GiB.
 */

import { open } from 'node:fs/promises';
import { Readable, Transform } from 'node:stream';
import { createInflateRaw } from 'node:zlib';

const endRecord = { signature: 0x06054b50, length: 22, maxComment: 0xffff };
const centralRecord = { signature: 0x02014b50, length: 46 };
const localRecord = { signature: 0x04034b50, length: 30 };
const maxDirectory = 64 << 20;

/** The names of all files of an archive. */
export async function listEntries(path) {
  const file = await open(path, 'r');
  try {
    return (await readDirectory(file)).map(({ name }) => name).filter((name) => !name.endsWith('/'));
  } finally {
    await file.close();
  }
}

/** Streams to put into a pipeline; it fails if the entry's size is not what the archive states. */
export async function openEntry(path, name) {
  const file = await open(path, 'r');
  try {
    const entry = (await readDirectory(file)).find((candidate) => candidate.name === name);
    if (entry === undefined) throw new Error(`the archive has no ${name}`);
    if ((entry.flags & 1) !== 0) throw new Error(`${name} is encrypted`);
    if (entry.method !== 0 && entry.method !== 8)
      throw new Error(`${name} is packed by the unknown method ${entry.method}`);
    const header = await readExactly(file, entry.offset, localRecord.length);
    if (header.readUInt32LE(0) !== localRecord.signature) throw new Error(`broken zip: no entry at ${entry.offset}`);
    const start = entry.offset + localRecord.length + header.readUInt16LE(26) + header.readUInt16LE(28);
    const { size: fileSize } = await file.stat();
    if (start + entry.packed > fileSize) throw new Error(`broken zip: ${name} reaches past the end`);
    const checked = exactly(entry.size, name);
    if (entry.packed === 0) {
      await file.close();
      return [Readable.from([]), checked];
    }
    const packed = file.createReadStream({ start, end: start + entry.packed - 1, highWaterMark: 1 << 20 });
    return entry.method === 0 ? [packed, checked] : [packed, createInflateRaw({ chunkSize: 1 << 20 }), checked];
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function readDirectory(file) {
  const { size } = await file.stat();
  const tailLength = Math.min(size, endRecord.length + endRecord.maxComment);
  const tail = await readExactly(file, size - tailLength, tailLength);
  let end = tail.length - endRecord.length;
  while (end >= 0 && tail.readUInt32LE(end) !== endRecord.signature) end -= 1;
  if (end < 0) throw new Error('not a zip archive: no end record');
  const count = tail.readUInt16LE(end + 10);
  const length = tail.readUInt32LE(end + 12);
  const offset = tail.readUInt32LE(end + 16);
  if (offset === 0xffffffff) throw new Error('zip64 archives are not supported');
  if (length > maxDirectory || offset + length > size)
    throw new Error('broken zip: its directory reaches past the end');
  const directory = await readExactly(file, offset, length);
  const entries = [];
  let at = 0;
  for (let i = 0; i < count; i += 1) {
    if (at + centralRecord.length > length || directory.readUInt32LE(at) !== centralRecord.signature) {
      throw new Error('broken zip: its directory ends early');
    }
    const nameEnd = at + centralRecord.length + directory.readUInt16LE(at + 28);
    const next = nameEnd + directory.readUInt16LE(at + 30) + directory.readUInt16LE(at + 32);
    if (next > length) throw new Error('broken zip: its directory ends early');
    entries.push({
      name: directory.toString('utf8', at + centralRecord.length, nameEnd),
      flags: directory.readUInt16LE(at + 8),
      method: directory.readUInt16LE(at + 10),
      packed: directory.readUInt32LE(at + 20),
      size: directory.readUInt32LE(at + 24),
      offset: directory.readUInt32LE(at + 42),
    });
    at = next;
  }
  return entries;
}

async function readExactly(file, position, length) {
  const buffer = Buffer.alloc(length);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await file.read(buffer, done, length - done, position + done);
    if (bytesRead === 0) throw new Error('broken zip: it ends early');
    done += bytesRead;
  }
  return buffer;
}

/** Passes bytes on and fails as soon as there are more than `size`, or at the end if there were fewer. */
function exactly(size, name) {
  let seen = 0;
  return new Transform({
    transform(chunk, _encoding, done) {
      seen += chunk.length;
      if (seen > size) done(new Error(`broken zip: ${name} is longer than stated`));
      else done(null, chunk);
    },
    flush(done) {
      done(seen === size ? null : new Error(`broken zip: ${name} has ${seen} bytes, stated were ${size}`));
    },
  });
}
