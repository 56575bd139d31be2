/** The official client as an oracle, for audio. */

import { createReadStream } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect } from 'chai';
import OpenAI, { toFile } from 'openai';

import { EngineError } from '../ts/engine/types.js';
import { english, heard, said, transcribed } from './helpers/scripted-events.js';
import { ScriptedApp } from './helpers/scripted-app.js';
import { Gate, type ScriptedModelOptions } from './helpers/scripted-registry.js';

const ID = 'openai/whisper-base';
const HELLO: ScriptedModelOptions = {
  id: ID,
  transcribe: () => [heard, english, said(0, ' Hello there.'), said(1, ' Bye!'), transcribed],
};

function clientOf(app: ScriptedApp): OpenAI {
  return new OpenAI({ baseURL: `${app.url}/v1`, apiKey: 'k', maxRetries: 0 });
}

async function failureOf(promise: PromiseLike<unknown>): Promise<any> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error('it succeeded');
}

describe('the openai client, with recordings', () => {
  let folder: string;
  let path: string;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tsserve-openai-'));
    path = join(folder, 'talk.mp3');
    await writeFile(path, 'a recording');
  });
  after(async () => rm(folder, { recursive: true }));

  it('transcribes a file', async () => {
    await using app = await ScriptedApp.start([HELLO], { apiKeys: ['k'] });
    const answer = await clientOf(app).audio.transcriptions.create({ file: createReadStream(path), model: ID });
    expect(answer.text).to.equal('Hello there. Bye!');
    expect(answer.usage).to.deep.equal({ type: 'duration', seconds: 4 });
    expect(app.registry.first.transcribeRequests[0]?.audio).to.deep.equal({
      bytes: Buffer.from('a recording'),
      name: 'talk.mp3',
    });
  });

  it('gets every format in its type', async () => {
    await using app = await ScriptedApp.start([HELLO]);
    const { transcriptions } = clientOf(app).audio;
    const ask = async (): Promise<{ file: File; model: string }> => ({
      file: await toFile(Buffer.from('x'), 'a.wav'),
      model: ID,
    });
    expect(await transcriptions.create({ ...(await ask()), response_format: 'text' })).to.equal('Hello there. Bye!\n');
    expect(await transcriptions.create({ ...(await ask()), response_format: 'srt' })).to.match(/^1\n00:00:00,000 -->/);
    expect(await transcriptions.create({ ...(await ask()), response_format: 'vtt' })).to.match(/^WEBVTT\n/);
    const verbose = await transcriptions.create({
      ...(await ask()),
      response_format: 'verbose_json',
      timestamp_granularities: ['word', 'segment'],
      language: 'en',
      prompt: 'So.',
      temperature: 0,
      chunking_strategy: { type: 'server_vad', silence_duration_ms: 500 },
    });
    expect([verbose.language, verbose.duration, verbose.segments?.length]).to.deep.equal(['english', 4, 2]);
    expect(verbose.words?.map(({ word }) => word)).to.deep.equal(['Hello', 'there.', 'Bye!']);
    expect(app.registry.first.transcribeRequests.at(-1)).to.deep.include({
      chunking: { type: 'batched', silenceDurationMs: 500 },
      wordTimestamps: true,
      prompt: 'So.',
    });
  });

  it('streams', async () => {
    await using app = await ScriptedApp.start([HELLO]);
    const stream = await clientOf(app).audio.transcriptions.create({
      file: createReadStream(path),
      model: ID,
      stream: true,
      include: ['logprobs'],
    });
    let text = '';
    let done;
    for await (const event of stream) {
      if (event.type === 'transcript.text.delta') text += event.delta;
      if (event.type === 'transcript.text.done') done = event;
    }
    expect(text).to.equal('Hello there. Bye!');
    expect(done).to.include({ text });
    expect(done?.usage).to.include({ input_tokens: 200, output_tokens: 6, total_tokens: 206 });
    expect(done?.logprobs).to.have.length(3);
  });

  it('translates', async () => {
    await using app = await ScriptedApp.start([HELLO]);
    const { translations } = clientOf(app).audio;
    const answer = await translations.create({ file: createReadStream(path), model: ID });
    expect(answer).to.deep.equal({ text: 'Hello there. Bye!' });
    const verbose = await translations.create({
      file: createReadStream(path),
      model: ID,
      response_format: 'verbose_json',
    });
    expect(verbose).to.include({ language: 'english', duration: 4 });
  });

  it('throws its own errors, also in the middle of a stream', async () => {
    await using app = await ScriptedApp.start([
      { id: ID, transcribe: () => [{ fail: new EngineError('invalid_audio', 'no decoder knows this') }] },
      {
        id: 'breaks',
        transcribe: () => [heard, english, said(0, ' a'), { fail: new EngineError('invalid_audio', 'cut') }],
      },
    ]);
    const { transcriptions } = clientOf(app).audio;
    const error = await failureOf(transcriptions.create({ file: createReadStream(path), model: ID }));
    expect(error).to.be.instanceOf(OpenAI.BadRequestError);
    expect([error.code, error.param]).to.deep.equal(['invalid_audio', 'file']);
    const missing = await failureOf(transcriptions.create({ file: createReadStream(path), model: 'none' }));
    expect(missing).to.be.instanceOf(OpenAI.NotFoundError);
    const stream = await transcriptions.create({ file: createReadStream(path), model: 'breaks', stream: true });
    const seen: string[] = [];
    const read = async (): Promise<void> => {
      for await (const event of stream) seen.push(event.type);
    };
    expect((await failureOf(read())).message).to.equal('cut');
    expect(seen).to.deep.equal(['transcript.text.delta']);
  });

  it('aborts', async () => {
    const never = new Gate();
    await using app = await ScriptedApp.start([
      { id: ID, transcribe: () => [heard, english, said(0, ' a'), { wait: never.opened }] },
    ]);
    const model = app.registry.first;
    const stream = await clientOf(app).audio.transcriptions.create({
      file: createReadStream(path),
      model: ID,
      stream: true,
    });
    for await (const event of stream) if (event.type === 'transcript.text.delta') stream.controller.abort();
    await app.registry.until(() => model.running === 0 && model.held === 0);
    expect(model.cancelled).to.equal(1);
  });
});
