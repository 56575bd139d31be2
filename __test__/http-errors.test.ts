import { connect } from 'node:net';

import { expect } from 'chai';

import { EngineError, type EngineErrorCode } from '../ts/engine/types.js';
import { content, finished, started } from './helpers/scripted-events.js';
import { type Call, ScriptedApp } from './helpers/scripted-app.js';

const CHAT = '/v1/chat/completions';
const JSON_TYPE = { 'content-type': 'application/json' };

function post(body: unknown, path = CHAT, headers: Readonly<Record<string, string>> = JSON_TYPE): Call {
  return { method: 'POST', path, headers, body: typeof body === 'string' ? body : JSON.stringify(body) };
}

function ask(fields: object): Call {
  return post({ model: 'org/one', messages: [{ role: 'user', content: 'hi' }], ...fields });
}

interface Expected {
  readonly status: number;
  readonly type?: string;
  readonly code: string;
  readonly param?: string | null;
  /** Part of the message. */
  readonly says: string;
}

const INVALID = 'invalid_request_error';

describe('errors over HTTP', () => {
  let app: ScriptedApp;

  before(async () => {
    app = await ScriptedApp.start([{ id: 'org/one', chat: () => [started, content('hello'), finished()] }], {
      limits: { maxBodyBytes: 10_000, maxJsonDepth: 8 },
    });
  });
  after(async () => app[Symbol.asyncDispose]());

  const cases: Readonly<Record<string, readonly [Call, Expected]>> = {
    'an empty body': [post(''), { status: 400, code: 'invalid_json', says: 'empty' }],
    'broken JSON': [post('{"model": "m",,}'), { status: 400, code: 'invalid_json', says: 'at position 14' }],
    'deeply nested JSON': [post('['.repeat(5000)), { status: 400, code: 'invalid_json', says: 'deeper than 8' }],
    'a huge body': [post('"'.padEnd(10_001, 'x')), { status: 413, code: 'request_too_large', says: '10000 bytes' }],
    'a body that is no object': [
      post('[]'),
      { status: 400, code: 'invalid_type', says: 'a JSON object, got an array' },
    ],
    'a wrong type': [
      ask({ temperature: 'hot' }),
      { status: 400, code: 'invalid_type', param: 'temperature', says: 'must be a number, got a string' },
    ],
    'a value out of range': [
      ask({ temperature: 3 }),
      { status: 400, code: 'invalid_value', param: 'temperature', says: 'at most 2, got 3' },
    ],
    'no messages': [
      post({ model: 'org/one' }),
      { status: 400, code: 'missing_required_parameter', param: 'messages', says: 'messages' },
    ],
    'an empty message list': [
      ask({ messages: [] }),
      { status: 400, code: 'invalid_value', param: 'messages', says: 'must not be empty' },
    ],
    'an unknown role': [
      ask({ messages: [{ role: 'king', content: 'a' }] }),
      { status: 400, code: 'invalid_value', param: 'messages[0].role', says: '"king"' },
    ],
    'an image for a text model': [
      ask({
        messages: [
          {
            role: 'user',
            content: [
              { type: 'text', text: 'a' },
              { type: 'image_url', image_url: { url: 'data:,' } },
            ],
          },
        ],
      }),
      { status: 400, code: 'unsupported_value', param: 'messages[0].content[1]', says: "'org/one' reads text only" },
    ],
    'a field that would change the answer': [
      ask({ audio: { voice: 'alloy', format: 'wav' } }),
      { status: 400, code: 'unsupported_parameter', param: 'audio', says: 'audio' },
    ],
    'no content type': [
      post('{}', CHAT, {}),
      { status: 415, code: 'unsupported_media_type', says: 'must be application/json' },
    ],
    'a form': [
      post('a=b', CHAT, { 'content-type': 'application/x-www-form-urlencoded' }),
      { status: 415, code: 'unsupported_media_type', says: 'application/x-www-form-urlencoded' },
    ],
    'another charset': [
      post('{}', CHAT, { 'content-type': 'application/json; charset="latin1"' }),
      { status: 415, code: 'unsupported_media_type', says: 'utf-8' },
    ],
    'a compressed body': [
      post('{}', CHAT, { ...JSON_TYPE, 'content-encoding': 'gzip' }),
      { status: 415, code: 'unsupported_media_type', says: 'gzip' },
    ],
    'a wrong method': [{ path: CHAT }, { status: 405, code: 'method_not_allowed', says: 'use POST' }],
    'another wrong method': [
      { method: 'DELETE', path: '/v1/models' },
      { status: 405, code: 'method_not_allowed', says: 'use GET' },
    ],
    'an unknown path': [
      post('{}', '/v1/chat'),
      { status: 404, type: 'not_found_error', code: 'unknown_url', says: 'POST /v1/chat' },
    ],
    'a path with broken encoding': [
      { path: '/v1/models/%E0%A4%A' },
      { status: 400, code: 'invalid_url', says: 'not valid' },
    ],
    'no model where none is the default': [
      post({ messages: [{ role: 'user', content: 'hi' }] }),
      { status: 400, code: 'missing_required_parameter', param: 'model', says: "'model'" },
    ],
    'a blank model': [
      ask({ model: ' ' }),
      { status: 400, code: 'missing_required_parameter', param: 'model', says: "'model'" },
    ],
    'an unknown model': [
      ask({ model: 'org/none' }),
      { status: 404, type: 'not_found_error', code: 'model_not_found', param: 'model', says: 'org/none' },
    ],
    'an unknown model by its address': [
      { path: '/v1/models/org/none' },
      { status: 404, type: 'not_found_error', code: 'model_not_found', param: 'model', says: "'org/none'" },
    ],
    'an unknown model for completions': [
      post({ model: 'org/none', prompt: 'a' }, '/v1/completions'),
      { status: 404, type: 'not_found_error', code: 'model_not_found', param: 'model', says: 'org/none' },
    ],
  };
  for (const [name, [call, expected]] of Object.entries(cases)) {
    it(`${name}: ${expected.status} ${expected.code}`, async () => {
      const answer = await app.call(call);
      const { error } = answer.json;
      expect(answer.status).to.equal(expected.status);
      expect(answer.headers['content-type']).to.equal('application/json');
      expect(answer.headers['x-request-id']).to.match(/^[0-9a-f-]{36}$/);
      expect(Object.keys(answer.json)).to.deep.equal(['error']);
      expect(Object.keys(error)).to.have.members(['message', 'type', 'param', 'code']);
      expect(error).to.include({
        type: expected.type ?? INVALID,
        code: expected.code,
        param: expected.param ?? null,
      });
      expect(error.message).to.include(expected.says);
      expect(answer.text).not.to.match(/\.ts:\d|node_modules/);
    });
  }

  it('405 says what is allowed', async () => {
    expect((await app.call({ path: CHAT })).headers.allow).to.equal('POST, OPTIONS');
    expect((await app.call({ method: 'POST', path: '/v1/models' })).headers.allow).to.equal('GET, HEAD, OPTIONS');
    const options = await app.call({ method: 'OPTIONS', path: CHAT });
    expect([options.status, options.headers.allow]).to.deep.equal([204, 'POST, OPTIONS']);
  });

  it('a body that grows past the limit without saying so is refused as well', async () => {
    const answer = await new Promise<string>((resolve, reject) => {
      const socket = connect(app.port, '127.0.0.1');
      let text = '';
      socket.on('data', (chunk) => {
        text += chunk.toString();
        if (text.includes('}}')) socket.end();
      });
      socket.on('error', reject).on('close', () => resolve(text));
      socket.write(`POST ${CHAT} HTTP/1.1\r\nHost: localhost\r\ncontent-type: application/json\r\n`);
      socket.write('transfer-encoding: chunked\r\n\r\n');
      for (let i = 0; i < 3; i++) socket.write(`1000\r\n${'x'.repeat(0x1000)}\r\n`);
      socket.write('0\r\n\r\n');
    });
    expect(answer)
      .to.match(/^HTTP\/1\.1 413 /)
      .and.include('request_too_large');
  });

  it('an upload that does not end is cut off after its answer', async () => {
    const socket = connect(app.port, '127.0.0.1');
    let text = '';
    socket.on('data', (chunk) => (text += chunk.toString())).on('error', () => undefined);
    socket.write(`POST ${CHAT} HTTP/1.1\r\nHost: localhost\r\ncontent-type: application/json\r\n`);
    socket.write('transfer-encoding: chunked\r\n\r\n');
    const more = (): void => {
      while (!socket.destroyed && socket.write(`1000\r\n${'x'.repeat(0x1000)}\r\n`));
    };
    socket.on('drain', more);
    more();
    await new Promise((resolve) => socket.once('close', resolve));
    // The reset may overtake the answer.
    expect(text).to.match(/^$|^HTTP\/1\.1 413 /);
  });

  it('a request that is no HTTP gets the envelope', async () => {
    const answer = await new Promise<string>((resolve) => {
      const socket = connect(app.port, '127.0.0.1');
      let text = '';
      socket.on('data', (chunk) => (text += chunk.toString())).on('close', () => resolve(text));
      socket.write('HELLO\r\n\r\n');
    });
    expect(answer)
      .to.match(/^HTTP\/1\.1 400 Bad Request/)
      .and.match(/x-request-id: [0-9a-f-]{36}/);
    expect(JSON.parse(answer.slice(answer.indexOf('{'))).error).to.include({ type: INVALID, code: 'invalid_http' });
  });

  it('strict servers refuse unknown fields', async () => {
    await using strict = await ScriptedApp.start([{ id: 'org/one' }], { strict: true });
    const answer = await strict.call(ask({ frobnicate: 1 }));
    expect([answer.status, answer.json.error.code, answer.json.error.param]).to.deep.equal([
      400,
      'unknown_parameter',
      'frobnicate',
    ]);
  });
});

