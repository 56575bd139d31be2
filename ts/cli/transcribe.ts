/** `tsserve transcribe FILE…`: what is said in recordings, without a server. */

import { Option, type Command } from 'commander';

import type { TranscriptionRequest } from '../engine/speech.js';
import { createNativeEngine } from '../engine/native.js';
import { QUANTIZATIONS, type Device, type Dtype, type Quantization } from '../engine/types.js';
import { MAX_BEAMS, MAX_BEST_OF, TRANSCRIPT_FORMATS, type TranscriptFormat } from '../protocol/transcriptions.js';
import { CliFailure, systemCode } from './failure.js';
import { INTERRUPTED, type TranscribeJob, transcribeFiles } from './transcribe-files.js';
import { decimal, wholeNumber } from './values.js';

export interface TranscribeFlags {
  readonly model: string;
  readonly language?: string;
  readonly task: 'transcribe' | 'translate';
  readonly format: TranscriptFormat;
  readonly output?: string;
  readonly outputDir?: string;
  readonly wordTimestamps?: boolean;
  readonly batched?: boolean;
  readonly beamSize?: number;
  readonly bestOf?: number;
  readonly temperature?: number;
  readonly prompt?: string;
  readonly seed?: number;
  readonly skipSilence?: boolean;
  readonly hallucinationSilence?: number;
  /** `--no-context` makes it false. */
  readonly context: boolean;
  readonly device: Device;
  readonly dtype: Dtype;
  readonly quantization?: Quantization;
  readonly threads?: number;
  readonly download: boolean;
}

/** A file name that means standard output. */
const STDOUT = '-';

/** Small enough for a laptop, hears a hundred languages, translates. */
export const DEFAULT_SPEECH_MODEL = 'openai/whisper-base';

export function addTranscribeCommand(program: Command): void {
  program
    .command('transcribe')
    .summary('write down what is said in recordings')
    .description(
      'Writes down what is said in each FILE (- is standard input): text on standard output as it comes, or files.\n' +
        'Ctrl-C stops. Exit code 1 if a file could not be transcribed; the others are.',
    )
    .argument('<files...>', 'recordings: flac, mp3, mp4, m4a, ogg, wav, webm and more')
    .option('-m, --model <model>', 'speech model: a folder, a ggml file, repo or repo:FILE', DEFAULT_SPEECH_MODEL)
    .option('--language <name>', 'what is spoken, like en or english (default: found out)')
    .addOption(
      new Option('--task <task>', 'translate: into English').choices(['transcribe', 'translate']).default('transcribe'),
    )
    .optionsGroup('Output:')
    .addOption(new Option('-f, --format <format>', 'of the transcript').choices(TRANSCRIPT_FORMATS).default('text'))
    .option('-o, --output <file>', 'write the transcript of the one FILE here')
    .option('--output-dir <folder>', 'write the transcript of each FILE into a file of its name here')
    .option('--word-timestamps', 'say when each word begins and ends, in verbose_json')
    .optionsGroup('Listening:')
    .option('--batched', 'cut at silence and decode several pieces at once: faster, without the text before as context')
    .option('--skip-silence', 'leave out what nobody speaks in')
    .option('--hallucination-silence <seconds>', 'skip longer silences around doubtful text', decimal(0, 3600))
    .option('--no-context', 'do not use the text before as context')
    .option('--prompt <text>', 'text that is thought to come before: names, spelling, style')
    .option('--beam-size <n>', 'answers followed at once at temperature 0 (default: 1)', wholeNumber(1, MAX_BEAMS))
    .option('--best-of <n>', 'answers drawn above temperature 0 (default: 5)', wholeNumber(1, MAX_BEST_OF))
    .option('--temperature <number>', '0 to 1 (default: 0, and higher where an answer is doubtful)', decimal(0, 1))
    .option('--seed <n>', 'repeatable randomness above temperature 0', wholeNumber(0))
    .optionsGroup('Model:')
    .addOption(
      new Option('--device <name>', 'where to compute').choices(['auto', 'cpu', 'cuda', 'metal']).default('auto'),
    )
    .addOption(
      new Option('--dtype <name>', 'number format to compute in')
        .choices(['auto', 'f32', 'f16', 'bf16'])
        .default('auto'),
    )
    .addOption(
      new Option('--quantization <name>', 'quantise unquantised weights at load, on the CPU').choices(QUANTIZATIONS),
    )
    .option('--threads <n>', 'compute threads (default: the cores this process may use)', wholeNumber(1, 1024))
    .option('--no-download', 'never fetch from the hub')
    .action(async (files: readonly string[], flags: TranscribeFlags) => {
      process.exitCode = await run(toJob(files, flags));
    });
}

