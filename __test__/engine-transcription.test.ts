import { expect } from 'chai';

import type { BindingEvent, BindingSegment } from '../index.js';
import type { TranscriptionEvent, TranscriptionRequest } from '../ts/engine/speech.js';
import { toBindingTranscription, toTranscriptionEvent, TranscriptionQueue } from '../ts/engine/transcription.js';
import { EngineError } from '../ts/engine/types.js';
import { rejection } from './helpers/rejection.js';
import { fullSegment, heard, said, transcribed } from './helpers/scripted-events.js';

async function collect(queue: TranscriptionQueue): Promise<TranscriptionEvent[]> {
  const events: TranscriptionEvent[] = [];
  for await (const event of queue) events.push(event);
  return events;
}

describe('engine: transcriptions', () => {
  it('are asked for in the shape of the binding', () => {
    const asked = toBindingTranscription({
      model: 3,
      audio: { bytes: new Uint8Array([1]), name: 'a.wav' },
      task: 'translate',
      carryPrompt: true,
      chunking: { type: 'batched', batch: 4, threshold: 0.5 },
    });
    const set = Object.fromEntries(Object.entries(asked).filter(([, value]) => value !== undefined));
    expect(set).to.deep.equal({
      bytes: new Uint8Array([1]),
      name: 'a.wav',
      task: 'translate',
      carryPrompt: true,
      batched: { batch: 4, threshold: 0.5, prefixPaddingMs: undefined, silenceDurationMs: undefined },
    });
    const plain = toBindingTranscription({ model: 3, audio: { path: '/a' }, chunking: { type: 'sequential' } });
    expect(plain).to.include({ path: '/a', batched: undefined });
    expect(plain).not.to.have.property('model');
  });

  it('pass every option on', () => {
    const options = {
      ...{ task: 'transcribe' as const, language: 'de', prompt: 'p', carryPrompt: false, temperature: 0.5 },
      ...{ beamSize: 2, bestOf: 3, timestamps: false, wordTimestamps: true, conditionOnPreviousText: false },
      ...{ hallucinationSilenceThreshold: 1, skipSilence: true, logprobs: true, seed: 9 },
    } satisfies Required<Omit<TranscriptionRequest, 'model' | 'audio' | 'chunking'>>;
    expect(toBindingTranscription({ model: 1, audio: { path: '/a' }, ...options })).to.deep.equal({
      ...options,
      path: '/a',
      batched: undefined,
    });
  });

  it('come back as events', () => {
    const segment = fullSegment(0, ' a b');
    const events: readonly BindingEvent[] = [
      { id: 1, type: 'audio_started', duration: 4 },
      { id: 1, type: 'language', code: 'en', name: 'english', probability: 0.5 },
      { id: 1, type: 'language', code: 'en', name: 'english' },
      { id: 1, type: 'segment', segment: segment as BindingSegment },
      { id: 1, type: 'audio_progress', seconds: 2 },
      { id: 1, type: 'transcribed', audioTokens: 200, textTokens: 6 },
    ];
    expect(events.map(toTranscriptionEvent)).to.deep.equal([
      heard,
      { type: 'language', code: 'en', name: 'english', probability: 0.5 },
      { type: 'language', code: 'en', name: 'english' },
      { type: 'segment', segment },
      { type: 'progress', seconds: 2 },
      transcribed,
    ]);
    for (const type of ['started', 'delta', 'finished', 'failed'] as const) {
      expect(toTranscriptionEvent({ id: 1, type })).to.equal(undefined);
    }
  });

  it('keep all segments for a slow reader, and of the progress the newest', async () => {
    const queue = new TranscriptionQueue({ onCancel: () => undefined });
    queue.push([heard, { type: 'progress', seconds: 1 }, { type: 'progress', seconds: 2 }, said(0, ' a')]);
    queue.push([said(1, ' b'), { type: 'progress', seconds: 3 }, { type: 'progress', seconds: 4 }, transcribed]);
    expect(
      (await collect(queue)).map((event) => (event.type === 'progress' ? event.seconds : event.type)),
    ).to.deep.equal(['started', 2, 'segment', 'segment', 4, 'finished']);
  });

  it('are cancelled once, by whoever leaves', async () => {
    let cancels = 0;
    const onCancel = (): void => void (cancels += 1);
    const left = new TranscriptionQueue({ onCancel });
    left.push([heard, said(0, ' a')]);
    for await (const event of left) if (event.type === 'started') break;
    left.cancel();
    expect(cancels).to.equal(1);

    const abort = new AbortController();
    const aborted = new TranscriptionQueue({ onCancel, signal: abort.signal });
    const reading = collect(aborted);
    abort.abort();
    const error = await rejection(reading, EngineError);
    expect([error.code, error.message]).to.deep.equal(['cancelled', 'the transcription was aborted']);
    expect(cancels).to.equal(2);
  });
});