interface WireFailure {
  readonly status: number;
  readonly type: string;
  readonly code: string;
  readonly param: string | null;
  readonly shouldRetry?: string;
  readonly retryAfter?: string;
}

const FAILURES: Readonly<Record<EngineErrorCode, WireFailure>> = {
  model_not_found: { status: 404, type: 'not_found_error', code: 'model_not_found', param: 'model' },
  model_unsupported: { status: 422, type: INVALID, code: 'model_unsupported', param: 'model' },
  model_broken: { status: 422, type: INVALID, code: 'model_broken', param: 'model' },
  model_too_large: { status: 422, type: INVALID, code: 'model_too_large', param: 'model' },
  gated: { status: 403, type: 'permission_error', code: 'model_gated', param: 'model' },
  hub_unreachable: { status: 502, type: 'server_error', code: 'hub_unreachable', param: 'model', shouldRetry: 'false' },
  disk_full: { status: 507, type: 'server_error', code: 'disk_full', param: null, shouldRetry: 'false' },
  device_unavailable: {
    status: 500,
    type: 'server_error',
    code: 'device_unavailable',
    param: null,
    shouldRetry: 'false',
  },
  invalid_request: { status: 400, type: INVALID, code: 'invalid_value', param: null },
  invalid_audio: { status: 400, type: INVALID, code: 'invalid_audio', param: 'file' },
  context_length_exceeded: { status: 400, type: INVALID, code: 'context_length_exceeded', param: 'messages' },
  queue_full: { status: 429, type: 'rate_limit_error', code: 'rate_limit_exceeded', param: null, retryAfter: '1' },
  cancelled: { status: 500, type: 'server_error', code: 'generation_cancelled', param: null },
  timeout: { status: 504, type: 'server_error', code: 'timeout', param: null, shouldRetry: 'false' },
  template_error: { status: 400, type: INVALID, code: 'template_error', param: 'messages' },
  closed: { status: 500, type: 'server_error', code: 'model_closed', param: null },
  internal: { status: 500, type: 'server_error', code: 'internal_error', param: null, shouldRetry: 'false' },
};