/** @throws CliFailure, exit code 2, for flags that do not go together */
export function toJob(files: readonly string[], flags: TranscribeFlags): TranscribeJob {
  const { format, output, outputDir, task, device, dtype, quantization, threads } = flags;
  const words = flags.wordTimestamps ?? false;
  const [twice] = files.filter((file, index) => files.indexOf(file) !== index);
  if (twice !== undefined) throw new CliFailure(`${twice} is named twice`, 2);
  if (output !== undefined && outputDir !== undefined) {
    throw new CliFailure('--output and --output-dir exclude each other', 2);
  }
  if (output !== undefined && files.length > 1) {
    throw new CliFailure('--output takes one FILE: use --output-dir for several', 2);
  }
  if (words && format !== 'verbose_json') {
    throw new CliFailure(`--word-timestamps needs --format verbose_json, not ${format}`, 2);
  }
  if (files.length > 1 && outputDir === undefined && (format === 'srt' || format === 'vtt')) {
    throw new CliFailure(`several ${format} files need --output-dir`, 2);
  }
  return {
    files,
    load: {
      model: flags.model,
      device,
      dtype,
      ...(quantization === undefined ? {} : { quantization }),
      ...(threads === undefined ? {} : { threads }),
      noDownload: !flags.download,
    },
    speech: toSpeech(flags),
    output: {
      format,
      task,
      words,
      ...(output === undefined || output === STDOUT ? {} : { file: output }),
      ...(outputDir === undefined ? {} : { folder: outputDir }),
    },
  };
}

function toSpeech(flags: TranscribeFlags): Omit<TranscriptionRequest, 'model' | 'audio'> {
  const { task, language, prompt, temperature, beamSize, bestOf, seed, batched, skipSilence } = flags;
  const hallucinationSilenceThreshold = flags.hallucinationSilence;
  // Silence is measured between words.
  const wordTimestamps = flags.wordTimestamps === true || hallucinationSilenceThreshold !== undefined;
  const given = { language, prompt, temperature, beamSize, bestOf, seed, skipSilence, hallucinationSilenceThreshold };
  return {
    task,
    ...Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)),
    ...(wordTimestamps ? { wordTimestamps } : {}),
    ...(batched === true ? { chunking: { type: 'batched' } } : {}),
    ...(flags.context ? {} : { conditionOnPreviousText: false }),
  };
}

async function run(job: TranscribeJob): Promise<number> {
  const stop = new AbortController();
  const interrupt = (): void => {
    if (stop.signal.aborted) process.exit(INTERRUPTED);
    stop.abort();
  };
  // A read that waits for more would wait on.
  stop.signal.addEventListener('abort', () => process.stdin.destroy());
  process.on('SIGINT', interrupt).on('SIGTERM', interrupt);
  // Whoever reads has seen enough (`… | head`).
  process.stdout.on('error', (error) => {
    if (systemCode(error) !== 'EPIPE') throw error;
    stop.abort();
  });
  const engine = createNativeEngine();
  try {
    return await transcribeFiles(engine, job, process, stop.signal);
  } finally {
    process.off('SIGINT', interrupt).off('SIGTERM', interrupt);
    await engine.close();
  }
}
