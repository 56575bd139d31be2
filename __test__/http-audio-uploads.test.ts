/** What becomes of uploads: bounds, broken forms, clients that leave, files that must not stay. */

import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { request as httpRequest, type ClientRequest } from 'node:http';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createHash } from 'node:crypto';
import { spawnSync } from 'node:child_process';

import { expect } from 'chai';

import type { TranscriptionEvent, TranscriptionRequest } from '../ts/engine/speech.js';
import { EngineError } from '../ts/engine/types.js';
import { sweepUploads, Upload } from '../ts/http/uploads.js';
import { BOUNDARY, fieldParts, formBody, RECORDING } from './helpers/form.js';
import { rejection } from './helpers/rejection.js';
import { english, heard, said, transcribed } from './helpers/scripted-events.js';
import { ScriptedApp } from './helpers/scripted-app.js';
import { Gate, type ScriptedModelOptions, type Step } from './helpers/scripted-registry.js';

const PATH = '/v1/audio/transcriptions';
const SPEECH = 'org/speech';
const MIB = 1024 * 1024;
/** Too large to stay in memory. */
const LARGE = { ...RECORDING, value: Buffer.alloc(3 * MIB, 'abc') };
const MODEL = { name: 'model', value: SPEECH };

function speech(...steps: readonly Step<TranscriptionEvent>[]): ScriptedModelOptions {
  return { id: SPEECH, transcribe: () => steps };
}

const HELLO = speech(heard, english, said(0, ' Hello.'), transcribed);

