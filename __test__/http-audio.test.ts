import { expect } from 'chai';

import type { TranscriptionEvent } from '../ts/engine/speech.js';
import { EngineError } from '../ts/engine/types.js';
import { Drain } from '../ts/http/drain.js';
import { BOUNDARY, fieldParts, formBody, RECORDING } from './helpers/form.js';
import { content, english, finished, heard, said, started, transcribed } from './helpers/scripted-events.js';
import { type Answer, dataOf, parseEvents, ScriptedApp } from './helpers/scripted-app.js';
import { Gate, type ScriptedModelOptions, type Step } from './helpers/scripted-registry.js';

const PATH = '/v1/audio/transcriptions';
const SPEECH = 'org/speech';
const TEXT = 'org/text';

function speech(...steps: readonly Step<TranscriptionEvent>[]): ScriptedModelOptions {
  return { id: SPEECH, transcribe: () => steps };
}

const HELLO = speech(
  heard,
  english,
  said(0, ' Hello there.'),
  { type: 'progress', seconds: 2 },
  said(1, ' Bye!'),
  transcribed,
);
const CHATS: ScriptedModelOptions = {
  id: TEXT,
  chat: () => [started, content('a'), finished()],
  generate: () => [started, finished()],
};

function eventsOf(answer: Answer): any[] {
  return dataOf(parseEvents([Buffer.from(answer.text)]));
}

