import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));

/** The weights that scripts/weights.json names, by id. */
export function realModelPath(id: string): string {
  const folder = process.env.TSSERVE_WEIGHTS_DIR ?? path.join(root, '.tsserve', 'weights');
  const file = path.join(folder, `${id}.gguf`);
  if (!existsSync(file)) {
    throw new Error(`${file} is missing: fetch the weights with 'node scripts/weights.mjs --all'`);
  }
  return file;
}

/** A speech model's folder, likewise. */
export function realSpeechPath(id: string): string {
  const folder = process.env.TSSERVE_WEIGHTS_DIR ?? path.join(root, '.tsserve', 'weights');
  const model = path.join(folder, id);
  if (!existsSync(path.join(model, 'tokenizer.json'))) {
    throw new Error(`${model} is missing: fetch the weights with 'node scripts/weights.mjs --all'`);
  }
  return model;
}

/** Clips of read speech (16 kHz, mono, 16 bit), by the end of their names. */
export function clipPath(clip: '0870' | '0880'): string {
  return path.join(root, 'fixtures', 'inputs', 'speech', `sense_${clip}.wav`);
}

export interface RealClip {
  readonly seconds: number;
  readonly greedy_text: string;
  readonly segments: readonly {
    readonly words: readonly { readonly word: string; readonly start: number; readonly end: number }[];
  }[];
}

/** What whisper-base must hear in the clips, by transformers and faster-whisper in f32. */
export function realClips(): Readonly<Record<'0870' | '0880', RealClip>> {
  const file = readFileSync(path.join(root, 'fixtures', 'real', 'whisper-base.json'), 'utf8');
  return (JSON.parse(file) as { readonly clips: Readonly<Record<'0870' | '0880', RealClip>> }).clips;
}

export interface RealCase {
  readonly kind: 'chat' | 'completion';
  readonly text: string;
  readonly prompt: string;
  readonly prompt_ids: readonly number[];
  readonly new_ids: readonly number[];
  readonly new_text: string;
  /** Per new token: the ten best ids with their log-probabilities, and the gap between the first two. */
  readonly steps: readonly {
    readonly id: number;
    readonly top: readonly (readonly [number, number])[];
    readonly gap: number;
  }[];
}

export interface RealReference {
  readonly model: string;
  readonly cases: readonly RealCase[];
  readonly perplexity: Readonly<Record<'512' | '1536', { readonly n_tokens: number; readonly mean_nll: number }>>;
}

/** What the weights must answer, by Python transformers in f32. */
export function realReference(id: string): RealReference {
  return JSON.parse(readFileSync(path.join(root, 'fixtures', 'real', `${id}.json`), 'utf8')) as RealReference;
}

/** The first 1536 tokens of gpl-3.txt as the reference counted them (see the note in the file). */
export function gplIds(id: string): readonly number[] {
  const file = readFileSync(path.join(root, 'fixtures', 'real', 'gpl3-ids.json'), 'utf8');
  return (JSON.parse(file) as { readonly ids: Readonly<Record<string, readonly number[]>> }).ids[id] ?? [];
}
