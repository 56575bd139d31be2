/** Transcriptions across the border: requests and events in the binding's shapes, and the queue between. */

import { EventQueue, type EventQueueOptions } from './event-queue.js';
import type {
  BatchedChunking,
  TranscribedSegment,
  TranscribedToken,
  TranscribedWord,
  Transcription,
  TranscriptionEvent,
  TranscriptionRequest,
} from './speech.js';

/** What the binding is asked. Exactly one of `path` and `bytes` is set. */
export interface BindingTranscriptionRequest {
  path?: string;
  bytes?: Uint8Array;
  /** With `bytes`: helps to recognise the format. */
  name?: string;
  task?: 'transcribe' | 'translate';
  language?: string;
  prompt?: string;
  carryPrompt?: boolean;
  temperature?: number;
  beamSize?: number;
  bestOf?: number;
  timestamps?: boolean;
  wordTimestamps?: boolean;
  conditionOnPreviousText?: boolean;
  hallucinationSilenceThreshold?: number;
  /** Unset: window after window. */
  batched?: BindingBatchedChunking;
  skipSilence?: boolean;
  logprobs?: boolean;
  seed?: number;
}

export interface BindingBatchedChunking {
  batch?: number;
  threshold?: number;
  prefixPaddingMs?: number;
  silenceDurationMs?: number;
}

/** One thing that happened to one transcription; which fields are set follows from `type`. */
export interface BindingSpeechEvent {
  /** The id that `transcribe` was called with. */
  id: number;
  type: 'audio_started' | 'language' | 'segment' | 'audio_progress' | 'transcribed';
  /** audio_started: seconds. */
  duration?: number;
  /** language. */
  code?: string;
  name?: string;
  probability?: number;
  segment?: BindingSegment;
  /** audio_progress. */
  seconds?: number;
  /** transcribed. */
  audioTokens?: number;
  textTokens?: number;
}

export interface BindingSegment {
  id: number;
  seek: number;
  start: number;
  end: number;
  text: string;
  tokens: number[];
  temperature: number;
  avgLogprob: number;
  compressionRatio: number;
  noSpeechProb: number;
  words?: TranscribedWord[];
  logprobs?: TranscribedToken[];
}

/** The part of the binding that transcribes. */
export interface SpeechBinding<Failure> {
  /** Starts a transcription under `id`, chosen by the caller and never used twice. Its events begin after this. */
  transcribe(id: number, model: number, request: BindingTranscriptionRequest): Promise<undefined | Failure>;
}

/** A `Transcription` fed by the engine. It needs no credit: the recording bounds how much can wait for the reader. */
export class TranscriptionQueue extends EventQueue<TranscriptionEvent> implements Transcription {
  protected override readonly progressType = 'progress';

  constructor(options: EventQueueOptions) {
    super('transcription', options);
  }

  protected override taken(): void {
    // Nothing is owed.
  }
}

export function toBindingTranscription(request: TranscriptionRequest): BindingTranscriptionRequest {
  const { audio, task, language, prompt, carryPrompt, temperature, beamSize, bestOf } = request;
  const { timestamps, wordTimestamps, conditionOnPreviousText, hallucinationSilenceThreshold } = request;
  const { chunking, skipSilence, logprobs, seed } = request;
  return {
    ...audio,
    ...{ task, language, prompt, carryPrompt, temperature, beamSize, bestOf, timestamps, wordTimestamps },
    ...{ conditionOnPreviousText, hallucinationSilenceThreshold, skipSilence, logprobs, seed },
    batched: chunking?.type === 'batched' ? toBatched(chunking) : undefined,
  };
}

function toBatched({ batch, threshold, prefixPaddingMs, silenceDurationMs }: BatchedChunking): BindingBatchedChunking {
  return { batch, threshold, prefixPaddingMs, silenceDurationMs };
}

const SPEECH_EVENTS: ReadonlySet<string> = new Set<BindingSpeechEvent['type']>([
  'audio_started',
  'language',
  'segment',
  'audio_progress',
  'transcribed',
]);

export function isSpeechEvent(event: { readonly type: string }): event is BindingSpeechEvent {
  return SPEECH_EVENTS.has(event.type);
}

export function toTranscriptionEvent(event: BindingSpeechEvent): TranscriptionEvent | undefined {
  switch (event.type) {
    case 'audio_started':
      return { type: 'started', duration: event.duration ?? 0 };
    case 'language': {
      const language = { type: 'language', code: event.code ?? '', name: event.name ?? '' } as const;
      return event.probability === undefined ? language : { ...language, probability: event.probability };
    }
    case 'segment':
      return event.segment && { type: 'segment', segment: toSegment(event.segment) };
    case 'audio_progress':
      return { type: 'progress', seconds: event.seconds ?? 0 };
    case 'transcribed':
      return {
        type: 'finished',
        usage: { audioTokens: event.audioTokens ?? 0, textTokens: event.textTokens ?? 0 },
      };
  }
}

function toSegment(segment: BindingSegment): TranscribedSegment {
  return segment;
}