describe('POST /v1/audio/transcriptions', () => {
  it('transcribes what was uploaded, with what was asked for', async () => {
    await using app = await ScriptedApp.start([HELLO], { pinned: SPEECH });
    const answer = await app.form(PATH, { model: SPEECH, language: 'en', temperature: '0.2' });
    expect([answer.status, answer.json]).to.deep.equal([
      200,
      { text: 'Hello there. Bye!', languages: [{ code: 'en' }], usage: { type: 'duration', seconds: 4 } },
    ]);
    const model = app.registry.first;
    expect(model.transcribeRequests).to.deep.equal([
      {
        model: 1,
        audio: { bytes: Buffer.from(RECORDING.value), name: 'talk.wav' },
        task: 'transcribe',
        language: 'en',
        temperature: 0.2,
      },
    ]);
    expect(model.held).to.equal(0);
    // With one model that is served it need not be named.
    expect((await app.form(PATH)).status).to.equal(200);
    expect(app.log[0]).to.match(/^info POST \/v1\/audio\/transcriptions 200 \d+ ms 4\.0 s audio /);
  });

  const formats: readonly (readonly [string, string, RegExp])[] = [
    ['text', 'text/plain; charset=utf-8', /^Hello there\. Bye!\n$/],
    ['srt', 'text/plain; charset=utf-8', /^1\n00:00:00,000 --> 00:00:02,000\nHello there\.\n\n2\n/],
    ['vtt', 'text/vtt; charset=utf-8', /^WEBVTT\n\n00:00:00\.000 --> 00:00:02\.000\nHello there\.\n\n/],
    ['verbose_json', 'application/json', /^\{"task":"transcribe","language":"english","duration":4,/],
  ];
  for (const [format, type, text] of formats) {
    it(`answers in ${format}`, async () => {
      await using app = await ScriptedApp.start([HELLO]);
      const answer = await app.form(PATH, { model: SPEECH, response_format: format });
      expect([answer.status, answer.headers['content-type']]).to.deep.equal([200, type]);
      expect(answer.text).to.match(text);
    });
  }

  it('streams', async () => {
    await using app = await ScriptedApp.start([HELLO]);
    const answer = await app.form(PATH, { model: SPEECH, stream: 'true', 'include[]': 'logprobs' });
    expect(answer.headers['content-type']).to.equal('text/event-stream; charset=utf-8');
    const [first, second, done, end, ...rest] = eventsOf(answer);
    expect([first.delta, second.delta, done.text]).to.deep.equal(['Hello there.', ' Bye!', 'Hello there. Bye!']);
    expect([first.logprobs.length, done.logprobs.length]).to.deep.equal([2, 3]);
    expect([end, rest]).to.deep.equal(['[DONE]', []]);
    expect(app.registry.first.transcribeRequests[0]).to.include({ logprobs: true });
  });

  it('answers whole where a format is no stream, and logs that once', async () => {
    await using app = await ScriptedApp.start([HELLO]);
    for (let i = 0; i < 2; i++) {
      const answer = await app.form(PATH, { model: SPEECH, stream: 'true', response_format: 'srt' });
      expect(answer.headers['content-type']).to.equal('text/plain; charset=utf-8');
    }
    expect(app.log.filter((line) => line.includes('"stream with srt" has no effect'))).to.have.length(1);
  });

  it('shows that it is alive while it waits, loads and listens', async () => {
    const [load, listen] = [new Gate(), new Gate()];
    await using app = await ScriptedApp.start(
      [{ ...speech(heard, { wait: listen.opened }, english, said(0, ' a'), transcribed), load: load.opened }],
      { limits: { keepAliveMs: 5 } },
    );
    const answer = app.form(PATH, { model: SPEECH, stream: 'true' });
    await app.registry.until(() => app.registry.asked.length === 1);
    load.open();
    await app.registry.until(() => app.registry.first.running === 1);
    await new Promise((resolve) => setTimeout(resolve, 30));
    listen.open();
    const { text } = await answer;
    expect(text)
      .to.match(/^: keep-alive\n\n/)
      .and.match(/data: \[DONE\]\n\n$/);
  });

  it('takes fields before and after the file, and any order of headers', async () => {
    await using app = await ScriptedApp.start([HELLO]);
    const model = { name: 'model', value: SPEECH };
    const format = { name: 'response_format', value: 'text' };
    for (const parts of [
      [model, format, RECORDING],
      [RECORDING, model, format],
      [model, RECORDING, format, { name: 'stream', value: 'false' }],
      [model, format, { ...RECORDING, type: 'application/octet-stream' }],
      [model, format, { name: 'file', filename: 'a.wav', value: 'x' }],
      [{ value: 'nameless' }, model, format, RECORDING],
    ]) {
      const answer = await app.form(PATH, {}, parts);
      expect(answer.text).to.equal('Hello there. Bye!\n');
    }
    const body = [
      'a preamble',
      `--${BOUNDARY}`,
      'content-type: audio/wav',
      'CONTENT-DISPOSITION:form-data;filename="ü \\"x\\".wav"; name=file',
      '',
      'bytes',
      `--${BOUNDARY}`,
      'Content-Disposition: form-data; name="model"',
      '',
      SPEECH,
      `--${BOUNDARY}--`,
      'an epilogue',
    ].join('\r\n');
    const headers = { 'content-type': `Multipart/Form-Data; charset=utf-8; boundary="${BOUNDARY}"` };
    expect((await app.call({ method: 'POST', path: PATH, headers, body })).status).to.equal(200);
    expect(app.registry.first.transcribeRequests.at(-1)?.audio).to.deep.equal({
      bytes: Buffer.from('bytes'),
      name: 'ü "x".wav',
    });
  });

  const refused: readonly (readonly [string, object, number, string, string | null])[] = [
    ['a field that is wrong', { temperature: '2' }, 400, 'invalid_value', 'temperature'],
    ['a format for speakers', { response_format: 'diarized_json' }, 400, 'unsupported_value', 'response_format'],
    ['a model that is not there', { model: 'org/none' }, 404, 'model_not_found', 'model'],
    ['a language model', { model: TEXT }, 400, 'unsupported_value', 'model'],
    ['no model', { model: '' }, 400, 'missing_required_parameter', 'model'],
  ];
  for (const [what, fields, status, code, param] of refused) {
    it(`refuses ${what}`, async () => {
      await using app = await ScriptedApp.start([HELLO, CHATS]);
      const answer = await app.form(PATH, { model: SPEECH, ...fields });
      expect([answer.status, answer.json.error.code, answer.json.error.param]).to.deep.equal([status, code, param]);
      expect(app.registry.models.map(({ held }) => held)).to.deep.equal([0, 0]);
    });
  }

  it('refuses unknown fields if it is strict', async () => {
    await using app = await ScriptedApp.start([HELLO], { strict: true });
    const answer = await app.form(PATH, { model: SPEECH, top_k: '3' });
    expect([answer.status, answer.json.error.param]).to.deep.equal([400, 'top_k']);
  });

  it('tells failures of the engine in the names of the wire', async () => {
    const failures: readonly (readonly [EngineError, number, string, string | null])[] = [
      [new EngineError('invalid_audio', 'no decoder knows this'), 400, 'invalid_audio', 'file'],
      [new EngineError('invalid_request', 'no such language', 'language'), 400, 'invalid_value', 'language'],
      [new EngineError('invalid_request', 'it does not translate', 'task'), 400, 'invalid_value', 'task'],
      [
        new EngineError('invalid_request', 'no heads', 'wordTimestamps'),
        400,
        'invalid_value',
        'timestamp_granularities',
      ],
      [new EngineError('invalid_request', 'odd', 'chunking'), 400, 'invalid_value', 'chunking_strategy'],
      [new EngineError('queue_full', 'too many'), 429, 'rate_limit_exceeded', null],
      [new EngineError('internal', 'it fell'), 500, 'internal_error', null],
    ];
    for (const [fail, status, code, param] of failures) {
      await using app = await ScriptedApp.start([speech({ fail })]);
      for (const stream of ['false', 'true']) {
        const { status: got, json } = await app.form(PATH, { model: SPEECH, stream });
        expect([got, json.error.code, json.error.param], code).to.deep.equal([status, code, param]);
        if (code !== 'internal_error') expect(json.error.message).to.equal(fail.message);
      }
    }
  });

  it('ends a stream that fails on its way with an error', async () => {
    await using app = await ScriptedApp.start([
      speech(heard, english, said(0, ' a'), { fail: new EngineError('invalid_audio', 'it breaks off at 0:02') }),
    ]);
    const events = eventsOf(await app.form(PATH, { model: SPEECH, stream: 'true' }));
    expect(events.map(({ type, error }) => type ?? error.code)).to.deep.equal([
      'transcript.text.delta',
      'invalid_audio',
    ]);
    expect((await app.form(PATH, { model: SPEECH })).json.error.message).to.equal('it breaks off at 0:02');
  });

  it('is named where the base URL is wrong', async () => {
    await using app = await ScriptedApp.start([HELLO]);
    const { status, json } = await app.form('/audio/transcriptions');
    expect([status, json.error.code]).to.deep.equal([404, 'unknown_url']);
    expect(json.error.message).to.include('the path is /v1/audio/transcriptions');
    expect((await app.call({ method: 'POST', path: '/v1/audio/speech' })).status).to.equal(404);
    expect((await app.call({ path: PATH })).status).to.equal(405);
  });

  it('logs prompts only if it is told to', async () => {
    for (const logPrompts of [false, true]) {
      await using app = await ScriptedApp.start([HELLO], { logPrompts });
      await app.form(PATH, { model: SPEECH, prompt: 'secret' });
      expect(app.log.some((line) => line.includes('secret'))).to.equal(logPrompts);
    }
  });

  it('is counted: seconds of recordings, tokens', async () => {
    await using app = await ScriptedApp.start([
      HELLO,
      {
        id: 'org/breaks',
        transcribe: () => [heard, { type: 'progress', seconds: 3 }, { fail: new EngineError('internal', 'x') }],
      },
    ]);
    await app.form(PATH, { model: SPEECH });
    await app.form(PATH, { model: 'org/breaks' });
    const { text } = await app.call({ path: '/metrics' });
    for (const line of [
      'tsserve_audio_seconds_total{model="org/speech"} 4',
      'tsserve_audio_seconds_total{model="org/breaks"} 3',
      'tsserve_completion_tokens_total{model="org/speech"} 6',
      'tsserve_transcriptions_running 0',
      'tsserve_transcriptions_waiting 0',
    ]) {
      expect(text).to.include(`\n${line}\n`);
    }
  });
});

describe('POST /v1/audio/translations', () => {
  it('translates, in every format', async () => {
    await using app = await ScriptedApp.start([HELLO]);
    const path = '/v1/audio/translations';
    const answer = await app.form(path, { model: SPEECH, language: 'de' });
    expect(answer.json).to.deep.equal({ text: 'Hello there. Bye!' });
    expect(app.registry.first.transcribeRequests[0]).to.include({ task: 'translate', language: 'de' });
    const { json } = await app.form(path, { model: SPEECH, response_format: 'verbose_json' });
    expect(json).to.include({ task: 'translate', language: 'english' });
    expect((await app.form(path, { model: SPEECH, response_format: 'vtt' })).text).to.match(/^WEBVTT\n/);
    const events = eventsOf(await app.form(path, { model: SPEECH, stream: 'true' }));
    expect(events.at(-2).text).to.equal('Hello there. Bye!');
  });
});

describe('models of the other kind', () => {
  it('are refused by name, and released', async () => {
    await using app = await ScriptedApp.start([HELLO]);
    const asks: readonly (readonly [string, object])[] = [
      ['/v1/chat/completions', { messages: [{ role: 'user', content: 'hi' }] }],
      ['/v1/completions', { prompt: 'hi' }],
      ['/v1/responses', { input: 'hi' }],
      ['/v1/responses/input_tokens', { input: 'hi' }],
    ];
    for (const [path, body] of asks) {
      const { status, json } = await app.post(path, { model: SPEECH, ...body });
      expect([status, json.error.param, json.error.code], path).to.deep.equal([400, 'model', 'unsupported_value']);
      expect(json.error.message, path).to.include("'org/speech' is a speech model");
    }
    expect(app.registry.first.held).to.equal(0);
    // To load it is no question of what it answers.
    expect((await app.stream('/load_model', { model: SPEECH })).at(-1)).to.include({ status: 'ready' });
  });
});

describe('many transcriptions', () => {
  const form = (): { headers: Readonly<Record<string, string>>; body: Buffer } =>
    formBody([RECORDING, ...fieldParts({ model: SPEECH })]);

  it('take turns, and are refused beyond a bound', async () => {
    const gate = new Gate();
    await using app = await ScriptedApp.start(
      [speech(heard, { wait: gate.opened }, english, said(0, ' a'), transcribed)],
      {
        limits: { maxTranscriptions: 2, maxWaitingTranscriptions: 1 },
      },
    );
    const model = app.registry.first;
    const answers = [app.form(PATH, { model: SPEECH }), app.form(PATH, { model: SPEECH })];
    await app.registry.until(() => model.running === 2);
    answers.push(app.form(PATH, { model: SPEECH }));
    const metric = async (name: string): Promise<string> =>
      new RegExp(`^tsserve_transcriptions_${name} (\\d+)$`, 'm').exec((await app.call({ path: '/metrics' })).text)![1]!;
    while ((await metric('waiting')) !== '1') continue;
    expect(await metric('running')).to.equal('2');
    const refused = await app.form(PATH, { model: SPEECH });
    expect([refused.status, refused.headers['retry-after']]).to.deep.equal([429, '1']);
    expect(refused.json.error).to.include({
      type: 'rate_limit_error',
      message: '3 transcriptions run or wait already: try again later',
    });
    gate.open();
    expect((await Promise.all(answers)).map(({ status }) => status)).to.deep.equal([200, 200, 200]);
    expect(model.mostRunning).to.equal(2);
    expect((await app.form(PATH, { model: SPEECH })).status).to.equal(200);
  });

  it('do not keep the turn of one that has left', async () => {
    const gate = new Gate();
    await using app = await ScriptedApp.start([speech(heard, { wait: gate.opened }, transcribed)], {
      limits: { maxTranscriptions: 1, maxWaitingTranscriptions: 2 },
    });
    const model = app.registry.first;
    const first = app.form(PATH, { model: SPEECH });
    await app.registry.until(() => model.running === 1);
    const leave = new AbortController();
    const { headers, body } = form();
    const leaving = fetch(`${app.url}${PATH}`, { method: 'POST', headers, body, signal: leave.signal }).catch(
      () => 'left',
    );
    const metrics = async (): Promise<string> => (await app.call({ path: '/metrics' })).text;
    while (!(await metrics()).includes('\ntsserve_transcriptions_waiting 1\n')) continue;
    leave.abort();
    expect(await leaving).to.equal('left');
    while (!(await metrics()).includes('\ntsserve_transcriptions_waiting 0\n')) continue;
    const last = app.form(PATH, { model: SPEECH });
    gate.open();
    expect([(await first).status, (await last).status]).to.deep.equal([200, 200]);
    expect(model.transcribeRequests).to.have.length(2);
  });

  it('are finished at an orderly end', async () => {
    const gate = new Gate();
    const drain = new Drain();
    await using app = await ScriptedApp.start(
      [speech(heard, { wait: gate.opened }, english, said(0, ' a'), transcribed)],
      {
        drain,
      },
    );
    const answer = app.form(PATH, { model: SPEECH });
    await app.registry.until(() => app.registry.first.running === 1);
    const ended = drain.begin(60_000);
    expect((await app.form(PATH, { model: SPEECH })).status).to.equal(503);
    gate.open();
    expect([(await answer).status, await ended]).to.deep.equal([200, 0]);
  });
});
