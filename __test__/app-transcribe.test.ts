import { expect } from 'chai';

import { type ModelEngine, openModelEngine } from '../ts/app/create-engine.js';
import { createRegistry } from '../ts/app/registry.js';
import { createLocalModel } from '../ts/chat/local-model.js';
import { EngineError } from '../ts/engine/types.js';
import { createServer, toSrt } from '../ts/index.js';
import { closeServer, listen } from '../ts/http/server.js';
import { rejection } from './helpers/rejection.js';
import { hear, ScriptedEngine, type ScriptedEngineOptions } from './helpers/scripted-engine.js';

const SPEECH = { kind: 'speech' } as const;

describe('app: transcriptions', () => {
  let native: ScriptedEngine;
  let engine: ModelEngine | undefined;
  afterEach(async () => {
    await engine?.close();
    engine = undefined;
  });

  async function open(options: ScriptedEngineOptions = {}): Promise<ModelEngine> {
    native = new ScriptedEngine({ model: SPEECH, speech: () => hear(['Hello', 'there!']), ...options });
    engine = await openModelEngine(native, { model: 'org/speech' });
    return engine;
  }

  it('stream parts, then give the whole', async () => {
    const stream = (await open()).transcribe({ path: 'talk.mp3' });
    const parts: string[] = [];
    for await (const part of stream) parts.push(`${part.type}:${part.text}`);
    expect(parts).to.deep.equal([
      'started:',
      'language:',
      'segment: Hello',
      'progress:',
      'segment: there!',
      'progress:',
    ]);
    const transcript = await stream;
    expect(transcript).to.deep.include({
      text: 'Hello there!',
      language: { code: 'en', name: 'english', probability: 0.9 },
      duration: 4,
      usage: { audioTokens: 200, textTokens: 6 },
    });
    expect(toSrt(transcript.segments)).to.match(/^1\n00:00:00,000 --> 00:00:02,000\nHello\n\n2\n/);
    expect(await stream.result()).to.equal(transcript);
  });

  it('can just be awaited, and pass the options on', async () => {
    const opened = await open();
    expect((await opened.transcribe({ path: 'a.wav' })).text).to.equal('Hello there!');
    const bytes = new Uint8Array([1, 2]);
    await opened.transcribe({ bytes, task: 'translate', language: 'de', wordTimestamps: true, seed: 3 });
    await opened.transcribe({ bytes, name: 'a.ogg', chunking: { type: 'batched', batch: 2 } });
    expect(native.transcriptions).to.deep.equal([
      { model: 1, audio: { path: 'a.wav' } },
      { model: 1, audio: { bytes }, task: 'translate', language: 'de', wordTimestamps: true, seed: 3 },
      { model: 1, audio: { bytes, name: 'a.ogg' }, chunking: { type: 'batched', batch: 2 } },
    ]);
  });

  it('are cancelled when the loop is left, or by a signal', async () => {
    const opened = await open();
    const stream = opened.transcribe({ path: 'a.wav' });
    for await (const part of stream) if (part.type === 'segment') break;
    expect(native.cancelled).to.equal(1);
    expect((await rejection(stream.result(), EngineError)).code).to.equal('cancelled');
    const abort = new AbortController();
    const read = async (): Promise<void> => {
      for await (const part of opened.transcribe({ path: 'a.wav' }, { signal: abort.signal })) abort.abort(part);
    };
    expect((await rejection(read(), EngineError)).code).to.equal('cancelled');
    expect(native.cancelled).to.equal(2);
  });

  it('need a speech model, which does nothing else', async () => {
    const hears = await open();
    for (const call of [hears.chat({ messages: [] }), hears.complete({ prompt: 'x' })]) {
      const { code, message } = await rejection(call.result(), EngineError);
      expect(code).to.equal('invalid_request');
      expect(message).to.equal("'org/speech' is a speech model: it transcribes recordings and cannot write answers");
    }
    await hears.close();
    const speaks = await open({ model: {} });
    const stream = speaks.transcribe({ path: 'a.wav' });
    const read = async (): Promise<void> => {
      for await (const part of stream) expect(part).to.equal(undefined);
    };
    expect((await rejection(read(), EngineError)).message).to.include("'org/speech' is a language model");
    // Whoever awaits it hears the same.
    expect((await rejection(stream.result(), EngineError)).code).to.equal('invalid_request');
    expect(native.transcriptions).to.deep.equal([]);
  });

  it('are served over HTTP too', async () => {
    const server = createServer(await open());
    const { port } = await listen(server, { host: '127.0.0.1', port: 0 });
    try {
      const form = new FormData();
      form.append('file', new Blob(['a recording']), 'talk.wav');
      const answer = await fetch(`http://127.0.0.1:${port}/v1/audio/transcriptions`, { method: 'POST', body: form });
      expect(await answer.json()).to.include({ text: 'Hello there!' });
    } finally {
      await closeServer(server);
    }
  });
});

describe('app: a registry with both kinds', () => {
  it('holds them side by side, and knows which is which', async () => {
    const warnings: string[] = [];
    const logger = { info: () => undefined, warn: (message: string) => void warnings.push(message) };
    const engine = new ScriptedEngine({
      model: ({ model }) => (model.includes('whisper') ? { ...SPEECH, languages: ['en', 'de'] } : {}),
    });
    const registry = createRegistry({
      engine,
      createLocalModel,
      defaults: {},
      templateVariables: { enable_thinking: false },
      logger,
    });
    try {
      using chat = await registry.acquire('org/chat');
      using speech = await registry.acquire('openai/whisper-base');
      expect([chat.model.info.kind, speech.model.info.kind]).to.deep.equal(['text', 'speech']);
      expect(registry.loaded().map(({ info }) => info.id)).to.deep.equal(['org/chat', 'openai/whisper-base']);
      const listed = await registry.list();
      expect(listed.map(({ id, contextLength }) => [id, contextLength])).to.deep.equal([
        ['org/chat', 1024],
        ['openai/whisper-base', undefined],
      ]);
      // Variables for chat templates concern those that chat.
      expect(warnings).to.deep.equal(['the chat template of org/chat does not read enable_thinking']);
    } finally {
      await registry.close();
    }
  });
});
