import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect } from 'chai';

import { CliFailure } from '../ts/cli/failure.js';
import { curlLine, describeModel, transcribeLine } from '../ts/cli/serve-report.js';
import { DEFAULT_SPEECH_MODEL, toJob, type TranscribeFlags } from '../ts/cli/transcribe.js';
import { transcribeFiles } from '../ts/cli/transcribe-files.js';
import { EngineError } from '../ts/engine/types.js';
import { runCli } from './helpers/cli.js';
import { rejection } from './helpers/rejection.js';
import { hear, ScriptedEngine, type ScriptedEngineOptions, scriptedModel } from './helpers/scripted-engine.js';
import { english, heard, said, transcribed } from './helpers/scripted-events.js';

const FLAGS: TranscribeFlags = {
  model: DEFAULT_SPEECH_MODEL,
  task: 'transcribe',
  format: 'text',
  context: true,
  device: 'auto',
  dtype: 'auto',
  download: true,
};

interface Run {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly engine: ScriptedEngine;
}

interface RunOptions {
  readonly flags?: Partial<TranscribeFlags>;
  readonly engine?: ScriptedEngineOptions;
  readonly stdin?: readonly Uint8Array[];
  readonly isTTY?: boolean;
  readonly signal?: AbortSignal;
  readonly onWrite?: (text: string) => void;
}

