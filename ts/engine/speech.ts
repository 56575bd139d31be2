/** Transcription as the rest of the TypeScript sees it: audio in, events out. */

/** Encoded audio of any format that is decoded here. */
export type AudioInput =
  | { readonly path: string }
  /** `name` only helps to recognise the format. */
  | { readonly bytes: Uint8Array; readonly name?: string };

/** Cut at silence, several windows at once, each on its own: faster, without the text before as context. */
export interface BatchedChunking {
  readonly type: 'batched';
  /** Windows decoded together. @default 8 */
  readonly batch?: number;
  /** Share of speech above which a frame counts, 0..1. @default 0.5 */
  readonly threshold?: number;
  /** Milliseconds kept before speech. @default 300 */
  readonly prefixPaddingMs?: number;
  /** Milliseconds of silence at which may be cut. @default 200 */
  readonly silenceDurationMs?: number;
}

export interface TranscriptionRequest {
  /** Handle of a loaded speech model. */
  readonly model: number;
  readonly audio: AudioInput;
  /** `translate`: into English. @default 'transcribe' */
  readonly task?: 'transcribe' | 'translate';
  /** ISO code ("en") or English name ("english"). Unset: detected. */
  readonly language?: string;
  /** Text that is thought to precede the recording. */
  readonly prompt?: string;
  /** The prompt goes before every window, not only the first. @default false */
  readonly carryPrompt?: boolean;
  /** Unset or 0: 0, and up to 1 in steps of 0.2 where an answer is doubtful. Above 0: this one only. */
  readonly temperature?: number;
  /** At temperature 0; 1 is greedy. @default 1 */
  readonly beamSize?: number;
  /** Above temperature 0: answers drawn, of which the likeliest is taken. @default 5 */
  readonly bestOf?: number;
  /** Without them a window of 30 seconds is one segment. @default true */
  readonly timestamps?: boolean;
  /** @default false */
  readonly wordTimestamps?: boolean;
  /** The text before is the next window's context (sequential only). @default true */
  readonly conditionOnPreviousText?: boolean;
  /** Seconds; with word timestamps: longer silences around likely hallucinations are skipped. Unset: none. */
  readonly hallucinationSilenceThreshold?: number;
  /** @default sequential: window after window */
  readonly chunking?: { readonly type: 'sequential' } | BatchedChunking;
  /** What nobody speaks in is not decoded. @default false */
  readonly skipSilence?: boolean;
  /** Report the log-probability of each token. @default false */
  readonly logprobs?: boolean;
  /** Of draws above temperature 0. Unset: a fresh one. */
  readonly seed?: number;
}

export interface TranscribedWord {
  /** With the space before it and the punctuation around it. */
  readonly word: string;
  /** Seconds. */
  readonly start: number;
  readonly end: number;
  /** 0..1 */
  readonly probability: number;
}

export interface TranscribedToken {
  readonly id: number;
  readonly text: string;
  readonly bytes: readonly number[];
  /** Natural logarithm. */
  readonly logprob: number;
}

/** Times in seconds of the recording. */
export interface TranscribedSegment {
  /** From 0. */
  readonly id: number;
  /** Frame of 10 ms at which the window began that this comes from. */
  readonly seek: number;
  readonly start: number;
  readonly end: number;
  /** With the space before it. */
  readonly text: string;
  /** With timestamps where they were decoded. */
  readonly tokens: readonly number[];
  readonly temperature: number;
  readonly avgLogprob: number;
  readonly compressionRatio: number;
  readonly noSpeechProb: number;
  /** If they were asked for. */
  readonly words?: readonly TranscribedWord[];
  /** If they were asked for; text tokens only. */
  readonly logprobs?: readonly TranscribedToken[];
}

export type TranscriptionEvent =
  /** First. The recording was read; seconds. */
  | { readonly type: 'started'; readonly duration: number }
  /** Before the first segment. `probability` if it was detected. */
  | {
      readonly type: 'language';
      readonly code: string;
      /** English, lower case. */
      readonly name: string;
      readonly probability?: number;
    }
  | { readonly type: 'segment'; readonly segment: TranscribedSegment }
  /** Seconds of the recording that are done. */
  | { readonly type: 'progress'; readonly seconds: number }
  /** Last. */
  | { readonly type: 'finished'; readonly usage: TranscriptionUsage };

export interface TranscriptionUsage {
  /** Positions of encoded audio, 50 a second. */
  readonly audioTokens: number;
  /** Tokens of the transcript. */
  readonly textTokens: number;
}

/** One transcription. Iterate it once; leaving the loop cancels it. Failures are thrown as EngineError. */
export interface Transcription extends AsyncIterable<TranscriptionEvent> {
  cancel(): void;
}