describe('uploads', () => {
  let folder: string;
  let before: string | undefined;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tsserve-test-'));
    before = process.env['TMPDIR'];
    process.env['TMPDIR'] = folder;
  });
  afterEach(async () => {
    if (before === undefined) delete process.env['TMPDIR'];
    else process.env['TMPDIR'] = before;
    await rm(folder, { recursive: true });
  });

  const left = (): Promise<string[]> => readdir(folder);

  /** What the connection does is seen here a little later. */
  async function leftNothing(): Promise<void> {
    while ((await left()).length > 0) await new Promise((resolve) => setImmediate(resolve));
  }

  it('that are small stay in memory', async () => {
    await using app = await ScriptedApp.start([HELLO]);
    const value = Buffer.alloc(MIB, 1);
    const answer = await app.form(PATH, {}, [MODEL, { ...RECORDING, value }]);
    expect(answer.status).to.equal(200);
    const { audio } = app.registry.first.transcribeRequests[0]!;
    expect('bytes' in audio && value.equals(audio.bytes)).to.equal(true);
    expect(await left()).to.deep.equal([]);
  });

  it('that are large are a private file while they are needed, whole, with their extension', async () => {
    const seen: { readonly path: string; readonly modes: readonly number[]; readonly same: boolean }[] = [];
    const gate = new Gate();
    await using app = await ScriptedApp.start([
      {
        id: SPEECH,
        transcribe: ({ audio }: TranscriptionRequest) => {
          const look = async (): Promise<void> => {
            const path = 'path' in audio ? audio.path : '';
            const modes = [(await stat(join(path, '..'))).mode & 0o777, (await stat(path)).mode & 0o777];
            seen.push({ path, modes, same: LARGE.value.equals(await readFile(path)) });
            gate.open();
          };
          void look();
          return [heard, { wait: gate.opened }, english, said(0, ' Hello.'), transcribed];
        },
      },
    ]);
    const answer = await app.form(PATH, {}, [{ ...LARGE, filename: '../../Talk.WAV' }, MODEL]);
    expect(answer.status).to.equal(200);
    const [{ path, modes, same }] = seen as [(typeof seen)[number]];
    expect(path.startsWith(join(folder, 'tsserve-upload-'))).to.equal(true);
    expect(path.endsWith('/recording.wav')).to.equal(true);
    expect([modes, same]).to.deep.equal([[0o700, 0o600], true]);
    await leftNothing();
  });

  it('take nothing odd from a file name', async () => {
    for (const [name, extension] of [
      ['a.mp3;rm', ''],
      ['a.b/c', ''],
      ['.wav', ''],
      ['a.tar.gz', '.gz'],
      ['a.\u0000x', ''],
    ] as const) {
      await using upload = new Upload(name);
      await upload.save(chunks(LARGE.value));
      expect('path' in upload.audio && upload.audio.path.endsWith(`/recording${extension}`), name).to.equal(true);
    }
    expect(await left()).to.deep.equal([]);
  });

  it('are deleted whatever comes of them', async () => {
    const cases: readonly (readonly [ScriptedModelOptions, readonly object[], number])[] = [
      [HELLO, [LARGE, MODEL], 200],
      [speech({ fail: new EngineError('invalid_audio', 'noise') }), [LARGE, MODEL], 400],
      [speech({ fail: new EngineError('internal', 'x') }), [LARGE, MODEL], 500],
      [HELLO, [LARGE, MODEL, { name: 'temperature', value: 'hot' }], 400],
      [HELLO, [LARGE, { name: 'model', value: 'org/none' }], 404],
      [HELLO, [LARGE, MODEL, LARGE], 400],
    ];
    for (const [model, parts, status] of cases) {
      await using app = await ScriptedApp.start([model]);
      expect((await app.form(PATH, {}, parts as (typeof RECORDING)[])).status).to.equal(status);
      await leftNothing();
    }
  });

  it('are too large beyond a bound, told or not', async () => {
    await using app = await ScriptedApp.start([HELLO], { limits: { maxUploadBytes: MIB } });
    const { headers, body } = formBody([MODEL, { ...RECORDING, value: Buffer.alloc(MIB + 1) }]);
    const expected = [413, 'request_too_large', 'file', 'the recording is larger than 1048576 bytes'];
    const check = ({ status, json: { error } }: Awaited<ReturnType<ScriptedApp['call']>>): void => {
      expect([status, error.code, error.param, error.message]).to.deep.equal(expected);
    };
    check(await app.call({ method: 'POST', path: PATH, headers, body }));
    // Far beyond it: before a byte was read.
    const huge = formBody([MODEL, { ...RECORDING, value: Buffer.alloc(80 * MIB) }]);
    check(
      await app.call({
        method: 'POST',
        path: PATH,
        headers: { ...headers, 'content-length': String(huge.body.length) },
        body: huge.body,
      }),
    );
    // Without saying how much comes.
    const response = await fetch(`${app.url}${PATH}`, {
      method: 'POST',
      headers,
      body: (async function* () {
        yield body;
      })(),
      duplex: 'half',
    });
    expect(response.status).to.equal(413);
    expect((await app.form(PATH, {}, [MODEL, { ...RECORDING, value: Buffer.alloc(MIB) }])).status).to.equal(200);
    await leftNothing();
  });

  it('have bounds for fields, too', async () => {
    await using app = await ScriptedApp.start([HELLO], { limits: { maxFieldBytes: 100, maxFormFields: 3 } });
    const ask = async (...fields: readonly (readonly [string, string])[]): Promise<readonly unknown[]> => {
      const parts = [RECORDING, MODEL, ...fields.map(([name, value]) => ({ name, value }))];
      const { status, json } = await app.form(PATH, {}, parts);
      return [status, json.error?.code, json.error?.param ?? json.error?.message];
    };
    expect(await ask(['prompt', 'x'.repeat(100)])).to.deep.equal([200, undefined, undefined]);
    expect(await ask(['prompt', 'x'.repeat(101)])).to.deep.equal([400, 'invalid_value', 'prompt']);
    expect(await ask(['a', '1'], ['b', '1'])).to.deep.equal([200, undefined, undefined]);
    expect(await ask(['a', '1'], ['b', '1'], ['c', '1'])).to.deep.equal([
      400,
      'invalid_form',
      'the multipart form cannot be read: it has more than 3 fields',
    ]);
    const long = { name: `x${'y'.repeat(5000)}`, value: 'z'.repeat(200) };
    expect((await app.form(PATH, {}, [RECORDING, MODEL, long])).json.error.param.length).to.be.lessThan(101);
  });

  const whole = formBody([LARGE, MODEL]).body;
  const broken: readonly (readonly [string, Buffer])[] = [
    ['nothing', Buffer.alloc(0)],
    ['no form', Buffer.from('hello')],
    ['a form that ends in the file', whole.subarray(0, 2 * MIB)],
    ['a form that ends in a field', whole.subarray(0, whole.length - BOUNDARY.length - 10)],
    ['a form without its last boundary', whole.subarray(0, whole.length - BOUNDARY.length - 6)],
  ];
  for (const [what, body] of broken) {
    it(`are refused if they are ${what}`, async () => {
      await using app = await ScriptedApp.start([HELLO]);
      const { status, json } = await app.call({ method: 'POST', path: PATH, headers: formBody([]).headers, body });
      expect([status, json.error.code, json.error.param]).to.deep.equal([400, 'invalid_form', null]);
      expect(json.error.message).to.equal(
        'the multipart form cannot be read: it ends before its closing boundary, or is no multipart form at all',
      );
      expect(app.registry.asked).to.deep.equal([]);
      await leftNothing();
    });
  }

  it('are refused if they are no form', async () => {
    await using app = await ScriptedApp.start([HELLO]);
    const { body } = formBody([RECORDING, MODEL]);
    const ask = async (headers: Record<string, string>): Promise<readonly unknown[]> => {
      const { status, json } = await app.call({ method: 'POST', path: PATH, headers, body });
      return [status, json.error.code, json.error.message];
    };
    const [status, code, message] = await ask({ 'content-type': 'application/json' });
    expect([status, code]).to.deep.equal([415, 'unsupported_media_type']);
    expect(message).to.equal(
      `the content type must be multipart/form-data with the recording in its field 'file', got "application/json"`,
    );
    expect((await ask({}))[0]).to.equal(415);
    expect(await ask({ 'content-type': 'multipart/form-data' })).to.deep.equal([
      400,
      'invalid_form',
      'the multipart form cannot be read: its content type has no boundary',
    ]);
    expect((await ask({ ...formBody([]).headers, 'content-encoding': 'gzip' }))[0]).to.equal(415);
  });

  it('say what is wrong with their file', async () => {
    await using app = await ScriptedApp.start([HELLO]);
    const cases: readonly (readonly [readonly object[], RegExp])[] = [
      [[MODEL], /^missing required parameter 'file': the recording, as a part/],
      [[MODEL, { ...RECORDING, name: 'audio' }], /^missing required parameter 'file'/],
      [[MODEL, { name: 'file', value: 'talk.wav' }], /must be sent as a file with a name \(curl: -F file=@NAME\)$/],
      [[MODEL, { ...RECORDING, filename: '', value: '' }], /has no file name/],
      [[MODEL, { ...RECORDING, value: '' }], /must not be empty$/],
      [[MODEL, RECORDING, RECORDING], /is given twice/],
    ];
    for (const [parts, message] of cases) {
      const { status, json } = await app.form(PATH, {}, parts as (typeof RECORDING)[]);
      expect([status, json.error.param]).to.deep.equal([400, 'file']);
      expect(json.error.message).to.match(message);
    }
    // Other files are not wanted, and do no harm.
    const answer = await app.form(PATH, {}, [{ ...RECORDING, name: 'audio' }, RECORDING, MODEL]);
    expect(answer.status).to.equal(200);
    expect(app.log.some((line) => line.includes('"audio" has no effect'))).to.equal(true);
  });

  /** A form whose end does not come. */
  function beginUpload(app: ScriptedApp, bytes: Buffer): ClientRequest {
    const headers = { ...formBody([]).headers, 'content-length': String(whole.length) };
    const req = httpRequest({ host: '127.0.0.1', port: app.port, method: 'POST', path: PATH, headers, agent: false });
    req.on('error', () => undefined);
    req.write(bytes);
    return req;
  }

  it('whose client leaves in the middle are deleted', async () => {
    await using app = await ScriptedApp.start([HELLO]);
    const req = beginUpload(app, whole.subarray(0, 2 * MIB));
    while ((await left()).length === 0) await new Promise((resolve) => setImmediate(resolve));
    req.destroy();
    await leftNothing();
    expect(app.registry.asked).to.deep.equal([]);
    let metrics = '';
    while (!metrics.includes('\ntsserve_transcriptions_waiting 0\n')) {
      metrics = (await app.call({ path: '/metrics' })).text;
    }
    expect(metrics).to.match(/tsserve_requests_total\{method="POST",route="\/v1\/audio\/transcriptions",status="499"/);
  });

  for (const stream of ['false', 'true']) {
    it(`whose client leaves while it is transcribed are deleted, and nothing goes on (stream: ${stream})`, async () => {
      const never = new Gate();
      await using app = await ScriptedApp.start([speech(heard, english, said(0, ' a'), { wait: never.opened })]);
      const { headers, body } = formBody([LARGE, MODEL, ...fieldParts({ stream })]);
      const model = app.registry.first;
      const req = httpRequest({ host: '127.0.0.1', port: app.port, method: 'POST', path: PATH, headers, agent: false });
      req.on('error', () => undefined);
      req.end(body);
      await app.registry.until(() => model.played === 3);
      expect(await left()).to.have.length(1);
      req.destroy();
      await app.registry.until(() => model.running === 0 && model.held === 0);
      expect(model.cancelled).to.equal(1);
      await leftNothing();
    });
  }

  it('answer a client that is refused before it has sent all', async () => {
    await using app = await ScriptedApp.start([HELLO], { limits: { maxUploadBytes: MIB } });
    const req = beginUpload(app, whole.subarray(0, 2 * MIB));
    const [res] = (await once(req, 'response')) as [{ statusCode: number; resume(): void }];
    expect(res.statusCode).to.equal(413);
    req.destroy();
  });

  it('that a killed process left behind are swept, and those of the living are not', async () => {
    const dead = spawnSync(process.execPath, ['-e', '']).pid;
    const tag = createHash('sha256').update(hostname()).digest('hex').slice(0, 8);
    const stale = `tsserve-upload-${tag}-${dead}-abc`;
    const others = [
      `tsserve-upload-${tag}-${process.ppid}-abc`,
      `tsserve-upload-00000000-${dead}-abc`,
      'something-else',
    ];
    for (const name of [stale, ...others]) await mkdir(join(folder, name));
    await sweepUploads(folder);
    expect((await left()).sort()).to.deep.equal([...others].sort());
  });

  it('say that the disk is full', async () => {
    const full = Object.assign(new Error('write'), { code: 'ENOSPC' });
    await using upload = new Upload('a.wav');
    const content = (async function* () {
      yield Buffer.alloc(2 * MIB);
      throw full;
    })();
    const error = await rejection(upload.save(content), EngineError);
    expect([error.code, error.message]).to.deep.equal(['disk_full', `the upload does not fit into ${folder}`]);
  });
});

async function* chunks(bytes: Buffer): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += 65_536) yield bytes.subarray(at, at + 65_536);
}