describe('failures of the engine over HTTP', () => {
  for (const [code, expected] of Object.entries(FAILURES) as [EngineErrorCode, WireFailure][]) {
    for (const stream of [false, true]) {
      it(`${code} is ${expected.status} ${expected.code}${stream ? ', also for a stream that has not begun' : ''}`, async () => {
        const fail = new EngineError(code, 'what went wrong: 600 + 20 of 512');
        await using app = await ScriptedApp.start([{ id: 'm', chat: () => [{ fail }] }]);
        const answer = await app.call(ask({ model: 'm', stream }));
        const { status, type, param, shouldRetry, retryAfter } = expected;
        expect(answer.status).to.equal(status);
        expect(answer.json.error).to.include({ type, code: expected.code, param });
        expect(answer.headers['x-should-retry']).to.equal(shouldRetry);
        expect(answer.headers['retry-after']).to.equal(retryAfter);
        if (code === 'internal') {
          expect(answer.text).not.to.include('what went wrong');
          expect(answer.json.error.message).to.include(answer.headers['x-request-id']);
          expect(app.log.join('\n')).to.include('what went wrong').and.include(answer.headers['x-request-id']);
        } else {
          expect(answer.json.error.message).to.equal(fail.message);
        }
      });
    }
  }

  it('a failed load is told like a failed generation', async () => {
    const load = Promise.reject(new EngineError('gated', 'accept the licence first'));
    load.catch(() => undefined);
    await using app = await ScriptedApp.start([{ id: 'm', load }]);
    const answer = await app.call(ask({ model: 'm', stream: true }));
    expect([answer.status, answer.json.error.code]).to.deep.equal([403, 'model_gated']);
  });

  it('names the field in the names of the wire', async () => {
    const cases = { maxTokens: 'max_tokens', 'sampling.topP': 'top_p', prompt: 'messages', logprobs: 'top_logprobs' };
    for (const [param, wire] of Object.entries(cases)) {
      const fail = new EngineError('invalid_request', 'no', param);
      await using app = await ScriptedApp.start([{ id: 'm', chat: () => [{ fail }] }]);
      expect((await app.call(ask({ model: 'm' }))).json.error.param).to.equal(wire);
    }
  });

  it('a prompt that does not fit is blamed on the prompt in completions', async () => {
    const fail = new EngineError('context_length_exceeded', '600 tokens, 512 fit');
    await using app = await ScriptedApp.start([{ id: 'm', generate: () => [{ fail }] }]);
    const answer = await app.post('/v1/completions', { model: 'm', prompt: 'a' });
    expect([answer.status, answer.json.error.param]).to.deep.equal([400, 'prompt']);
  });

  it('anything else thrown is a 500 that tells nothing and a log line that tells all', async () => {
    await using app = await ScriptedApp.start([{ id: 'm', chat: () => [{ fail: new TypeError('secret detail') }] }]);
    const answer = await app.call(ask({ model: 'm' }));
    expect(answer.status).to.equal(500);
    expect(answer.text).not.to.include('secret detail');
    expect(app.log.join('\n')).to.include('TypeError: secret detail').and.include('at ');
  });

  it('events that end without a finish reason are a failure', async () => {
    await using app = await ScriptedApp.start([{ id: 'm', chat: () => [started, content('a')] }]);
    expect((await app.call(ask({ model: 'm' }))).status).to.equal(500);
  });

  it('a failure after the first byte is an event, then the end', async () => {
    const fail = new EngineError('timeout', 'the "client" is\nslow');
    await using app = await ScriptedApp.start([{ id: 'm', chat: () => [started, content('a'), { fail }] }]);
    const answer = await app.call(ask({ model: 'm', stream: true }));
    expect(answer.status).to.equal(200);
    expect(answer.text.trimEnd().split('\n\n').at(-1)).to.equal(
      'data: {"error":{"message":"the \\"client\\" is\\nslow","type":"server_error","param":null,"code":"timeout"}}',
    );
    expect(app.registry.first.held).to.equal(0);
  });
});
