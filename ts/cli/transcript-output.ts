/** Where transcripts go: line by line to standard output, or whole into files. */

import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, extname, join } from 'node:path';

import type { TranscribedSegment } from '../engine/speech.js';
import type { TranscriptFormat } from '../protocol/transcriptions.js';
import { renderTranscript } from '../speech/formats.js';
import type { Transcript } from '../speech/transcript.js';
import { CliFailure, systemCode } from './failure.js';
import { printable } from './format.js';

export interface OutputOptions {
  readonly format: TranscriptFormat;
  readonly task: 'transcribe' | 'translate';
  readonly words: boolean;
  /** One file for the one transcript. */
  readonly file?: string;
  /** A file in it for each transcript. */
  readonly folder?: string;
}

/** How standard input is named, and what its transcript's file is called. */
export const STDIN = '-';
const STDIN_NAME = 'stdin';

const EXTENSIONS: Readonly<Record<TranscriptFormat, string>> = {
  text: 'txt',
  srt: 'srt',
  vtt: 'vtt',
  json: 'json',
  verbose_json: 'json',
};

export class TranscriptOutput {
  /** Files that were written, with what they are the transcript of. */
  readonly #written = new Map<string, string>();
  readonly #options: OutputOptions;
  readonly #write: (text: string) => void;
  /** Several transcripts on standard output have their names before them. */
  readonly #isHeaded: boolean;

  constructor(options: OutputOptions, files: number, write: (text: string) => void) {
    this.#options = options;
    this.#write = write;
    this.#isHeaded = files > 1 && options.format === 'text' && !this.#isToFiles;
  }

  /** @throws CliFailure if the transcript would take the place of another one */
  begin(source: string): void {
    const path = this.#pathFor(source);
    const other = path === undefined ? undefined : this.#written.get(path);
    if (other !== undefined) throw new CliFailure(`its transcript would overwrite that of ${other}: ${path ?? ''}`);
    if (this.#isHeaded) this.#write(`==> ${printable(source)} <==\n`);
  }

  segment({ text }: TranscribedSegment): void {
    const line = lineOf(text);
    if (line !== '' && this.#options.format === 'text' && !this.#isToFiles) this.#write(line);
  }

  /** @throws CliFailure */
  async end(source: string, transcript: Transcript): Promise<void> {
    const path = this.#pathFor(source);
    if (path === undefined) {
      if (this.#options.format !== 'text') this.#write(this.#render(transcript));
      return;
    }
    await writeWhole(path, this.#render(transcript));
    this.#written.set(path, source);
  }

  #render(transcript: Transcript): string {
    const { format, task, words } = this.#options;
    if (format === 'text') return transcript.segments.map(({ text }) => lineOf(text)).join('');
    const granularities = { segments: true, words };
    const rendered = renderTranscript(transcript, { format, task, granularities, logprobs: false });
    return typeof rendered === 'string' ? rendered : `${JSON.stringify(rendered, undefined, 2)}\n`;
  }

  #pathFor(source: string): string | undefined {
    const { file, folder, format } = this.#options;
    if (folder === undefined) return file;
    const name = source === STDIN ? STDIN_NAME : basename(source);
    return join(folder, `${basename(name, extname(name))}.${EXTENSIONS[format]}`);
  }

  get #isToFiles(): boolean {
    return this.#options.file !== undefined || this.#options.folder !== undefined;
  }
}

/** A segment on a line of its own; nothing if it says nothing. */
function lineOf(text: string): string {
  const line = printable(text).replace(/\s+/g, ' ').trim();
  return line === '' ? '' : `${line}\n`;
}

/** A file is there as a whole or not at all. */
async function writeWhole(path: string, text: string): Promise<void> {
  const draft = `${path}.${process.pid}.part`;
  try {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(draft, text);
    await rename(draft, path);
  } catch (error) {
    await rm(draft, { force: true }).catch(() => undefined);
    throw new CliFailure(`${path} cannot be written (${systemCode(error) ?? String(error)})`, 1, { cause: error });
  }
}
