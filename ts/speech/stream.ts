/** A transcription as the API streams it. */

import type { TranscriptionEvent } from '../engine/speech.js';
import type { WireTokenUsage, WireTranscriptEvent } from '../protocol/transcripts.js';
import { languagesOf, logprobsOf, type RenderOptions } from './formats.js';
import { type Transcript, TranscriptFold } from './transcript.js';

/** A delta for each segment that says something, then the whole: its text is that of all deltas together. */
export async function* transcriptEvents(
  events: AsyncIterable<TranscriptionEvent>,
  { task, logprobs }: Pick<RenderOptions, 'task' | 'logprobs'>,
): AsyncGenerator<WireTranscriptEvent> {
  const fold = new TranscriptFold();
  let text = '';
  for await (const event of events) {
    fold.push(event);
    if (event.type !== 'segment') continue;
    const { segment } = event;
    // What begins the text has no space before it.
    const delta = text === '' ? segment.text.trimStart() : segment.text;
    text += delta;
    if (delta === '') continue;
    yield {
      type: 'transcript.text.delta',
      delta,
      ...(logprobs ? { logprobs: logprobsOf(segment) } : {}),
    };
  }
  const { transcript } = fold;
  yield {
    type: 'transcript.text.done',
    text,
    ...(task === 'translate' ? {} : { languages: languagesOf(transcript) }),
    ...(logprobs ? { logprobs: transcript.segments.flatMap(logprobsOf) } : {}),
    usage: tokenUsage(transcript),
  };
}

function tokenUsage({ usage: { audioTokens, textTokens } }: Transcript): WireTokenUsage {
  return {
    type: 'tokens',
    input_tokens: audioTokens,
    input_token_details: { text_tokens: 0, audio_tokens: audioTokens },
    output_tokens: textTokens,
    total_tokens: audioTokens + textTokens,
  };
}
