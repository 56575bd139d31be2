/** `POST /v1/audio/transcriptions` and `/v1/audio/translations`: what comes in, as fields of a form, and what goes out. */

import { invalidType, invalidValue, unsupportedValue } from './errors.js';
import { array, Fields, fieldsOf, type JsonObject, nonEmptyString, oneOf, type Parse } from './fields.js';
import { checkFields, extras, type FieldTable, type ParseOptions } from './field-table.js';
import { formBoolean, formInteger, formNumber, type FormShape } from './form.js';
import { defined, parseModel } from './sampling.js';

/** The form's part with the recording. */
export interface UploadedFile {
  /** Undefined: the part came as text. */
  readonly name: string | undefined;
  /** Bytes. */
  readonly size: number;
}

/** Our own bounds. */
export const MAX_BEAMS = 16;
export const MAX_BEST_OF = 16;
/** A minute. */
const MAX_VAD_MS = 60_000;

export const TRANSCRIPT_FORMATS = ['json', 'text', 'srt', 'verbose_json', 'vtt'] as const;
export type TranscriptFormat = (typeof TRANSCRIPT_FORMATS)[number];

/** What is asked of the model; unset fields are its defaults. */
export interface SpeechFields {
  readonly task: 'transcribe' | 'translate';
  readonly language?: string;
  readonly prompt?: string;
  readonly carryPrompt?: boolean;
  /** 0..1 */
  readonly temperature?: number;
  readonly beamSize?: number;
  readonly bestOf?: number;
  readonly wordTimestamps?: boolean;
  readonly conditionOnPreviousText?: boolean;
  /** Seconds. */
  readonly hallucinationSilenceThreshold?: number;
  readonly chunking?: {
    readonly type: 'batched';
    readonly threshold?: number;
    readonly prefixPaddingMs?: number;
    readonly silenceDurationMs?: number;
  };
  readonly skipSilence?: boolean;
  readonly logprobs?: boolean;
  readonly seed?: number;
}

/** A request that exists is valid. */
export interface TranscriptionRequest {
  /** Undefined: the one model that is served. */
  readonly model: string | undefined;
  readonly format: TranscriptFormat;
  /** Only with json and text. */
  readonly stream: boolean;
  /** What a verbose_json holds. */
  readonly granularities: { readonly segments: boolean; readonly words: boolean };
  readonly speech: SpeechFields;
}

/** What other servers of Whisper take too. */
const SPEECH_EXTRAS = extras({
  beam_size: { status: 'honoured', note: `1..${MAX_BEAMS}, at temperature 0; 1 (greedy) if absent` },
  best_of: { status: 'honoured', note: `1..${MAX_BEST_OF}, above temperature 0; 5 if absent` },
  carry_initial_prompt: { status: 'honoured', note: 'the prompt goes before every window of 30 s, not only the first' },
  condition_on_previous_text: { status: 'honoured', note: 'true if absent; the text before is context' },
  hallucination_silence_threshold: { status: 'honoured', note: 'seconds; longer silences around doubtful text go' },
  seed: { status: 'honoured', note: 'of draws above temperature 0' },
  vad_filter: { status: 'honoured', note: 'what nobody speaks in is left out' },
});

const SHARED_FIELDS = {
  file: { status: 'honoured', note: 'the recording, as a file with a name; its format is known by its content' },
  model: { status: 'honoured', note: 'may be left out where one model is served' },
  prompt: { status: 'honoured', note: 'text that is thought to come before; its last 223 tokens count' },
  temperature: { status: 'honoured', note: '0..1; at 0 doubtful answers are tried again at up to 1' },
  ...SPEECH_EXTRAS,
} as const satisfies FieldTable;

const FORMAT_NOTE = 'json, text, srt, verbose_json, vtt';
const STREAM_NOTE = 'with json and text; the other formats come whole';

