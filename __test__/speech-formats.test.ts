import { expect } from 'chai';

import type { TranscriptionEvent } from '../ts/engine/speech.js';
import { EngineError } from '../ts/engine/types.js';
import type { WireTranscriptEvent } from '../ts/protocol/transcripts.js';
import { type RenderOptions, renderTranscript } from '../ts/speech/formats.js';
import { transcriptEvents } from '../ts/speech/stream.js';
import { clock, toSrt, toVtt } from '../ts/speech/subtitles.js';
import { type Transcript, TranscriptFold } from '../ts/speech/transcript.js';
import { rejection } from './helpers/rejection.js';
import { english, heard, said, segment, transcribed } from './helpers/scripted-events.js';

const EVENTS: readonly TranscriptionEvent[] = [
  heard,
  english,
  said(0, ' Hello there.'),
  { type: 'progress', seconds: 2 },
  said(1, ' Bye!'),
  transcribed,
];

const PLAIN: RenderOptions = {
  task: 'transcribe',
  format: 'json',
  granularities: { segments: true, words: false },
  logprobs: false,
};

function transcriptOf(events: readonly TranscriptionEvent[]): Transcript {
  const fold = new TranscriptFold();
  for (const event of events) fold.push(event);
  return fold.transcript;
}

function render(options: Partial<RenderOptions>, events = EVENTS): any {
  return renderTranscript(transcriptOf(events), { ...PLAIN, ...options });
}

async function streamed(
  events: readonly TranscriptionEvent[],
  options: Partial<RenderOptions> = {},
): Promise<WireTranscriptEvent[]> {
  async function* source(): AsyncGenerator<TranscriptionEvent> {
    yield* events;
  }
  const all: WireTranscriptEvent[] = [];
  for await (const event of transcriptEvents(source(), { ...PLAIN, ...options })) all.push(event);
  return all;
}

describe('speech: subtitles', () => {
  it('write times as the formats want them', () => {
    const times = [0, 0.0004, 0.0005, 1.999, 1.9996, 59.9999, 61.5, 3599.9999, 3661.001, 360_000, -1];
    expect(times.map((time) => clock(time, ','))).to.deep.equal([
      '00:00:00,000',
      '00:00:00,000',
      '00:00:00,001',
      '00:00:01,999',
      '00:00:02,000',
      '00:01:00,000',
      '00:01:01,500',
      '01:00:00,000',
      '01:01:01,001',
      '100:00:00,000',
      '00:00:00,000',
    ]);
  });

  const cues = [
    { start: 0, end: 1.5, text: ' Hello <b>there</b> & you --> me' },
    { start: 1.5, end: 2, text: '  ' },
    { start: 2, end: 3.25, text: ' two\n\n lines ' },
  ];

  it('as SubRip: numbered, commas, no arrow in a text', () => {
    expect(toSrt(cues)).to.equal(
      '1\n00:00:00,000 --> 00:00:01,500\nHello <b>there</b> & you -> me\n\n' +
        '2\n00:00:02,000 --> 00:00:03,250\ntwo\nlines\n',
    );
    expect(toSrt([])).to.equal('');
  });

  it('as WebVTT: a header, points, no markup in a text', () => {
    expect(toVtt(cues)).to.equal(
      'WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello &lt;b&gt;there&lt;/b&gt; &amp; you --&gt; me\n\n' +
        '00:00:02.000 --> 00:00:03.250\ntwo\nlines\n',
    );
    expect(toVtt([])).to.equal('WEBVTT\n');
  });
});

