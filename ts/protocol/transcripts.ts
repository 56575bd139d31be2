/** What `/v1/audio/transcriptions` and `/v1/audio/translations` answer. Times in seconds. */

export interface WireLogprob {
  readonly token: string;
  /** Natural logarithm. */
  readonly logprob: number;
  readonly bytes: readonly number[];
}

export interface WireDurationUsage {
  readonly type: 'duration';
  readonly seconds: number;
}

export interface WireTokenUsage {
  readonly type: 'tokens';
  readonly input_tokens: number;
  readonly input_token_details: { readonly text_tokens: number; readonly audio_tokens: number };
  readonly output_tokens: number;
  readonly total_tokens: number;
}

/** `response_format` json of a transcription. */
export interface WireTranscription {
  readonly text: string;
  /** The one that was said or found out. */
  readonly languages: readonly { readonly code: string }[];
  readonly logprobs?: readonly WireLogprob[];
  readonly usage: WireDurationUsage;
}

/** The same of a translation. */
export interface WireTranslation {
  readonly text: string;
}

export interface WireSegment {
  readonly id: number;
  /** Frame of 10 ms at which the window began that this comes from. */
  readonly seek: number;
  readonly start: number;
  readonly end: number;
  /** With the space before it. */
  readonly text: string;
  readonly tokens: readonly number[];
  readonly temperature: number;
  readonly avg_logprob: number;
  readonly compression_ratio: number;
  readonly no_speech_prob: number;
}

export interface WireWord {
  readonly word: string;
  readonly start: number;
  readonly end: number;
}

export interface WireVerboseTranscript {
  readonly task: 'transcribe' | 'translate';
  /** English name of the text's language: a translation is english. */
  readonly language: string;
  readonly duration: number;
  readonly text: string;
  readonly words?: readonly WireWord[];
  readonly segments?: readonly WireSegment[];
  /** Of a transcription only. */
  readonly usage?: WireDurationUsage;
}

export type WireTranscript = WireTranscription | WireTranslation | WireVerboseTranscript;

/** Events of a stream: a delta for each segment, then the end. */
export type WireTranscriptEvent =
  | { readonly type: 'transcript.text.delta'; readonly delta: string; readonly logprobs?: readonly WireLogprob[] }
  | {
      readonly type: 'transcript.text.done';
      /** All deltas together. */
      readonly text: string;
      readonly languages?: readonly { readonly code: string }[];
      readonly logprobs?: readonly WireLogprob[];
      readonly usage: WireTokenUsage;
    };

export const TRANSCRIPT_EVENT_TYPES = [
  'transcript.text.delta',
  'transcript.text.done',
] as const satisfies readonly WireTranscriptEvent['type'][];