/** What becomes of each field of a transcription. */
export const TRANSCRIPTION_FIELDS = {
  ...SHARED_FIELDS,
  response_format: {
    status: 'honoured',
    note: `${FORMAT_NOTE}; diarized_json is refused: speakers are not told apart`,
  },
  stream: { status: 'honoured', note: STREAM_NOTE },
  language: { status: 'honoured', note: 'a code (en) or an English name (english); found out if absent' },
  languages: { status: 'honoured', note: 'one: as language; of several the model finds out which' },
  keywords: { status: 'honoured', note: 'go before the prompt, for every window' },
  include: { status: 'honoured', note: 'logprobs, with json' },
  timestamp_granularities: { status: 'honoured', note: 'segment (if absent), word; with verbose_json' },
  chunking_strategy: {
    status: 'honoured',
    note: 'auto or server_vad: cut at silence, several pieces at once, without the text before as context',
  },
  known_speaker_names: { status: 'refused', note: 'speakers are not told apart' },
  known_speaker_references: { status: 'refused', note: 'speakers are not told apart' },
} as const satisfies FieldTable;

/** What becomes of each field of a translation. */
export const TRANSLATION_FIELDS = {
  ...SHARED_FIELDS,
  response_format: { status: 'honoured', note: FORMAT_NOTE },
  ...extras({
    language: { status: 'honoured', note: 'of the recording; found out if absent' },
    stream: { status: 'honoured', note: `as for transcriptions: ${STREAM_NOTE}` },
  }),
} as const satisfies FieldTable;

/** How the fields of both are written in a form. */
export const SPEECH_FORM: FormShape = {
  words: ['languages', 'include', 'timestamp_granularities'],
  texts: ['keywords', 'known_speaker_names', 'known_speaker_references'],
  objects: ['chunking_strategy'],
};

/** @param form the form's fields, as `formObject` makes them, with the file among them */
export function parseTranscriptionRequest(form: JsonObject, options: ParseOptions): TranscriptionRequest {
  const fields = new Fields(form, '');
  checkFields(fields, TRANSCRIPTION_FIELDS, options);
  fields.required('file', parseFile);
  const format = fields.optional('response_format', parseFormat) ?? 'json';
  const granularities = fields.optional('timestamp_granularities', array(oneOf('word', 'segment'), 1, 16));
  if (granularities !== undefined && format !== 'verbose_json') {
    throw invalidValue('timestamp_granularities', `needs response_format 'verbose_json', got '${format}'`);
  }
  const logprobs = (fields.optional('include', array(oneOf('logprobs'), 0, 16)) ?? []).length > 0;
  if (logprobs && format !== 'json') {
    throw invalidValue('include', `logprobs need response_format 'json', got '${format}'`);
  }
  const words = granularities?.includes('word') ?? false;
  const languages = fields.optional('languages', array(parseLanguage, 1, 100)) ?? [];
  const language = fields.optional('language', parseLanguage) ?? (languages.length === 1 ? languages[0] : undefined);
  const chunking = fields.optional('chunking_strategy', parseChunking);
  const speech = parseSpeech(fields, fields.optional('keywords', array(nonEmptyString, 0, 1000)));
  return {
    ...parseHead(fields, format, options),
    granularities: { segments: granularities?.includes('segment') ?? true, words },
    speech: {
      task: 'transcribe',
      ...speech,
      ...(language === undefined ? {} : { language }),
      ...(chunking === undefined ? {} : { chunking }),
      ...(words ? { wordTimestamps: true } : {}),
      ...(logprobs ? { logprobs } : {}),
    },
  };
}

export function parseTranslationRequest(form: JsonObject, options: ParseOptions): TranscriptionRequest {
  const fields = new Fields(form, '');
  checkFields(fields, TRANSLATION_FIELDS, options);
  fields.required('file', parseFile);
  const format = fields.optional('response_format', oneOf(...TRANSCRIPT_FORMATS)) ?? 'json';
  const language = fields.optional('language', parseLanguage);
  return {
    ...parseHead(fields, format, options),
    granularities: { segments: true, words: false },
    speech: { task: 'translate', ...parseSpeech(fields), ...(language === undefined ? {} : { language }) },
  };
}

