/** Transcriptions across the border: requests and events in the binding's shapes, and the queue between. */

import type { BindingBatchedChunking, BindingEvent, BindingSegment, BindingTranscriptionRequest } from '../../index.js';
import { EventQueue, type EventQueueOptions } from './event-queue.js';
import type {
  BatchedChunking,
  TranscribedSegment,
  Transcription,
  TranscriptionEvent,
  TranscriptionRequest,
} from './speech.js';

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

/** Undefined for an event of another kind of request. */
export function toTranscriptionEvent(event: BindingEvent): TranscriptionEvent | undefined {
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
    default:
      return undefined;
  }
}

function toSegment(segment: BindingSegment): TranscribedSegment {
  return segment;
}
