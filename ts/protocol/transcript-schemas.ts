/** JSON schemas of the audio endpoints for the API's description: fields of their forms, and what is answered. */

import { TRANSCRIPT_EVENT_TYPES } from './transcripts.js';
import { MAX_BEAMS, MAX_BEST_OF, TRANSCRIPT_FORMATS } from './transcriptions.js';

type JsonSchema = Readonly<Record<string, unknown>>;

const string = { type: 'string' } as const;
const boolean = { type: 'boolean' } as const;
const number = { type: 'number' } as const;
const seconds = { type: 'number', minimum: 0 } as const;
const count = { type: 'integer', minimum: 0 } as const;
const array = (items: JsonSchema): JsonSchema => ({ type: 'array', items });
const object = (properties: Readonly<Record<string, JsonSchema>>, optional: readonly string[] = []): JsonSchema => ({
  type: 'object',
  required: Object.keys(properties).filter((name) => !optional.includes(name)),
  properties,
});

const speech: Readonly<Record<string, JsonSchema>> = {
  file: { type: 'string', format: 'binary' },
  temperature: { type: 'number', minimum: 0, maximum: 1 },
  prompt: string,
  response_format: { enum: [...TRANSCRIPT_FORMATS] },
  language: string,
  beam_size: { type: 'integer', minimum: 1, maximum: MAX_BEAMS },
  best_of: { type: 'integer', minimum: 1, maximum: MAX_BEST_OF },
  carry_initial_prompt: boolean,
  condition_on_previous_text: boolean,
  hallucination_silence_threshold: seconds,
  vad_filter: boolean,
};

/** By the endpoint's path. */
export const TRANSCRIPT_FIELD_SCHEMAS: Readonly<Record<string, Readonly<Record<string, JsonSchema>>>> = {
  '/v1/audio/transcriptions': {
    ...speech,
    languages: array(string),
    keywords: array(string),
    include: array({ enum: ['logprobs'] }),
    timestamp_granularities: array({ enum: ['word', 'segment'] }),
    chunking_strategy: {
      anyOf: [
        { const: 'auto' },
        {
          type: 'object',
          required: ['type'],
          properties: {
            type: { const: 'server_vad' },
            threshold: { type: 'number', minimum: 0, maximum: 1 },
            prefix_padding_ms: count,
            silence_duration_ms: count,
          },
        },
      ],
    },
  },
  '/v1/audio/translations': speech,
};

const logprobs = array(object({ token: string, logprob: number, bytes: array(count) }));
const languages = array(object({ code: string }));
const words = array(object({ word: string, start: seconds, end: seconds }));
const segments = array(
  object({
    id: count,
    seek: count,
    start: seconds,
    end: seconds,
    text: string,
    tokens: array(count),
    temperature: number,
    avg_logprob: number,
    compression_ratio: number,
    no_speech_prob: number,
  }),
);
const duration = object({ type: { const: 'duration' }, seconds });
const tokens = object({
  type: { const: 'tokens' },
  input_tokens: count,
  input_token_details: object({ text_tokens: count, audio_tokens: count }),
  output_tokens: count,
  total_tokens: count,
});

/** Named parts of answers. */
export const TRANSCRIPT_ANSWER_SCHEMAS = {
  /** The formats json and verbose_json, of a transcription or a translation. */
  Transcript: {
    type: 'object',
    required: ['text'],
    properties: {
      text: string,
      languages,
      logprobs,
      task: { enum: ['transcribe', 'translate'] },
      language: string,
      duration: seconds,
      words,
      segments,
      usage: duration,
    },
  },
  TranscriptEvent: {
    type: 'object',
    required: ['type'],
    properties: {
      type: { enum: [...TRANSCRIPT_EVENT_TYPES] },
      delta: string,
      text: string,
      languages,
      logprobs,
      usage: tokens,
    },
  },
} as const satisfies Readonly<Record<string, JsonSchema>>;
