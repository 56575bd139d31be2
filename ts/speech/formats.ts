/** A transcript in the formats of the API. */

import type { TranscribedSegment, TranscribedToken, TranscribedWord } from '../engine/speech.js';
import type { TranscriptFormat } from '../protocol/transcriptions.js';
import type {
  WireDurationUsage,
  WireLogprob,
  WireSegment,
  WireTranscript,
  WireVerboseTranscript,
  WireWord,
} from '../protocol/transcripts.js';
import { toSrt, toVtt } from './subtitles.js';
import type { Transcript } from './transcript.js';

export interface RenderOptions {
  readonly task: 'transcribe' | 'translate';
  readonly format: TranscriptFormat;
  /** What a verbose_json holds. */
  readonly granularities: { readonly segments: boolean; readonly words: boolean };
  /** In json. */
  readonly logprobs: boolean;
}

/** An object for JSON, or a text whose last line is ended. */
export function renderTranscript(transcript: Transcript, options: RenderOptions): WireTranscript | string {
  switch (options.format) {
    case 'json':
      return toJson(transcript, options);
    case 'verbose_json':
      return toVerboseJson(transcript, options);
    case 'text':
      return `${transcript.text}\n`;
    case 'srt':
      return toSrt(transcript.segments);
    case 'vtt':
      return toVtt(transcript.segments);
  }
}

function toJson(transcript: Transcript, { task, logprobs }: RenderOptions): WireTranscript {
  const { text } = transcript;
  if (task === 'translate') return { text };
  return {
    text,
    languages: languagesOf(transcript),
    ...(logprobs ? { logprobs: transcript.segments.flatMap(logprobsOf) } : {}),
    usage: usageOf(transcript),
  };
}

function toVerboseJson(transcript: Transcript, { task, granularities }: RenderOptions): WireVerboseTranscript {
  const { text, language, duration, segments, words = [] } = transcript;
  return {
    task,
    language: task === 'translate' ? 'english' : (language?.name ?? ''),
    duration: rounded(duration),
    text,
    ...(granularities.words ? { words: words.map(toWireWord) } : {}),
    ...(granularities.segments ? { segments: segments.map(toWireSegment) } : {}),
    ...(task === 'translate' ? {} : { usage: usageOf(transcript) }),
  };
}

/** None where nothing was decoded. */
export function languagesOf({ language }: Pick<Transcript, 'language'>): { readonly code: string }[] {
  return language === undefined ? [] : [{ code: language.code }];
}

export function logprobsOf({ logprobs = [] }: Pick<TranscribedSegment, 'logprobs'>): WireLogprob[] {
  return logprobs.map(({ text, logprob, bytes }: TranscribedToken) => ({ token: text, logprob, bytes }));
}

function usageOf({ duration }: Transcript): WireDurationUsage {
  return { type: 'duration', seconds: rounded(duration) };
}

function toWireSegment(segment: TranscribedSegment): WireSegment {
  const { id, seek, start, end, text, tokens, temperature, avgLogprob, compressionRatio, noSpeechProb } = segment;
  return {
    id,
    seek,
    start: rounded(start),
    end: rounded(end),
    text,
    tokens,
    temperature,
    avg_logprob: avgLogprob,
    compression_ratio: compressionRatio,
    no_speech_prob: noSpeechProb,
  };
}

/** The space before a word is not part of it here. */
function toWireWord({ word, start, end }: TranscribedWord): WireWord {
  return { word: word.trim(), start: rounded(start), end: rounded(end) };
}

/** To milliseconds: 0.1 + 0.2 is 0.3. */
function rounded(seconds: number): number {
  return Math.round(seconds * 1000) / 1000;
}
