/** Transcription inside a program: parts while they come, then the whole. */

import type { AudioInput, TranscriptionEvent, TranscriptionRequest } from '../engine/speech.js';
import type { Engine, LoadedModel } from '../engine/types.js';
import { type Transcript, TranscriptFold } from '../speech/transcript.js';
import type { AnswerStream } from './answer-stream.js';
import { requireKind } from './model-kind.js';

/**
 * A recording, as a file or as its bytes, and how to transcribe it.
 *
 * @example
 * { path: 'talk.mp3', language: 'en', wordTimestamps: true }
 */
export type TranscribeOptions = AudioInput & Omit<TranscriptionRequest, 'model' | 'audio'>;

/** What happens on the way. The text of all but segments is empty, so that texts of parts can be put together. */
export type TranscriptPart = Exclude<TranscriptionEvent, { readonly type: 'finished' }> & { readonly text: string };

/** Parts by `for await`, the whole by `await`. */
export type TranscriptStream = AnswerStream<TranscriptPart, Transcript>;

export async function* transcribe(
  engine: Engine,
  info: LoadedModel,
  options: TranscribeOptions,
  signal: AbortSignal | undefined,
): AsyncGenerator<TranscriptPart, Transcript, undefined> {
  requireKind(info, 'speech');
  const fold = new TranscriptFold();
  for await (const event of engine.transcribe(toRequest(info.handle, options), signal)) {
    fold.push(event);
    if (event.type !== 'finished') yield { ...event, text: event.type === 'segment' ? event.segment.text : '' };
  }
  return fold.transcript;
}

function toRequest(model: number, options: TranscribeOptions): TranscriptionRequest {
  if ('path' in options) {
    const { path, ...rest } = options;
    return { ...rest, model, audio: { path } };
  }
  const { bytes, name, ...rest } = options;
  return { ...rest, model, audio: name === undefined ? { bytes } : { bytes, name } };
}
