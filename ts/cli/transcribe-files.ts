/** Transcribes files one after the other: text as it comes, progress at a terminal, one line for what fails. */

import { access, constants, stat } from 'node:fs/promises';
import { basename } from 'node:path';

import { requireKind } from '../app/model-kind.js';
import type { AudioInput, TranscriptionRequest } from '../engine/speech.js';
import { type Engine, EngineError, type LoadedModel, type LoadOptions } from '../engine/types.js';
import { type Transcript, TranscriptFold } from '../speech/transcript.js';
import { CliFailure, sentenceOf, systemCode } from './failure.js';
import { formatDuration, printable } from './format.js';
import { ProgressLine, type ProgressOutput } from './progress.js';
import { type OutputOptions, STDIN, TranscriptOutput } from './transcript-output.js';

export interface TranscribeJob {
  /** Paths, or `-` for standard input. */
  readonly files: readonly string[];
  readonly load: LoadOptions;
  readonly speech: Omit<TranscriptionRequest, 'model' | 'audio'>;
  readonly output: OutputOptions;
}

export interface TranscribeIo {
  readonly stdin: AsyncIterable<Uint8Array | string>;
  readonly stdout: { write(text: string): unknown };
  readonly stderr: ProgressOutput;
  /** Milliseconds of a steady clock. */
  readonly now?: () => number;
}

/** Bytes of standard input, which stays in memory. */
const MAX_STDIN_BYTES = 1024 ** 3;

/** Exit code of a program that was told to stop with Ctrl-C. */
export const INTERRUPTED = 130;

/** @returns the exit code: 0, 1 if a file could not be transcribed, 130 if the signal aborted */
export async function transcribeFiles(
  engine: Engine,
  job: TranscribeJob,
  io: TranscribeIo,
  signal: AbortSignal,
): Promise<number> {
  const line = new ProgressLine(io.stderr, io.now);
  const output = new TranscriptOutput(job.output, job.files.length, (text) => {
    // Both may be one terminal.
    line.end();
    io.stdout.write(text);
  });
  let failed = 0;
  const fail = (file: string, error: unknown): void => {
    line.end();
    failed += 1;
    io.stderr.write(`tsserve: ${nameOf(file)}: ${sentenceOf(error)}\n`);
  };
  try {
    // A slip in a name is said before minutes are spent on a download.
    const files: string[] = [];
    for (const file of job.files) {
      const problem = await problemOf(file);
      if (problem === undefined) files.push(file);
      else fail(file, problem);
    }
    if (files.length === 0) return 1;
    const model = await load(engine, job.load, line, signal);
    for (const file of files) {
      if (signal.aborted) return INTERRUPTED;
      await transcribeFile({ engine, model, job, io, line, output, signal }, file).catch((error: unknown) => {
        if (!signal.aborted) fail(file, error);
      });
    }
    return signal.aborted ? INTERRUPTED : failed > 0 ? 1 : 0;
  } catch (error) {
    if (signal.aborted) return INTERRUPTED;
    throw error;
  } finally {
    line.end();
  }
}

async function load(
  engine: Engine,
  options: LoadOptions,
  line: ProgressLine,
  signal: AbortSignal,
): Promise<LoadedModel> {
  const model = await engine
    .load(options, (progress) => line.update(progress), signal)
    .finally(() => {
      line.end();
    });
  requireKind(model, 'speech');
  return model;
}

interface Work {
  readonly engine: Engine;
  readonly model: LoadedModel;
  readonly job: TranscribeJob;
  readonly io: TranscribeIo;
  readonly line: ProgressLine;
  readonly output: TranscriptOutput;
  readonly signal: AbortSignal;
}

async function transcribeFile(work: Work, file: string): Promise<void> {
  const { engine, model, job, io, line, output, signal } = work;
  const now = io.now ?? (() => performance.now());
  output.begin(file);
  const audio = file === STDIN ? await readAll(io.stdin) : { path: file };
  const fold = new TranscriptFold();
  const started = now();
  let duration = 0;
  for await (const event of engine.transcribe({ ...job.speech, model: model.handle, audio }, signal)) {
    fold.push(event);
    if (event.type === 'started') duration = event.duration;
    if (event.type === 'segment') output.segment(event.segment);
    if (event.type === 'started' || event.type === 'progress') {
      const done = event.type === 'started' ? 0 : event.seconds;
      showProgress(work, file, { done, duration, elapsed: (now() - started) / 1000 });
    }
  }
  line.end();
  const { transcript } = fold;
  await output.end(file, transcript);
  if (io.stderr.isTTY === true) io.stderr.write(`${summary(file, transcript, (now() - started) / 1000)}\n`);
}

interface Progress {
  /** Seconds of the recording. */
  readonly done: number;
  readonly duration: number;
  /** Seconds of work. */
  readonly elapsed: number;
}

function showProgress({ io, line }: Work, file: string, { done, duration, elapsed }: Progress): void {
  if (io.stderr.isTTY !== true) return;
  const share = duration > 0 ? Math.min(1, done / duration) : 0;
  const speed = elapsed > 0 ? done / elapsed : 0;
  const note = speed > 0 ? `  ${speed.toFixed(1)}×  ETA ${formatDuration((duration - done) / speed)}` : '';
  line.show(nameOf(file), share, note);
}

/** "talk.mp3: 1:02 of english in 4.1 s, 15.1× real time" */
function summary(file: string, { duration, language }: Transcript, elapsed: number): string {
  const speed = elapsed > 0 ? `, ${(duration / elapsed).toFixed(1)}× real time` : '';
  const spoken = language === undefined ? '' : ` of ${language.name}`;
  return `${nameOf(file)}: ${formatDuration(duration)}${spoken} in ${elapsed.toFixed(1)} s${speed}`;
}

function nameOf(file: string): string {
  return file === STDIN ? 'standard input' : printable(basename(file));
}

/** What is wrong with a file before anyone listens to it. */
async function problemOf(file: string): Promise<CliFailure | undefined> {
  if (file === STDIN) return undefined;
  try {
    if ((await stat(file)).isDirectory()) return new CliFailure('it is a folder');
    await access(file, constants.R_OK);
    return undefined;
  } catch (error) {
    const code = systemCode(error);
    if (code === 'ENOENT') return new CliFailure('there is no such file');
    return new CliFailure(`it cannot be read (${code ?? String(error)})`);
  }
}

async function readAll(stdin: TranscribeIo['stdin']): Promise<AudioInput> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of stdin) {
    const bytes = Buffer.from(chunk as Uint8Array);
    size += bytes.length;
    if (size > MAX_STDIN_BYTES) throw new EngineError('invalid_audio', 'it is larger than 1 GiB: give it as a file');
    chunks.push(bytes);
  }
  if (size === 0) throw new EngineError('invalid_audio', 'it is empty');
  return { bytes: Buffer.concat(chunks) };
}
