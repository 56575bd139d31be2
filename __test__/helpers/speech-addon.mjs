/**
 * Plays the native addon, for speech: what is heard follows from the recording's file name. Loaded by the generated loader
 * where NAPI_RS_NATIVE_LIBRARY_PATH names it. What it was asked goes to standard error, where SPEECH_ADDON_LOG is set.
 */

const MODEL = {
  handle: 7,
  id: 'whisper-tiny',
  kind: 'speech',
  languages: ['en', 'de'],
  family: 'whisper',
  weightFormat: 'F16 (safetensors)',
  parameters: 39_000_000,
  weightBytes: 78_000_000,
  bytesPerToken: 0,
  vocabSize: 51_865,
  contextLength: 448,
  maxModelLen: 448,
  maxNumSeqs: 1,
  maxBatchTokens: 0,
  kvBytes: 0,
  kvBlocks: 0,
  blockSize: 0,
  device: 'cpu',
  dtype: 'f32',
  cpuLevel: 'scalar',
  threads: 1,
  loadSeconds: 0.1,
  warnings: [],
  chatTemplates: [],
  specialTokens: {},
  endTokenIds: [],
};

const PACE_MS = 20;

function segment(id, text) {
  const [start, end] = [id * 2, id * 2 + 2];
  const scores = { temperature: 0, avgLogprob: -0.2, compressionRatio: 1, noSpeechProb: 0 };
  return { type: 'segment', segment: { id, seek: start * 100, start, end, text, tokens: [1], ...scores } };
}

export class NativeEngine {
  #onEvents;
  #running = new Set();

  constructor(onEvents) {
    this.#onEvents = onEvents;
  }

  async load(_token, options) {
    log('load', options);
    if (options.model.includes('missing')) {
      return { code: 'model_not_found', message: `there is no model '${options.model}'`, param: 'model' };
    }
    return options.model.includes('text') ? { ...MODEL, kind: 'text', id: 'text' } : MODEL;
  }

  async transcribe(id, model, request) {
    log('transcribe', { id, model, ...request, ...(request.bytes && { bytes: request.bytes.length }) });
    const path = request.path ?? '';
    if (path.includes('noise')) return { code: 'invalid_audio', message: 'no decoder knows this', param: 'audio' };
    this.#running.add(id);
    const send = (...events) => this.#onEvents(events.map((event) => ({ id, ...event })));
    void (async () => {
      await pause();
      send({ type: 'audio_started', duration: 4 }, { type: 'language', code: 'en', name: 'english', probability: 0.9 });
      for (let n = 0; path.includes('endless') || n < 2; n++) {
        await pause();
        if (!this.#running.has(id)) return;
        if (n === 1 && path.includes('breaks')) {
          send({ type: 'failed', code: 'invalid_audio', message: 'it breaks off at 0:02' });
          return;
        }
        send(segment(n, ` Part ${n}.`), { type: 'audio_progress', seconds: (n + 1) * 2 });
      }
      send({ type: 'transcribed', audioTokens: 200, textTokens: 6 });
    })();
    return undefined;
  }

  /** Comes together with another request's events. */
  async generate(id) {
    await pause();
    this.#onEvents([
      { id, type: 'started', promptTokens: 1 },
      { id: id - 1, type: 'audio_progress', seconds: 1 },
      { id, type: 'delta', pieces: [{ text: 'hi' }], nTokens: 1 },
      { id, type: 'finished', reason: 'stop' },
    ]);
    return undefined;
  }

  cancel(id) {
    log('cancel', id);
    this.#running.delete(id);
  }

  cancelLoad() {}
  grant() {}
  stats() {
    return null;
  }

  async unload() {
    return undefined;
  }

  async listCached() {
    return [];
  }

  async close() {
    this.#running.clear();
    return undefined;
  }
}

function pause() {
  return new Promise((resolve) => setTimeout(resolve, PACE_MS));
}

function log(call, what) {
  if (process.env.SPEECH_ADDON_LOG) process.stderr.write(`${call} ${JSON.stringify(what)}\n`);
}