describe('tsserve transcribe', () => {
  let folder: string;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tsserve-transcribe-'));
    for (const name of ['a.mp3', 'b.wav']) await writeFile(join(folder, name), name);
  });
  afterEach(async () => rm(folder, { recursive: true }));

  const at = (name: string): string => join(folder, name);

  async function run(files: readonly string[], options: RunOptions = {}): Promise<Run> {
    const engine = new ScriptedEngine({
      model: { kind: 'speech' },
      speech: ({ audio }) => {
        if ('path' in audio && audio.path.endsWith('bad.mp3'))
          throw new EngineError('invalid_audio', 'no decoder knows it');
        return hear(['Hello there.', 'Bye!']);
      },
      ...options.engine,
    });
    let [stdout, stderr, clock] = ['', '', 0];
    const io = {
      stdin: (async function* () {
        yield* options.stdin ?? [];
      })(),
      stdout: {
        write: (text: string) => {
          stdout += text;
          options.onWrite?.(text);
        },
      },
      stderr: { isTTY: options.isTTY ?? false, columns: 80, write: (text: string) => (stderr += text) },
      // Each look at the clock is half a second later.
      now: () => (clock += 500),
    };
    const job = toJob(files, { ...FLAGS, ...options.flags });
    const code = await transcribeFiles(engine, job, io, options.signal ?? new AbortController().signal);
    return { code, stdout, stderr, engine };
  }

  it('writes what is said, a line for each segment, and nothing else', async () => {
    const { code, stdout, stderr, engine } = await run([at('a.mp3')]);
    expect([code, stdout, stderr]).to.deep.equal([0, 'Hello there.\nBye!\n', '']);
    expect(engine.loads).to.deep.equal([
      { model: 'openai/whisper-base', device: 'auto', dtype: 'auto', noDownload: false },
    ]);
    expect(engine.transcriptions).to.deep.equal([{ model: 1, audio: { path: at('a.mp3') }, task: 'transcribe' }]);
  });

  it('writes as it hears', async () => {
    const seen: string[] = [];
    await run([at('a.mp3')], {
      onWrite: (text) => seen.push(text),
      engine: {
        speech: async function* () {
          yield [heard, english, said(0, ' One.')];
          yield [{ type: 'progress', seconds: 1 }];
          seen.push('and then');
          yield [said(1, ' Two\u001b[2J.'), said(2, ' '), transcribed];
        },
      },
    });
    // What could take hold of a terminal is left out.
    expect(seen).to.deep.equal(['One.\n', 'and then', 'Two[2J.\n']);
  });

  it('passes its flags on', async () => {
    const { engine } = await run([at('a.mp3')], {
      flags: {
        ...{
          model: './folder',
          language: 'de',
          task: 'translate',
          batched: true,
          beamSize: 5,
          bestOf: 2,
          temperature: 0.3,
        },
        ...{ prompt: 'So.', seed: 4, skipSilence: true, hallucinationSilence: 2, context: false, threads: 2 },
        ...{ device: 'cpu', quantization: 'q8_0', download: false },
      },
    });
    expect(engine.loads).to.deep.equal([
      { model: './folder', device: 'cpu', dtype: 'auto', quantization: 'q8_0', threads: 2, noDownload: true },
    ]);
    expect(engine.transcriptions[0]).to.deep.equal({
      model: 1,
      audio: { path: at('a.mp3') },
      task: 'translate',
      language: 'de',
      prompt: 'So.',
      temperature: 0.3,
      beamSize: 5,
      bestOf: 2,
      seed: 4,
      skipSilence: true,
      hallucinationSilenceThreshold: 2,
      wordTimestamps: true,
      chunking: { type: 'batched' },
      conditionOnPreviousText: false,
    });
  });

  it('takes several files, names them, and goes on where one fails', async () => {
    await writeFile(at('bad.mp3'), 'x');
    const { code, stdout, stderr, engine } = await run([
      at('none.mp3'),
      at('a.mp3'),
      at('bad.mp3'),
      folder,
      at('b.wav'),
    ]);
    expect(code).to.equal(1);
    expect(stdout).to.equal(
      `==> ${at('a.mp3')} <==\nHello there.\nBye!\n==> ${at('bad.mp3')} <==\n==> ${at('b.wav')} <==\nHello there.\nBye!\n`,
    );
    expect(stderr.split('\n').sort()).to.deep.equal(
      [
        '',
        'tsserve: bad.mp3: no decoder knows it',
        'tsserve: none.mp3: there is no such file',
        `tsserve: ${folder.split('/').at(-1)!}: it is a folder`,
      ].sort(),
    );
    expect(engine.loads).to.have.length(1);
  });

  it('loads nothing if there is nothing to transcribe', async () => {
    const { code, engine } = await run([at('none.mp3')]);
    expect([code, engine.loads]).to.deep.equal([1, []]);
  });

  it('reads standard input', async () => {
    const { code, stdout, engine } = await run(['-'], { stdin: [new Uint8Array([1]), new Uint8Array([2, 3])] });
    expect([code, stdout]).to.deep.equal([0, 'Hello there.\nBye!\n']);
    expect(engine.transcriptions[0]?.audio).to.deep.equal({ bytes: Buffer.from([1, 2, 3]) });
    const empty = await run(['-']);
    expect([empty.code, empty.stderr]).to.deep.equal([1, 'tsserve: standard input: it is empty\n']);
  });

  it('writes every format', async () => {
    const formats = { json: /^\{\n {2}"text": "Hello there\. Bye!",/, srt: /^1\n00:00:00,000 -->/, vtt: /^WEBVTT\n/ };
    for (const [format, text] of Object.entries(formats)) {
      const { stdout } = await run([at('a.mp3')], { flags: { format: format as 'json' } });
      expect(stdout).to.match(text);
    }
    const { stdout } = await run([at('a.mp3')], { flags: { format: 'verbose_json', wordTimestamps: true } });
    expect(JSON.parse(stdout)).to.include({ task: 'transcribe', language: 'english' }).and.have.property('words');
  });

  it('writes files, each as a whole', async () => {
    const out = at('out/deep');
    const { code, stdout } = await run([at('a.mp3'), at('b.wav'), '-'], {
      flags: { outputDir: out, format: 'srt' },
      stdin: [new Uint8Array([1])],
    });
    expect([code, stdout]).to.deep.equal([0, '']);
    expect((await readdir(out)).sort()).to.deep.equal(['a.srt', 'b.srt', 'stdin.srt']);
    expect(await readFile(join(out, 'a.srt'), 'utf8')).to.match(/^1\n00:00:00,000 -->/);
    await run([at('a.mp3')], { flags: { output: at('x.txt') } });
    expect(await readFile(at('x.txt'), 'utf8')).to.equal('Hello there.\nBye!\n');
    expect((await run([at('a.mp3')], { flags: { output: '-' } })).stdout).to.equal('Hello there.\nBye!\n');
  });

  it('does not write one transcript over another', async () => {
    await writeFile(at('a.wav'), 'x');
    const { code, stderr } = await run([at('a.mp3'), at('a.wav')], { flags: { outputDir: at('out') } });
    expect(code).to.equal(1);
    expect(stderr).to.equal(
      `tsserve: a.wav: its transcript would overwrite that of ${at('a.mp3')}: ${at('out/a.txt')}\n`,
    );
    const taken = await run([at('a.mp3')], { flags: { outputDir: at('b.wav') } });
    expect(taken.stderr).to.match(/^tsserve: a\.mp3: .*b\.wav\/a\.txt cannot be written \(E[A-Z]+\)\n$/);
  });

  it('leaves nothing where it was stopped, and says so by its code', async () => {
    const stop = new AbortController();
    const { code, stderr, engine } = await run([at('a.mp3'), at('b.wav')], {
      flags: { outputDir: at('out') },
      signal: stop.signal,
      engine: {
        speech: async function* () {
          yield [heard, english, said(0, ' One.')];
          stop.abort();
          yield [transcribed];
        },
      },
    });
    expect([code, stderr, engine.cancelled, engine.transcriptions.length]).to.deep.equal([130, '', 1, 1]);
    expect(await readdir(folder)).not.to.include('out');
    const early = new AbortController();
    early.abort();
    expect((await run([at('a.mp3')], { signal: early.signal })).code).to.equal(130);
  });

  it('shows at a terminal how far it is, how fast, and how long it takes', async () => {
    const { stderr } = await run([at('a.mp3')], { isTTY: true });
    const bar = /a\.mp3 █{12}░{12} 50 % {2}(\d+\.\d)× {2}ETA 0:0\d/;
    expect(stderr).to.match(bar);
    // The bar is taken off the line before anything else is written there.
    expect(stderr.replaceAll('\u001b', '^')).to.match(
      /\r\^\[2Ka\.mp3: 0:04 of english in \d\.\d s, \d\.\d× real time\n$/,
    );
  });

  it('needs a speech model, and says what a load fails of', async () => {
    const error = await rejection(run([at('a.mp3')], { engine: { model: {} } }), EngineError);
    expect(error.message).to.include('is a language model');
    const onLoad = (): never => {
      throw new EngineError('model_not_found', "'x' is not there");
    };
    expect((await rejection(run([at('a.mp3')], { engine: { onLoad } }), EngineError)).message).to.equal(
      "'x' is not there",
    );
  });

  it('refuses flags that do not go together', () => {
    const cases: readonly (readonly [readonly string[], Partial<TranscribeFlags>, RegExp])[] = [
      [['a', 'b'], { output: 'x' }, /--output takes one FILE/],
      [['a'], { output: 'x', outputDir: 'y' }, /exclude each other/],
      [['a'], { wordTimestamps: true }, /--word-timestamps needs --format verbose_json, not text/],
      [['a', 'b'], { format: 'srt' }, /several srt files need --output-dir/],
      [['a', 'b', 'a'], {}, /a is named twice/],
    ];
    for (const [files, flags, message] of cases) {
      expect(() => toJob(files, { ...FLAGS, ...flags }), String(message)).to.throw(CliFailure, message);
    }
  });

  it('is a command, with one sentence for what is wrong', async () => {
    const help = await runCli(['transcribe', '--help']);
    expect(help.code).to.equal(0);
    for (const flag of ['--model', '--language', '--task', '--format', '--output-dir', '--batched', '--device']) {
      expect(help.stdout).to.include(flag);
    }
    const cases: readonly (readonly [readonly string[], number, RegExp])[] = [
      [['transcribe'], 2, /^tsserve: missing required argument 'files'\n$/],
      [
        ['transcribe', 'a', '--format', 'xml'],
        2,
        /^tsserve: .*Allowed choices are json, text, srt, verbose_json, vtt\.\n$/,
      ],
      [['transcribe', 'a', '--temperature', '2'], 2, /^tsserve: .*It must be a number from 0 to 1\.\n$/],
      [['transcribe', 'a', '--word-timestamps'], 2, /^tsserve: --word-timestamps needs .*\n$/],
      [['transcribe', at('none.mp3')], 1, /^tsserve: none\.mp3: there is no such file\n$/],
    ];
    for (const [args, code, message] of cases) {
      const result = await runCli(args);
      expect(result.stderr, args.join(' ')).to.match(message);
      expect([result.code, result.stdout], args.join(' ')).to.deep.equal([code, '']);
    }
  }).timeout(60_000);
});

describe('tsserve serve, with a speech model', () => {
  const facts = { id: 'openai/whisper-base', kind: 'speech', family: 'whisper', parameters: 72_593_920 } as const;

  it('describes it without what it does not have', () => {
    const model = scriptedModel({ ...facts, vocabSize: 51_865, languages: ['en', 'de'], weightBytes: 290_403_936 });
    expect(describeModel(model)).to.equal(
      `loaded openai/whisper-base in 0.1 s
  architecture  whisper, 72.6 M parameters, vocabulary 51865
  weights       f32 (safetensors), 290 MB
  speech        2 languages
  device        cpu, scalar, f32, 1 thread`,
    );
    expect(describeModel(scriptedModel({ ...facts, languages: [] }))).to.include('\n  speech        English only\n');
  });

  it('gives a line to try', () => {
    expect(transcribeLine('http://h:1', "it's", true)).to.equal(
      `curl http://h:1/v1/audio/transcriptions -H "authorization: Bearer $TSSERVE_API_KEY" ` +
        `-F file=@recording.mp3 -F 'model=it'\\''s'`,
    );
    expect(curlLine('http://h:1', 'x', true, false)).to.include('/v1/chat/completions');
  });
});
