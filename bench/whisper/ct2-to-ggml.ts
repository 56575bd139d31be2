/**
 * CTranslate2's Whisper weights (f16) in the file format of whisper.cpp, so that all contenders compute with the same numbers:
 * `node --import=tsx bench/whisper/ct2-to-ggml.ts FOLDER FILTERS.safetensors OUT.bin`.
 */

import { readFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Numbers of types, there and here. */
const CT2_F16 = 4;
const GGML_F32 = 0;
const GGML_F16 = 1;
const MAGIC = 0x67676d6c;
/** Bytes of an element of each of CTranslate2's types: f32, i8, i16, i32, f16. */
const SIZES = [4, 1, 2, 4, 2];

interface Tensor {
  readonly shape: readonly number[];
  readonly type: number;
  readonly data: Buffer;
}

type Tensors = ReadonlyMap<string, Tensor>;

/** Writes `out` of the weights in `folder`, with the mel filters of 80 bins from `filters`. */
export async function convert(folder: string, filters: string, out: string): Promise<void> {
  const tensors = readCt2(await readFile(join(folder, 'model.bin')));
  const vocabulary = JSON.parse(await readFile(join(folder, 'vocabulary.json'), 'utf8')) as readonly string[];
  const [nVocab = 0, width = 0] = get(tensors, 'decoder/embeddings/weight').shape;
  const context = (part: string): number => get(tensors, `${part}/position_encodings/encodings`).shape[0] ?? 0;
  const layers = (part: string): number => {
    let n = 0;
    while (tensors.has(`${part}/layer_${n}/ffn/linear_0/weight`)) n += 1;
    return n;
  };
  const heads = width / 64;
  const mel = await melFilters(filters);
  const chunks = [int32(MAGIC, nVocab, context('encoder'), width, heads, layers('encoder'))];
  chunks.push(int32(context('decoder'), width, heads, layers('decoder'), 80, 1), int32(80, 201), mel);
  const words = vocabulary.slice(0, vocabulary.indexOf('<|endoftext|>')).map(wordBytes);
  chunks.push(int32(words.length), ...words.flatMap((word) => [int32(word.length), word]));
  for (const part of ['encoder', 'decoder']) {
    for (const [name, tensor] of named(tensors, part, layers(part))) chunks.push(...entry(name, tensor));
  }
  await writeFile(out, Buffer.concat(chunks));
}

/** whisper.cpp's name and the tensor for all of one half of the network. */
function* named(tensors: Tensors, part: string, layers: number): Generator<[string, Tensor]> {
  const at = (name: string): Tensor => get(tensors, `${part}/${name}`);
  const both = (ours: string, theirs: string, [weight, bias]: readonly [string, string]): [string, Tensor][] => [
    [`${part}.${ours}.weight`, at(`${theirs}/${weight}`)],
    [`${part}.${ours}.bias`, at(`${theirs}/${bias}`)],
  ];
  const norm = (ours: string, theirs: string): [string, Tensor][] =>
    both(ours, `${theirs}layer_norm`, ['gamma', 'beta']);
  yield [`${part}.positional_embedding`, at('position_encodings/encodings')];
  if (part === 'encoder') for (const conv of ['conv1', 'conv2']) yield* both(conv, conv, ['weight', 'bias']);
  else yield [`${part}.token_embedding.weight`, at('embeddings/weight')];
  yield* norm(part === 'encoder' ? 'ln_post' : 'ln', '');
  for (let layer = 0; layer < layers; layer += 1) {
    const [here, there] = [`layer_${layer}/`, `blocks.${layer}`];
    /** One of `of` equal ranges of rows. Keys have no bias there. */
    const linear = (ours: string, theirs: string, index = 0, of = 1): [string, Tensor][] =>
      both(`${there}.${ours}`, here + theirs, ['weight', 'bias'])
        .filter(([name]) => !name.endsWith('key.bias'))
        .map(([name, tensor]) => [name, rows(tensor, index, of)]);
    yield* norm(`${there}.attn_ln`, `${here}self_attention/`);
    for (const [index, name] of ['query', 'key', 'value'].entries())
      yield* linear(`attn.${name}`, 'self_attention/linear_0', index, 3);
    yield* linear('attn.out', 'self_attention/linear_1');
    if (part === 'decoder') {
      yield* norm(`${there}.cross_attn_ln`, `${here}attention/`);
      yield* linear('cross_attn.query', 'attention/linear_0');
      yield* linear('cross_attn.key', 'attention/linear_1', 0, 2);
      yield* linear('cross_attn.value', 'attention/linear_1', 1, 2);
      yield* linear('cross_attn.out', 'attention/linear_2');
    }
    yield* norm(`${there}.mlp_ln`, `${here}ffn/`);
    yield* linear('mlp.0', 'ffn/linear_0');
    yield* linear('mlp.2', 'ffn/linear_1');
  }
}

/** Matrices in f16, everything else in f32; biases of convolutions are columns. */
function entry(name: string, { shape, data }: Tensor): Buffer[] {
  const half = shape.length > 1 && !name.includes('positional');
  const dims = /\.conv\d\.bias$/.test(name) ? [...shape, 1] : shape;
  const bytes = Buffer.from(name);
  const header = int32(dims.length, bytes.length, half ? GGML_F16 : GGML_F32, ...dims.toReversed());
  return [header, bytes, half ? data : toF32(data)];
}

function readCt2(file: Buffer): Tensors {
  let at = 0;
  const u32 = (): number => file.readUInt32LE((at += 4) - 4);
  const name = (): string => {
    const length = file.readUInt16LE(at);
    at += 2 + length;
    return file.toString('utf8', at - length, at - 1);
  };
  u32();
  name();
  u32();
  const tensors = new Map<string, Tensor>();
  for (let left = u32(); left > 0; left -= 1) {
    const key = name();
    const rank = file.readUInt8(at++);
    const shape = Array.from({ length: rank }, u32);
    const type = file.readUInt8(at++);
    const length = u32();
    const elements = shape.reduce((product, dim) => product * dim, 1);
    if (elements * (SIZES[type] ?? 0) !== length) throw new Error(`${key} has ${length} bytes`);
    tensors.set(key, { shape, type, data: file.subarray(at, (at += length)) });
  }
  return tensors;
}

function get(tensors: Tensors, name: string): Tensor {
  const tensor = tensors.get(name);
  if (tensor?.type !== CT2_F16) throw new Error(`the weights have no ${name} in f16`);
  return tensor;
}

function rows({ shape, type, data }: Tensor, index: number, of: number): Tensor {
  const length = data.length / of;
  const [n = 0, ...inner] = shape;
  return { shape: [n / of, ...inner], type, data: data.subarray(index * length, (index + 1) * length) };
}

/** `filters80` of a safetensors file, `[201][80]`, as `[80][201]`. */
async function melFilters(path: string): Promise<Buffer> {
  const file = await readFile(path);
  const length = Number(file.readBigUInt64LE());
  const header = JSON.parse(file.toString('utf8', 8, 8 + length)) as Record<string, { data_offsets: [number, number] }>;
  const start = 8 + length + (header.filters80?.data_offsets[0] ?? NaN);
  const out = Buffer.alloc(80 * 201 * 4);
  for (let mel = 0; mel < 80; mel += 1) {
    for (let bin = 0; bin < 201; bin += 1)
      out.writeFloatLE(file.readFloatLE(start + 4 * (bin * 80 + mel)), 4 * (mel * 201 + bin));
  }
  return out;
}

/** The bytes that GPT-2's printable alphabet stands for. */
function wordBytes(word: string): Buffer {
  return Buffer.from(Array.from(word, (letter) => BYTES.get(letter) ?? 0));
}

const BYTES: ReadonlyMap<string, number> = (() => {
  const plain = (byte: number): boolean =>
    (byte >= 33 && byte < 127) || (byte >= 161 && byte < 173) || (byte >= 174 && byte < 256);
  let next = 256;
  return new Map(
    Array.from({ length: 256 }, (_, byte) => [String.fromCharCode(plain(byte) ? byte : next++), byte] as const),
  );
})();

function int32(...values: readonly number[]): Buffer {
  const out = Buffer.alloc(4 * values.length);
  values.forEach((value, i) => out.writeInt32LE(value, 4 * i));
  return out;
}

function toF32(halves: Buffer): Buffer {
  const out = Buffer.alloc(halves.length * 2);
  for (let i = 0; i < halves.length; i += 2) {
    const bits = halves.readUInt16LE(i);
    const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
    const size = exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25);
    out.writeFloatLE(exponent === 31 ? NaN : sign * size, 2 * i);
  }
  return out;
}

const [folder, filters, out] = process.argv.slice(2);
if (process.argv[1] !== undefined && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  if (folder === undefined || filters === undefined || out === undefined) throw new Error('FOLDER, FILTERS and OUT');
  await convert(folder, filters, out);
}
