import { expect } from 'chai';
import { execFile } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { openModelEngine, type ModelEngine } from '../ts/app/create-engine.js';
import { EngineError, type LoadProgress } from '../ts/engine/types.js';
import { rejection } from './helpers/rejection.js';
import { say, ScriptedEngine, type ScriptedEngineOptions } from './helpers/scripted-engine.js';

const HI = { messages: [{ role: 'user', content: 'Hi' }] } as const;

describe('app: createEngine', () => {
  let native: ScriptedEngine;
  let engine: ModelEngine | undefined;
  afterEach(async () => {
    await engine?.close();
    engine = undefined;
  });

  async function open(scripted: ScriptedEngineOptions = {}): Promise<ModelEngine> {
    native = new ScriptedEngine(scripted);
    engine = await openModelEngine(native, { model: 'org/name', threads: 2 });
    return engine;
  }

  it('loads with the options given and tells what was loaded', async () => {
    const progress: LoadProgress[] = [];
    native = new ScriptedEngine({ onLoad: (_options, tell) => tell({ stage: 'resolve' }) });
    engine = await openModelEngine(native, { model: 'org/name', threads: 2, onProgress: (p) => progress.push(p) });
    expect(native.loads).to.deep.equal([{ model: 'org/name', threads: 2 }]);
    expect(progress).to.deep.equal([{ stage: 'resolve' }]);
    expect(engine.info).to.include({ id: 'org/name', maxModelLen: 1024 });
    expect(engine.stats()).to.include({ running: 0 });
  });

  it('closes what it opened when the load fails', async () => {
    native = new ScriptedEngine({
      onLoad: () => {
        throw new EngineError('model_broken', 'not a model');
      },
    });
    expect((await rejection(openModelEngine(native, { model: 'x' }), EngineError)).code).to.equal('model_broken');
    expect(native.closed).to.equal(true);
  });

  it('can be aborted while it loads', async () => {
    native = new ScriptedEngine({
      onLoad: (_options, _tell, signal) => new Promise((resolve) => signal?.addEventListener('abort', () => resolve())),
    });
    const opening = openModelEngine(native, { model: 'x', signal: AbortSignal.timeout(1) });
    expect((await rejection(opening, EngineError)).code).to.equal('cancelled');
    expect(native.closed).to.equal(true);
  });

  it('streams parts, then gives the whole', async () => {
    const stream = (await open()).chat(HI);
    const parts: string[] = [];
    for await (const part of stream) parts.push(`${part.type}:${part.text}`);
    expect(parts).to.deep.equal(['content:Hello', 'content: there!']);
    const { timings, ...answer } = await stream;
    expect(answer).to.deep.equal({
      text: 'Hello there!',
      reasoning: '',
      toolCalls: [],
      finishReason: 'stop',
      usage: { promptTokens: 5, cachedTokens: 0, completionTokens: 2 },
    });
    expect(timings.decode).to.equal(0.1);
    expect(await stream.result()).to.deep.equal({ ...answer, timings });
  });

  it('can just be awaited', async () => {
    const opened = await open();
    expect((await opened.chat({ ...HI, maxTokens: 1 })).finishReason).to.equal('length');
    expect((await opened.complete({ prompt: 'x' })).text).to.equal('Hello there!');
    expect(native.requests).to.have.length(2);
  });

  it('runs nothing before it is read, and only once', async () => {
    const stream = (await open()).chat(HI);
    expect(native.requests).to.have.length(0);
    const [first, second] = await Promise.all([stream, stream.result()]);
    expect(first).to.equal(second);
    expect(native.requests).to.have.length(1);
    expect(() => stream[Symbol.asyncIterator]()).to.throw(EngineError, 'only once');
  });

  it('passes the fields on in the shape of the engine', async () => {
    const opened = await open();
    await opened.complete({
      prompt: [1, 2],
      temperature: 0.5,
      topK: 3,
      topP: 0.9,
      minP: 0.1,
      seed: 7,
      maxTokens: 1,
      stop: ['x'],
      ignoreEos: true,
      logprobs: 2,
    });
    await opened.complete({ prompt: 'x', addSpecialTokens: false });
    expect(native.requests).to.deep.equal([
      {
        model: 1,
        prompt: { ids: [1, 2] },
        sampling: { temperature: 0.5, topK: 3, topP: 0.9, minP: 0.1, seed: 7 },
        maxTokens: 1,
        stop: ['x'],
        ignoreEos: true,
        logprobs: 2,
      },
      { model: 1, prompt: { text: 'x', addSpecialTokens: false } },
    ]);
  });

  it('cancels when the loop is left early, and says so to whoever awaits', async () => {
    const stream = (await open({ script: () => say('a b c d e f g') })).chat(HI);
    for await (const part of stream) {
      expect(part.text).to.equal('a');
      break;
    }
    expect(native.cancelled).to.equal(1);
    expect((await rejection(stream.result(), EngineError)).code).to.equal('cancelled');
  });

  it('obeys an AbortSignal', async () => {
    const abort = new AbortController();
    const stream = (await open({ script: () => say('a b c d e f g') })).chat(HI, { signal: abort.signal });
    const read = async (): Promise<void> => {
      for await (const part of stream) abort.abort(part.text);
    };
    expect((await rejection(read(), EngineError)).code).to.equal('cancelled');
    expect(native.cancelled).to.equal(1);
    expect(
      (await rejection(engine!.complete({ prompt: 'x' }, { signal: abort.signal }).result(), EngineError)).code,
    ).to.equal('cancelled');
  });

  it('throws failures in the loop and from the result', async () => {
    const stream = (
      await open({
        script: () => {
          throw new EngineError('queue_full', 'busy');
        },
      })
    ).chat(HI);
    expect((await rejection(stream.result(), EngineError)).code).to.equal('queue_full');
    const again = engine!.chat({ messages: [] });
    expect((await rejection(again.result(), EngineError)).code).to.equal('invalid_request');
  });

  it('tokenizes, counts and renders', async () => {
    const opened = await open();
    expect(await opened.tokenize('ab')).to.deep.equal([97, 98]);
    expect(await opened.tokenize('ab', { addSpecialTokens: true })).to.deep.equal([1, 97, 98]);
    expect(await opened.detokenize([1, 97], { skipSpecialTokens: true })).to.equal('a');
    expect(await opened.countTokens('abc')).to.equal(3);
    const prompt = await opened.applyChatTemplate(HI);
    expect(prompt).to.equal('<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n');
    expect(await opened.countTokens(HI)).to.equal(prompt.length);
  });

  it('closes once, by hand or by await using', async () => {
    {
      await using scoped = await open();
      expect(scoped.info.id).to.equal('org/name');
    }
    expect(native.closed).to.equal(true);
    expect(native.unloaded).to.deep.equal([1]);
    await engine!.close();
    expect(native.unloaded).to.deep.equal([1]);
    expect((await rejection(engine!.chat(HI).result(), EngineError)).code).to.equal('closed');
  });

  it('lets a script end without close()', async () => {
    const script = fileURLToPath(new URL('./helpers/chat-and-end.ts', import.meta.url));
    const { stdout } = await promisify(execFile)(process.execPath, ['--import', 'tsx', script], { timeout: 20_000 });
    expect(stdout).to.equal('Hello there!\n');
  });
});

