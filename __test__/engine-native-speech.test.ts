/** The native engine's side of transcriptions, and the command line on it, over an addon that plays its part. */

import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { expect } from 'chai';

import { finished, runCli, spawnCli } from './helpers/cli.js';

const addon = fileURLToPath(new URL('helpers/speech-addon.mjs', import.meta.url));
const env = { NAPI_RS_NATIVE_LIBRARY_PATH: addon };

describe('engine: transcriptions over the border', function () {
  this.timeout(60_000);

  it('are told apart from other requests, fail by value or by event, and stop when they are left', async () => {
    const script = fileURLToPath(new URL('helpers/speech-native.ts', import.meta.url));
    const { stdout, stderr } = await promisify(execFile)(process.execPath, ['--import=tsx', script], {
      env: { ...process.env, ...env, SPEECH_ADDON_LOG: '1' },
    });
    const result = JSON.parse(stdout);
    expect(result).to.deep.include({ kind: 'speech', languages: ['en', 'de'] });
    const whole = ['started', 'language', 'segment', 'progress', 'segment', 'progress', 'finished'];
    expect(result.whole).to.deep.equal(whole);
    expect(result.several.filter((type: string) => type !== 'progress')).to.deep.equal(
      whole.filter((type) => type !== 'progress'),
    );
    expect(result.talk).to.deep.equal(['started', 'delta', 'finished']);
    expect(result.noise).to.deep.equal([{ code: 'invalid_audio', message: 'no decoder knows this', param: 'audio' }]);
    expect(result.broken.slice(-2)).to.deep.equal([
      'progress',
      { code: 'invalid_audio', message: 'it breaks off at 0:02' },
    ]);
    expect(result.left).to.deep.equal(['started', 'language', 'segment']);
    expect(result.aborted).to.include({ code: 'cancelled' });
    expect(result.before).to.deep.equal([{ code: 'cancelled', message: 'the transcription was aborted' }]);
    expect(result.closed).to.include({ code: 'closed' });
    const calls = stderr.trim().split('\n');
    expect(calls[1]).to.equal('transcribe {"id":1,"model":7,"path":"a.wav"}');
    // The one that was left and the one that was aborted; what was aborted before it began was never asked for.
    expect(calls.filter((call) => call.startsWith('cancel'))).to.have.length(2);
    expect(calls.filter((call) => call.startsWith('transcribe'))).to.have.length(7);
  });
});

describe('tsserve, with a speech model', function () {
  this.timeout(60_000);
  let folder: string;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tsserve-speech-'));
    for (const name of ['talk', 'noise', 'endless']) await writeFile(join(folder, `${name}.wav`), name);
  });
  after(async () => rm(folder, { recursive: true }));

  const at = (name: string): string => join(folder, `${name}.wav`);

  it('transcribes files and standard input', async () => {
    const files = await runCli(['transcribe', at('talk'), at('noise'), '--model', 'folder'], '', env);
    expect([files.code, files.stdout, files.stderr]).to.deep.equal([
      1,
      `==> ${at('talk')} <==\nPart 0.\nPart 1.\n==> ${at('noise')} <==\n`,
      'tsserve: noise.wav: no decoder knows this\n',
    ]);
    const input = await runCli(['transcribe', '-', '-f', 'json', '-m', 'folder'], 'a recording', env);
    expect(input.code).to.equal(0);
    expect(JSON.parse(input.stdout)).to.include({ text: 'Part 0. Part 1.' });
  });

  it('says what is wrong with the model', async () => {
    const missing = await runCli(['transcribe', at('talk'), '-m', 'missing'], '', env);
    expect([missing.code, missing.stderr]).to.deep.equal([1, "tsserve: there is no model 'missing'\n"]);
    const text = await runCli(['transcribe', at('talk'), '-m', 'text'], '', env);
    expect(text.stderr).to.match(/^tsserve: 'text' is a language model: it cannot transcribe recordings.*\n$/);
    const doctor = await runCli(['doctor', 'folder'], '', env);
    expect(doctor.code).to.equal(1);
  });

  for (const file of ['endless', 'standard input']) {
    it(`stops on Ctrl-C: ${file}`, async () => {
      const isStdin = file !== 'endless';
      const args = ['transcribe', isStdin ? '-' : at(file), '-m', 'folder'];
      const child = spawnCli(args, { ...env, SPEECH_ADDON_LOG: '1' });
      const ended = finished(child);
      // It loads, then it waits for more of its input; the other one is under way.
      await once(isStdin ? child.stderr : child.stdout, 'data');
      child.kill('SIGINT');
      const { code, stderr } = await ended;
      expect(code).to.equal(130);
      expect(stderr.replace(/^(load|transcribe|cancel) .*\n/gm, '')).to.equal('');
    });
  }

  it('stops when whoever reads has seen enough', async () => {
    const child = spawnCli(['transcribe', at('endless'), '-m', 'folder'], env);
    await once(child.stdout, 'data');
    child.stdout.destroy();
    const [code] = (await once(child, 'exit')) as [number | null];
    expect(code).to.equal(130);
  });

  it('serves it, and says so', async () => {
    const child = spawnCli(['serve', 'folder', '--port', '0', '--max-upload', '1K', '--log-level', 'silent'], env);
    const ended = finished(child);
    let output = '';
    child.stdout.on('data', (text) => (output += String(text)));
    while (!output.includes('try:\n')) await once(child.stdout, 'data');
    expect(output).to.include('\n  speech        2 languages\n').and.not.include('KV memory');
    const url = /listens on (\S+)\n/.exec(output)![1]!;
    expect(output).to.include(`curl ${url}/v1/audio/transcriptions -F file=@recording.mp3 -F 'model=whisper-tiny'`);
    const ask = async (bytes: number): Promise<Response> => {
      const form = new FormData();
      form.append('file', new Blob([new Uint8Array(bytes)]), 'talk.wav');
      return fetch(`${url}/v1/audio/transcriptions`, { method: 'POST', body: form });
    };
    expect(await (await ask(1000)).json()).to.include({ text: 'Part 0. Part 1.' });
    expect((await ask(2000)).status).to.equal(413);
    child.kill('SIGINT');
    expect((await ended).code).to.equal(0);
  });
});
