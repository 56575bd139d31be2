/** Transcription with the weights of whisper-base, held against what transformers and faster-whisper hear. */

import { createReadStream, readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { request as httpRequest } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { expect } from 'chai';
import OpenAI, { toFile } from 'openai';

import { convert } from '../bench/whisper/ct2-to-ggml.js';
import { runCli } from './helpers/cli.js';
import { formBody } from './helpers/form.js';
import { clipPath, realClips, realSpeechPath } from './helpers/real-models.js';
import { type RealServer, serveModel } from './helpers/real-server.js';

const MODEL = 'whisper-base-ct2';
const HEADER_BYTES = 44;

const FILTERS = fileURLToPath(new URL('../fixtures/golden/mel_dtw.safetensors', import.meta.url));
const AUDIO = fileURLToPath(new URL('../fixtures/golden/audio/', import.meta.url));

/** How far a word's times may be from the reference's, seconds. */
const WORD_TOLERANCE = 0.2;

/** The clips' samples one after the other, `times` times, as one recording. */
function recording(times: number): Buffer {
  const clips = (['0870', '0880'] as const).map((clip) => readFileSync(clipPath(clip)));
  const samples = Buffer.concat(
    Array.from({ length: times }, () => clips.map((clip) => clip.subarray(HEADER_BYTES))).flat(),
  );
  const header = Buffer.from(clips[0]!.subarray(0, HEADER_BYTES));
  header.writeUInt32LE(36 + samples.length, 4);
  header.writeUInt32LE(samples.length, 40);
  return Buffer.concat([header, samples]);
}

function wordsOf(text: string): string[] {
  return text.toLowerCase().match(/[a-z]+/g) ?? [];
}

describe('real: transcription', function () {
  this.timeout(300_000);
  const clips = realClips();
  let server: RealServer | undefined;
  let client: OpenAI;
  let folder: string | undefined;

  before(async () => {
    const model = realSpeechPath(MODEL);
    folder = await mkdtemp(join(tmpdir(), 'tsserve-speech-'));
    server = await serveModel({ model });
    client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'any', maxRetries: 0 });
  });
  after(async () => {
    await server?.close();
    if (folder !== undefined) await rm(folder, { recursive: true });
  });

  for (const clip of ['0870', '0880'] as const) {
    it(`hears what is said in ${clip}`, async () => {
      const { text } = await client.audio.transcriptions.create({
        file: createReadStream(clipPath(clip)),
        model: MODEL,
      });
      expect(wordsOf(text)).to.deep.equal(wordsOf(clips[clip].greedy_text));
    });
  }

  it('knows language, length, segments and when each word is said', async () => {
    const answer = await client.audio.transcriptions.create({
      file: createReadStream(clipPath('0870')),
      model: MODEL,
      response_format: 'verbose_json',
      timestamp_granularities: ['word', 'segment'],
    });
    expect(answer.language).to.equal('english');
    expect(answer.duration).to.be.closeTo(clips['0870'].seconds, 0.02);
    expect(answer.segments![0]!.avg_logprob).to.be.within(-1, 0);
    const expected = clips['0870'].segments.flatMap(({ words }) => words);
    expect(answer.words!.map(({ word }) => word)).to.deep.equal(expected.map(({ word }) => word.trim()));
    for (const [index, { word, start, end }] of answer.words!.entries()) {
      expect(start, word).to.be.closeTo(expected[index]!.start, WORD_TOLERANCE);
      expect(end, word).to.be.closeTo(expected[index]!.end, WORD_TOLERANCE);
    }
  });

  it('hears the same in every format', async () => {
    const { files } = JSON.parse(readFileSync(join(AUDIO, 'audio.json'), 'utf8')) as {
      files: Record<string, { clip: 'whole' | 'short' }>;
    };
    expect(Object.keys(files)).to.have.length.above(16);
    for (const [name, { clip }] of Object.entries(files)) {
      const file = createReadStream(join(AUDIO, 'files', name));
      const { text } = await client.audio.transcriptions.create({ file, model: MODEL, language: 'en' });
      // The 0.7 s end within the second word. The network is so unsure of what that is (its answer is about as probable as
      // the least that is accepted) that the last digits of samples decide it; the first word is certain.
      if (clip === 'short') expect(wordsOf(text)[0], name).to.equal('not');
      else expect(wordsOf(text), name).to.deep.equal(wordsOf(clips['0880'].greedy_text));
    }
  });

  it('refuses broken recordings in a sentence each, and goes on', async () => {
    const decodes = ['data_size_lies.wav', 'flac_named.wav'];
    const broken = readdirSync(join(AUDIO, 'broken')).filter((name) => !decodes.includes(name));
    const files = broken.map((name): [string, Buffer] => [name, readFileSync(join(AUDIO, 'broken', name))]);
    for (const name of ['16k.flac', 'mono.mp3', 'mulaw.wav', 'opus.ogg', 'opus.webm', 'vorbis.ogg', 'aac.m4a']) {
      const whole = readFileSync(join(AUDIO, 'files', name));
      for (const share of [0.01, 0.1, 0.3, 0.5, 0.7, 0.9]) {
        files.push([name, whole.subarray(0, Math.floor(whole.length * share))]);
      }
    }
    expect(files.length).to.be.at.least(50);
    for (const [name, bytes] of files) {
      const form = new FormData();
      form.append('file', new Blob([bytes]), name);
      const answer = await fetch(`${server!.url}/v1/audio/transcriptions`, { method: 'POST', body: form });
      const { error } = (await answer.json()) as { error: { message: string; type: string; param: string } };
      const what = `${name} of ${bytes.length} bytes`;
      expect([answer.status, error.type, error.param], what).to.deep.equal([400, 'invalid_request_error', 'file']);
      expect(error.message, what).to.match(/^[^\n]{10,200}$/);
    }
    const { text } = await client.audio.transcriptions.create({
      file: createReadStream(clipPath('0880')),
      model: MODEL,
    });
    expect(wordsOf(text)).to.deep.equal(wordsOf(clips['0880'].greedy_text));
  });

  it('writes subtitles, streams, and says how sure it is', async () => {
    const file = (): Promise<File> => toFile(readFileSync(clipPath('0880')), 'clip.wav');
    const srt = await client.audio.transcriptions.create({ file: await file(), model: MODEL, response_format: 'srt' });
    expect(srt).to.match(/^1\n00:00:0\d,\d{3} --> 00:00:0\d,\d{3}\nHe was not/);
    const stream = await client.audio.transcriptions.create({
      file: await file(),
      model: MODEL,
      stream: true,
      include: ['logprobs'],
    });
    let text = '';
    for await (const event of stream) {
      if (event.type === 'transcript.text.delta') text += event.delta;
      if (event.type === 'transcript.text.done') {
        expect(event.text).to.equal(text);
        expect(event.logprobs!.every(({ logprob }) => logprob! <= 0)).to.equal(true);
        expect(
          event
            .logprobs!.map(({ token }) => token)
            .join('')
            .trim(),
        ).to.equal(text);
        expect(event.usage!.output_tokens).to.be.greaterThan(5);
      }
    }
    expect(wordsOf(text)).to.deep.equal(wordsOf(clips['0880'].greedy_text));
  });

  it('hears a recording of more than one window, window by window and in pieces', async () => {
    const times = 4;
    const spoken = wordsOf(clips['0870'].greedy_text + clips['0880'].greedy_text);
    const path = join(folder!, 'long.wav');
    await writeFile(path, recording(times));
    for (const chunking of [undefined, 'auto'] as const) {
      const answer = await client.audio.transcriptions.create({
        file: createReadStream(path),
        model: MODEL,
        response_format: 'verbose_json',
        ...(chunking === undefined ? {} : { chunking_strategy: chunking }),
      });
      const heard = wordsOf(answer.text);
      expect(heard.length / (spoken.length * times), chunking ?? 'sequential').to.be.within(0.9, 1.1);
      expect(heard.filter((word) => word === 'dashwood').length).to.be.within(times - 1, times + 1);
      const starts = answer.segments!.map(({ start }) => start);
      expect(starts).to.deep.equal([...starts].sort((a, b) => a - b));
      expect(answer.segments!.at(-1)!.end).to.be.within(30, answer.duration + 0.1);
    }
  });

  it('translates, which of English is English', async () => {
    const { text } = await client.audio.translations.create({ file: createReadStream(clipPath('0880')), model: MODEL });
    expect(wordsOf(text)).to.include.members(['young', 'man']);
  });

  it('takes several at once', async () => {
    const ask = (clip: '0870' | '0880'): Promise<OpenAI.Audio.Transcription> =>
      client.audio.transcriptions.create({ file: createReadStream(clipPath(clip)), model: MODEL });
    const asked = ['0870', '0880', '0870', '0880', '0870', '0880'] as const;
    const answers = await Promise.all(asked.map(ask));
    for (const [index, { text }] of answers.entries()) {
      expect(wordsOf(text)).to.deep.equal(wordsOf(clips[asked[index]!].greedy_text));
    }
  });

  it('refuses what is no recording, and other languages than there are', async () => {
    const ask = async (file: File, more: object = {}): Promise<any> => {
      try {
        return await client.audio.transcriptions.create({ file, model: MODEL, ...more });
      } catch (error) {
        return error;
      }
    };
    const noise = await ask(await toFile(Buffer.from('this is a text'), 'a.wav'));
    expect([noise.status, noise.code, noise.param]).to.deep.equal([400, 'invalid_audio', 'file']);
    const clip = await toFile(readFileSync(clipPath('0880')), 'a.wav');
    const klingon = await ask(clip, { language: 'klingon' });
    expect([klingon.status, klingon.param]).to.deep.equal([400, 'language']);
  });

  it('stops when its client leaves', async () => {
    const { headers, body } = formBody([
      { name: 'stream', value: 'true' },
      { name: 'file', filename: 'long.wav', value: recording(40) },
    ]);
    const req = httpRequest(`${server!.url}/v1/audio/transcriptions`, { method: 'POST', headers, agent: false });
    req.on('error', () => undefined).end(body);
    const running = async (): Promise<boolean> =>
      (await (await fetch(`${server!.url}/metrics`)).text()).includes('\ntsserve_transcriptions_running 1\n');
    while (!(await running())) continue;
    req.destroy();
    while (await running()) continue;
    // Nothing of it is left in the way of the next one.
    const { text } = await client.audio.transcriptions.create({
      file: createReadStream(clipPath('0880')),
      model: MODEL,
    });
    expect(wordsOf(text)).to.deep.equal(wordsOf(clips['0880'].greedy_text));
  });

  it('works at the command line, from a file and from standard input', async () => {
    const model = realSpeechPath(MODEL);
    const { code, stdout, stderr } = await runCli(['transcribe', clipPath('0880'), '--model', model]);
    expect([code, stderr]).to.deep.equal([0, '']);
    expect(wordsOf(stdout)).to.deep.equal(wordsOf(clips['0880'].greedy_text));
    const broken = await runCli(['transcribe', '-', '--model', model], 'no recording');
    expect(broken.code).to.equal(1);
    expect(broken.stderr).to.match(/^tsserve: standard input: .+\n$/);
  });

  it("hears the same with the weights in whisper.cpp's file, with a prompt and word times", async () => {
    const ggml = join(folder!, 'ggml-base.bin');
    await convert(realSpeechPath(MODEL), FILTERS, ggml);
    const flags = ['--prompt', 'A chapter of Sense and Sensibility.', '--word-timestamps', '-f', 'verbose_json'];
    const [expected, found] = await Promise.all(
      [realSpeechPath(MODEL), ggml].map(async (model) => {
        const { code, stdout, stderr } = await runCli(['transcribe', clipPath('0870'), '--model', model, ...flags]);
        expect([code, stderr]).to.deep.equal([0, '']);
        return JSON.parse(stdout) as { text: string; language: string; words: { word: string; start: number }[] };
      }),
    );
    expect(wordsOf(found!.text)).to.deep.equal(wordsOf(clips['0870'].greedy_text));
    expect(found!.language).to.equal('english');
    expect(found!.words).to.deep.equal(expected!.words);
    await writeFile(ggml, readFileSync(ggml).subarray(0, 1_000_000));
    const { code, stderr } = await runCli(['transcribe', clipPath('0870'), '--model', ggml]);
    expect(code).to.equal(1);
    expect(stderr).to.match(/^tsserve: .*is broken: it is truncated.*\n$/);
  });
});