function parseHead(
  fields: Fields,
  format: TranscriptFormat,
  options: ParseOptions,
): Pick<TranscriptionRequest, 'model' | 'format' | 'stream'> {
  const asked = fields.optional('stream', formBoolean) ?? false;
  const stream = asked && (format === 'json' || format === 'text');
  // As at OpenAI, whose one model with these formats does not stream.
  if (asked && !stream) options.warn(`stream with ${format}`);
  return { model: parseModel(fields), format, stream };
}

function parseSpeech(fields: Fields, keywords: readonly string[] = []): Omit<SpeechFields, 'task'> {
  const prompt = fields.optional('prompt', nonEmptyString);
  // As a glossary, which is how Whisper is told names.
  const glossary = keywords.length === 0 ? undefined : `${keywords.join(', ')}.`;
  const before = [glossary, prompt].filter((part) => part !== undefined).join(' ');
  const threshold = fields.optional('hallucination_silence_threshold', formNumber(0, 3600));
  const carryPrompt =
    fields.optional('carry_initial_prompt', formBoolean) ?? (glossary === undefined ? undefined : true);
  return defined({
    prompt: before === '' ? undefined : before,
    carryPrompt,
    temperature: fields.optional('temperature', formNumber(0, 1)),
    beamSize: fields.optional('beam_size', formInteger(1, MAX_BEAMS)),
    bestOf: fields.optional('best_of', formInteger(1, MAX_BEST_OF)),
    conditionOnPreviousText: fields.optional('condition_on_previous_text', formBoolean),
    hallucinationSilenceThreshold: threshold,
    // Silence is measured between words.
    wordTimestamps: threshold === undefined ? undefined : true,
    seed: fields.optional('seed', formInteger(0, Number.MAX_SAFE_INTEGER)),
    skipSilence: fields.optional('vad_filter', formBoolean),
  });
}

const parseFile: Parse<UploadedFile> = (value, path) => {
  if (!isUploadedFile(value)) throw invalidType(path, 'a file', value);
  const { name, size } = value;
  if (name === undefined) throw invalidValue(path, 'must be sent as a file with a name (curl: -F file=@NAME)');
  if (name === '') throw invalidValue(path, 'has no file name: no file was chosen');
  if (size === 0) throw invalidValue(path, 'must not be empty');
  return value;
};

function isUploadedFile(value: unknown): value is UploadedFile {
  return typeof value === 'object' && value !== null && 'size' in value && typeof value.size === 'number';
}

const parseFormat: Parse<TranscriptFormat> = (value, path) => {
  if (value === 'diarized_json') throw unsupportedValue(path, 'speakers are not told apart');
  return oneOf(...TRANSCRIPT_FORMATS)(value, path);
};

const parseLanguage: Parse<string> = (value, path) => {
  const text = nonEmptyString(value, path).trim();
  if (text.length > 40) throw invalidValue(path, 'must be a code like en, or an English name');
  return text;
};

const parseChunking: Parse<NonNullable<SpeechFields['chunking']>> = (value, path) => {
  if (value === 'auto') return { type: 'batched' };
  if (typeof value === 'string') throw invalidValue(path, "must be 'auto' or an object of type server_vad");
  const fields = fieldsOf(value, path);
  fields.required('type', oneOf('server_vad'));
  return {
    type: 'batched',
    ...defined({
      threshold: fields.optional('threshold', formNumber(0, 1)),
      prefixPaddingMs: fields.optional('prefix_padding_ms', formInteger(0, MAX_VAD_MS)),
      silenceDurationMs: fields.optional('silence_duration_ms', formInteger(0, MAX_VAD_MS)),
    }),
  };
};
