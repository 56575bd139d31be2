/** What is listened to: the clips of LibriVox in fixtures, one after the other, as often as makes the length. */

import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { reference } from './word-errors.js';

const folder = fileURLToPath(new URL('../../fixtures/inputs/speech/', import.meta.url));
/** A WAV header as these files have it: PCM, mono, 16 kHz, 16 bits. */
const HEADER = 44;
const RATE = 16_000;

export interface Speech {
  readonly path: string;
  readonly seconds: number;
  readonly words: readonly string[];
}

/** The clips one by one. */
export async function clips(): Promise<readonly Speech[]> {
  const transcripts = new Map<string, string>();
  for (const line of (await readFile(join(folder, 'transcription.txt'), 'utf8')).split('\n')) {
    const [, text, name] = /^<s> (.*) <\/s> \((.*)\)$/.exec(line) ?? [];
    if (text !== undefined && name !== undefined) transcripts.set(name, text);
  }
  const files = (await readdir(folder)).filter((name) => name.endsWith('.wav')).sort();
  return Promise.all(
    files.map(async (name) => {
      const path = join(folder, name);
      const text = transcripts.get(name.slice(0, -'.wav'.length));
      if (text === undefined) throw new Error(`${name} has no transcript`);
      return { path, seconds: ((await readFile(path)).length - HEADER) / 2 / RATE, words: reference(text) };
    }),
  );
}

/** All clips in a row, `times` over, as a file in `into`. */
export async function recording(times: number, into: string): Promise<Speech> {
  const all = await clips();
  const samples = await Promise.all(all.map(async ({ path }) => (await readFile(path)).subarray(HEADER)));
  const data = Buffer.concat(Array.from({ length: times }, () => samples).flat());
  const path = join(into, `speech-${times}.wav`);
  await writeFile(path, Buffer.concat([header(data.length), data]));
  const words = Array.from({ length: times }, () => all.flatMap((clip) => clip.words)).flat();
  return { path, seconds: data.length / 2 / RATE, words };
}

function header(bytes: number): Buffer {
  const head = Buffer.alloc(HEADER);
  head.write('RIFF', 0);
  head.writeUInt32LE(bytes + HEADER - 8, 4);
  head.write('WAVEfmt ', 8);
  head.writeUInt32LE(16, 16);
  head.writeUInt16LE(1, 20);
  head.writeUInt16LE(1, 22);
  head.writeUInt32LE(RATE, 24);
  head.writeUInt32LE(RATE * 2, 28);
  head.writeUInt16LE(2, 32);
  head.writeUInt16LE(16, 34);
  head.write('data', 36);
  head.writeUInt32LE(bytes, 40);
  return head;
}