describe('speech: a transcript', () => {
  it('puts the events together', () => {
    const transcript = transcriptOf(EVENTS);
    expect(transcript.text).to.equal('Hello there. Bye!');
    expect(transcript.language).to.deep.equal({ code: 'en', name: 'english', probability: 0.9 });
    expect(transcript.duration).to.equal(4);
    expect(transcript.segments.map(({ id }) => id)).to.deep.equal([0, 1]);
    expect(transcript.words?.map(({ word }) => word)).to.deep.equal([' Hello', ' there.', ' Bye!']);
    expect(transcript.usage).to.deep.equal({ audioTokens: 200, textTokens: 6 });
  });

  it('has no words if none were asked for, and is not there before its end', () => {
    expect(transcriptOf([heard, { type: 'segment', segment: segment(0, ' a') }, transcribed])).not.to.have.property(
      'words',
    );
    expect(() => transcriptOf([heard, english])).to.throw(EngineError, 'without a finish');
  });

  it('is json', () => {
    const usage = { type: 'duration', seconds: 4 };
    expect(render({})).to.deep.equal({ text: 'Hello there. Bye!', languages: [{ code: 'en' }], usage });
    expect(render({ logprobs: true }).logprobs.slice(0, 1)).to.deep.equal([
      { token: ' Hello', logprob: -0.5, bytes: [...Buffer.from(' Hello')] },
    ]);
    expect(render({ task: 'translate' })).to.deep.equal({ text: 'Hello there. Bye!' });
  });

  it('is text, with a line end', () => {
    expect(render({ format: 'text' })).to.equal('Hello there. Bye!\n');
  });

  it('is verbose_json, with what was asked for', () => {
    const verbose = render({ format: 'verbose_json' });
    expect(verbose).to.include({ task: 'transcribe', language: 'english', duration: 4, text: 'Hello there. Bye!' });
    expect(verbose).not.to.have.property('words');
    expect(verbose.segments[1]).to.deep.equal({
      id: 1,
      seek: 200,
      start: 2,
      end: 4,
      text: ' Bye!',
      tokens: [50364, 100, 50464],
      temperature: 0,
      avg_logprob: -0.25,
      compression_ratio: 1.1,
      no_speech_prob: 0.01,
    });
    const words = render({ format: 'verbose_json', granularities: { segments: false, words: true } });
    expect(words).not.to.have.property('segments');
    expect(words.words).to.deep.equal([
      { word: 'Hello', start: 0, end: 1 },
      { word: 'there.', start: 1, end: 2 },
      { word: 'Bye!', start: 2, end: 4 },
    ]);
    expect(render({ format: 'verbose_json', task: 'translate' }))
      .to.include({ task: 'translate', language: 'english' })
      .and.not.have.property('usage');
  });

  it('has times in milliseconds, however they were summed', () => {
    const events = [
      heard,
      english,
      { type: 'segment', segment: segment(0, ' a', { start: 0.1 + 0.2 }) } as const,
      transcribed,
    ];
    expect(render({ format: 'verbose_json' }, events).segments[0].start).to.equal(0.3);
  });

  it('may be silence', () => {
    const nothing: readonly TranscriptionEvent[] = [{ type: 'started', duration: 0.5 }, transcribed];
    expect(render({}, nothing)).to.deep.include({ text: '', languages: [] });
    expect(render({ format: 'verbose_json' }, nothing)).to.include({ text: '', language: '', duration: 0.5 });
    expect(render({ format: 'text' }, nothing)).to.equal('\n');
    expect(render({ format: 'srt' }, nothing)).to.equal('');
  });
});

describe('speech: a stream', () => {
  it('has a delta for each segment that says something, and their text at its end', async () => {
    const silent = { type: 'segment', segment: segment(2, ' ') } as const;
    const events = await streamed([heard, silent, english, said(0, ' Hello'), said(1, ' you.'), transcribed]);
    expect(events).to.deep.equal([
      { type: 'transcript.text.delta', delta: 'Hello' },
      { type: 'transcript.text.delta', delta: ' you.' },
      {
        type: 'transcript.text.done',
        text: 'Hello you.',
        languages: [{ code: 'en' }],
        usage: {
          type: 'tokens',
          input_tokens: 200,
          input_token_details: { text_tokens: 0, audio_tokens: 200 },
          output_tokens: 6,
          total_tokens: 206,
        },
      },
    ]);
  });

  it('has log-probabilities if they were asked for', async () => {
    const [first, , last] = await streamed(EVENTS, { logprobs: true });
    expect(first).to.have.deep.property('logprobs', [
      { token: ' Hello', logprob: -0.5, bytes: [...Buffer.from(' Hello')] },
      { token: ' there.', logprob: -0.5, bytes: [...Buffer.from(' there.')] },
    ]);
    expect(last).to.have.property('logprobs').with.length(3);
  });

  it('that is cut off has no end', async () => {
    await rejection(streamed([heard, english, said(0, ' a')]), EngineError);
  });
});
