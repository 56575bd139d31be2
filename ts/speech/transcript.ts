/** The events of a transcription, put together. */

import type { TranscribedSegment, TranscribedWord, TranscriptionEvent, TranscriptionUsage } from '../engine/speech.js';
import { EngineError } from '../engine/types.js';

export interface TranscriptLanguage {
  /** ISO code. */
  readonly code: string;
  /** English, lower case. */
  readonly name: string;
  /** If it was found out; 0..1 */
  readonly probability?: number;
}

/** A whole transcription. Times in seconds. */
export interface Transcript {
  readonly text: string;
  /** Of the recording; undefined where nothing was decoded. */
  readonly language?: TranscriptLanguage;
  readonly duration: number;
  readonly segments: readonly TranscribedSegment[];
  /** If they were asked for. */
  readonly words?: readonly TranscribedWord[];
  readonly usage: TranscriptionUsage;
}

/** The text of segments: what they say, without the spaces at its ends. */
export function textOf(segments: readonly Pick<TranscribedSegment, 'text'>[]): string {
  return segments
    .map(({ text }) => text)
    .join('')
    .trim();
}

/** Takes the events one by one, whoever else reads them. */
export class TranscriptFold {
  #duration = 0;
  #language: TranscriptLanguage | undefined;
  readonly #segments: TranscribedSegment[] = [];
  #usage: TranscriptionUsage | undefined;

  push(event: TranscriptionEvent): void {
    switch (event.type) {
      case 'started':
        this.#duration = event.duration;
        return;
      case 'language': {
        const { code, name, probability } = event;
        this.#language = { code, name, ...(probability === undefined ? {} : { probability }) };
        return;
      }
      case 'segment':
        this.#segments.push(event.segment);
        return;
      case 'progress':
        return;
      case 'finished':
        this.#usage = event.usage;
    }
  }

  /** Once all events are here. @throws EngineError `internal` if the last one is missing */
  get transcript(): Transcript {
    if (this.#usage === undefined) throw new EngineError('internal', 'the transcription ended without a finish');
    const segments = this.#segments;
    const hasWords = segments.some(({ words }) => words !== undefined);
    return {
      text: textOf(segments),
      ...(this.#language === undefined ? {} : { language: this.#language }),
      duration: this.#duration,
      segments,
      ...(hasWords ? { words: segments.flatMap(({ words = [] }) => words) } : {}),
      usage: this.#usage,
    };
  }
}