describe('app: the package entry', () => {
  it('exports these names and no others', async () => {
    const entry = await import('../ts/index.js');
    expect(Object.keys(entry).sort()).to.deep.equal([
      'EngineError',
      'createEngine',
      'createMcp',
      'createRouter',
      'createServer',
      'openResponseStore',
      'toSrt',
      'toVtt',
    ]);
  });

  it('serves an engine over HTTP', async () => {
    const { createServer, createRouter } = await import('../ts/index.js');
    await using engine = await openModelEngine(new ScriptedEngine(), { model: 'org/name' });
    expect(createRouter(engine)).to.be.a('function');
    const server = createServer(engine);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    try {
      const { port } = server.address() as { port: number };
      const response = await fetch(`http://127.0.0.1:${port}/v1/chat/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(HI),
      });
      const body = (await response.json()) as { choices: { message: { content: string } }[] };
      expect(body.choices[0]!.message.content).to.equal('Hello there!');
    } finally {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  });

  it('has examples that import only what it exports', async () => {
    const folder = new URL('../examples/', import.meta.url);
    const { readFile } = await import('node:fs/promises');
    const names = new Set(Object.keys(await import('../ts/index.js')));
    for (const file of readdirSync(folder).filter((name) => name.endsWith('.mjs'))) {
      const imports =
        /import \{([^}]*)\} from 'tsserve'/.exec(await readFile(new URL(file, folder), 'utf8'))?.[1] ?? '';
      for (const name of imports
        .split(',')
        .map((part) => part.trim())
        .filter(Boolean))
        expect(names.has(name), `${file}: ${name}`).to.equal(true);
    }
  });
});
