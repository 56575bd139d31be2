/**
 * `npm run bench -- --whisper [--peers]`: seconds and word errors for 25 seconds and 2 minutes of speech. `--rounds N`,
 * `--quick`, `--only REGEX`, `--times N` (of the 25 seconds), `--words` (word errors of each clip alone), `--json`.
 * scripts/bench.mjs adds the paths.
 */

import { mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { QUANTIZATIONS, type Quantization } from '../../ts/engine/types.js';
import { figure, median, medianInterval } from '../statistics.js';
import { MODES, openFasterWhisper, openTsserve, openWhisperCpp, type Heard, type Listener } from './listeners.js';
import { clips, recording, type Speech } from './speech.js';
import { normalise, wordErrors } from './word-errors.js';

const { values: flags } = parseArgs({
  options: {
    whisper: { type: 'boolean' },
    peers: { type: 'boolean' },
    model: { type: 'string' },
    rounds: { type: 'string', default: '5' },
    quick: { type: 'boolean', default: false },
    only: { type: 'string', default: '' },
    times: { type: 'string', multiple: true, default: ['1', '5'] },
    words: { type: 'boolean', default: false },
    threads: { type: 'string', default: String(availableParallelism()) },
    quantization: { type: 'string' },
    json: { type: 'boolean', default: false },
    'faster-whisper': { type: 'string' },
    'whisper-cpp': { type: 'string' },
    ggml: { type: 'string' },
  },
});

if (flags.model === undefined) throw new Error('--model names the folder of weights');
const quantization = QUANTIZATIONS.find((name) => name === flags.quantization);
if (flags.quantization !== undefined && quantization === undefined)
  throw new Error(`--quantization knows ${QUANTIZATIONS.join(', ')}`);
const rounds = flags.quick ? 1 : Number(flags.rounds);
const wanted = new RegExp(flags.only);

const folder = await mkdtemp(join(tmpdir(), 'tsserve-bench-'));
const listeners = await openAll(flags.model, Number(flags.threads), quantization);
try {
  if (flags.words) await wordsOfClips();
  else await speeds();
} finally {
  for (const listener of listeners) await listener.close();
  await rm(folder, { recursive: true });
}

async function openAll(model: string, threads: number, quantization?: Quantization): Promise<readonly Listener[]> {
  const opened = [await openTsserve(model, threads, quantization)];
  const { 'faster-whisper': python, 'whisper-cpp': program, ggml } = flags;
  if (python !== undefined) opened.push(await openFasterWhisper(python, model, threads));
  if (program !== undefined && ggml !== undefined) opened.push(await openWhisperCpp(program, ggml, threads));
  return opened;
}

/** What each clip is heard as, and what of that is wrong. */
async function wordsOfClips(): Promise<void> {
  for (const listener of listeners) {
    let [errors, words] = [0, 0];
    for (const clip of await clips()) {
      const { text } = await listener.listen(clip.path, 'greedy');
      const found = wordErrors(clip.words, normalise(text));
      say(`${listener.name}: ${text.trim()}${found.list.length > 0 ? `\n  wrong: ${found.list.join(', ')}` : ''}`);
      errors += found.errors;
      words += found.words;
    }
    say(`${listener.name}: ${errors} of ${words} words wrong\n`);
  }
}

async function speeds(): Promise<void> {
  say(listeners.map(({ name, about }) => `${name}: ${about}`).join('\n'));
  const results: unknown[] = [];
  for (const times of flags.times.map(Number)) {
    const speech = await recording(times, folder);
    for (const mode of MODES) {
      const name = `${mode}, ${speech.seconds.toFixed(0)} s of speech`;
      const able = listeners.filter(({ modes }) => modes.includes(mode));
      if (!wanted.test(name)) continue;
      const heard = await inRounds(able, speech, mode);
      print(name, speech, heard);
      results.push({ name, heard: Object.fromEntries(heard) });
    }
  }
  if (flags.json) process.stdout.write(`${JSON.stringify(results, undefined, 2)}\n`);
}

/** One unrecorded listening each, then rounds, every other one the other way round. */
async function inRounds(
  able: readonly Listener[],
  { path }: Speech,
  mode: (typeof MODES)[number],
): Promise<ReadonlyMap<string, readonly Heard[]>> {
  const heard = new Map<string, Heard[]>(able.map(({ name }) => [name, []]));
  if (!flags.quick) for (const listener of able) await listener.listen(path, mode);
  for (let round = 0; round < rounds; round += 1) {
    for (const listener of round % 2 === 0 ? able : [...able].reverse()) {
      heard.get(listener.name)?.push(await listener.listen(path, mode));
    }
  }
  return heard;
}

function print(name: string, speech: Speech, heard: ReadonlyMap<string, readonly Heard[]>): void {
  say(`${name} (${rounds} ${rounds === 1 ? 'round' : 'rounds'})`);
  const own = (heard.get('tsserve') ?? []).map(({ seconds }) => seconds);
  for (const [listener, all] of heard) {
    const { median: middle, min, max } = figure(all.map(({ seconds }) => seconds));
    const first = median(all.map(({ firstSegment }) => firstSegment));
    const { errors, words } = wordErrors(speech.words, normalise(all[0]?.text ?? ''));
    const ratios = all.map(({ seconds }, i) => seconds / (own[i] ?? NaN));
    const [low, high] = medianInterval(ratios).map((ratio) => ratio.toFixed(2));
    const ratio =
      listener === 'tsserve' ? '' : `; tsserve ${median(ratios).toFixed(2)}x as fast (95 %: ${low} to ${high})`;
    say(
      `  ${listener.padEnd(15)} ${middle.toFixed(2)} s (${min.toFixed(2)} to ${max.toFixed(2)}), ` +
        `${(speech.seconds / middle).toFixed(1)}x real time, first segment after ${first.toFixed(2)} s, ` +
        `${errors} of ${words} words wrong${ratio}`,
    );
  }
}

function say(text: string): void {
  (flags.json ? process.stderr : process.stdout).write(`${text}\n`);
}
