import { expect } from 'chai';

import { createApp } from '../ts/http/app.js';
import { finished, started } from './helpers/scripted-events.js';
import { ScriptedApp } from './helpers/scripted-app.js';
import { ScriptedRegistry } from './helpers/scripted-registry.js';

const CHAT = '/v1/chat/completions';
const MODELS = [
  { id: 'org/one', contextLength: 8192, chat: () => [started, finished()] },
  { id: 'org/two', state: 'loading' as const },
  { id: 'org/three:x.gguf', state: 'available' as const },
];

describe('GET /health', () => {
  it('says which models are ready and which load', async () => {
    await using app = await ScriptedApp.start(MODELS, { apiKeys: ['k'] });
    const answer = await app.call({ path: '/health' });
    expect(answer.status).to.equal(200);
    expect(answer.json).to.deep.equal({ status: 'ok', models: ['org/one'], loading: ['org/two'] });
  });

  it('is alive even if the models cannot be listed', async () => {
    await using app = await ScriptedApp.start([]);
    app.registry.list = () => Promise.reject(new Error('no such folder'));
    const answer = await app.call({ path: '/health' });
    expect([answer.status, answer.json.status]).to.deep.equal([200, 'ok']);
    expect(app.log.join('\n')).to.include('no such folder');
  });
});

describe('GET /v1/models', () => {
  it('lists models as OpenAI does, and more', async () => {
    await using app = await ScriptedApp.start(MODELS);
    expect((await app.call({ path: '/v1/models' })).json).to.deep.equal({
      object: 'list',
      data: [
        {
          id: 'org/one',
          object: 'model',
          created: 1_700_000_000,
          owned_by: 'org',
          state: 'ready',
          context_length: 8192,
          max_model_len: 8192,
        },
        { id: 'org/two', object: 'model', created: 1_700_000_000, owned_by: 'org', state: 'loading' },
        { id: 'org/three:x.gguf', object: 'model', created: 1_700_000_000, owned_by: 'org', state: 'available' },
      ],
    });
  });

  for (const path of ['/v1/models/org/one', '/v1/models/org%2Fone', '/v1/models/org/one/']) {
    it(`finds a model whose id holds a slash: ${path}`, async () => {
      await using app = await ScriptedApp.start(MODELS);
      expect((await app.call({ path })).json).to.include({ id: 'org/one', object: 'model', context_length: 8192 });
    });
  }

  it('finds a model whose id holds a colon, plain or encoded', async () => {
    await using app = await ScriptedApp.start(MODELS);
    for (const path of ['/v1/models/org/three:x.gguf', '/v1/models/org%2Fthree%3Ax.gguf']) {
      expect((await app.call({ path })).json.id).to.equal('org/three:x.gguf');
    }
  });
});

describe('GET /', () => {
  it('says what is here, to people and to programs', async () => {
    await using app = await ScriptedApp.start(MODELS);
    const page = await app.call({ path: '/' });
    expect(page.headers['content-type']).to.equal('text/plain; charset=utf-8');
    expect(page.text)
      .to.match(/POST +\/v1\/chat\/completions/)
      .and.include('org/two (loading)');
    const { json } = await app.call({ path: '/', headers: { accept: 'application/json' } });
    expect(json.endpoints.map(({ method, path }: any) => `${method} ${path}`)).to.deep.equal([
      'GET /',
      'GET /health',
      'GET /v1/models',
      'GET /v1/models/{id}',
      'POST /v1/chat/completions',
      'POST /v1/completions',
      'POST /v1/audio/transcriptions',
      'POST /v1/audio/translations',
      'POST /v1/responses',
      'POST /v1/responses/input_tokens',
      'POST /v1/responses/compact',
      'GET /v1/responses/{id}',
      'DELETE /v1/responses/{id}',
      'POST /v1/responses/{id}/cancel',
      'GET /v1/responses/{id}/input_items',
      'POST /v1/conversations',
      'GET /v1/conversations/{id}',
      'POST /v1/conversations/{id}',
      'DELETE /v1/conversations/{id}',
      'GET /v1/conversations/{id}/items',
      'POST /v1/conversations/{id}/items',
      'GET /v1/conversations/{id}/items/{item}',
      'DELETE /v1/conversations/{id}/items/{item}',
      'POST /load_model',
      'POST /reset',
      'GET /metrics',
      'GET /openapi.json',
    ]);
  });
});

describe('request ids', () => {
  it('are kept if they are sane, and made otherwise', async () => {
    await using app = await ScriptedApp.start([]);
    const idFor = async (given: string) =>
      (await app.call({ path: '/health', headers: { 'x-request-id': given } })).headers['x-request-id'];
    expect(await idFor('abc-1.2:3_X')).to.equal('abc-1.2:3_X');
    for (const strange of ['', 'a b', 'é', '<script>', 'x'.repeat(129)]) {
      expect(await idFor(strange)).to.match(/^[0-9a-f-]{36}$/);
    }
  });
});

describe('API keys', () => {
  const open = [{ path: '/health' }];
  const closed = [
    { path: '/' },
    { path: '/v1/models' },
    { path: '/v1/models/org/one' },
    { method: 'POST', path: CHAT },
    { method: 'GET', path: CHAT },
    { method: 'POST', path: '/v1/completions' },
    { path: '/nothing/here' },
  ];
  let app: ScriptedApp;

  before(async () => {
    app = await ScriptedApp.start(MODELS, { apiKeys: ['first-key', 'second key'] });
  });
  after(async () => app[Symbol.asyncDispose]());

  for (const call of closed) {
    it(`guard ${call.method ?? 'GET'} ${call.path}`, async () => {
      const answer = await app.call(call);
      expect(answer.status).to.equal(401);
      expect(answer.json.error).to.include({ type: 'authentication_error', code: 'invalid_api_key', param: null });
      expect(answer.headers['www-authenticate']).to.equal('Bearer');
      expect(answer.headers['x-request-id']).to.be.a('string');
    });
  }
  for (const call of open) {
    it(`do not guard ${call.path}`, async () => {
      expect((await app.call(call)).status).to.equal(200);
    });
  }

  const headers: readonly [headers: Record<string, string>, status: number][] = [
    [{ authorization: 'Bearer first-key' }, 200],
    [{ authorization: 'bearer   second key' }, 200],
    [{ 'x-api-key': 'first-key' }, 200],
    [{ authorization: 'Bearer first-ke' }, 401],
    [{ authorization: 'Bearer ' }, 401],
    [{ authorization: 'Basic first-key' }, 401],
    [{ authorization: 'first-key' }, 401],
    [{ 'x-api-key': '' }, 401],
    [{ 'x-api-key': 'FIRST-KEY' }, 401],
  ];
  for (const [given, status] of headers) {
    it(`${JSON.stringify(given)} gets ${status}`, async () => {
      expect((await app.call({ path: '/v1/models', headers: given })).status).to.equal(status);
    });
  }

  it('may not be blank', () => {
    const registry = new ScriptedRegistry([]);
    expect(() => createApp({ registry, apiKeys: ['k', ' '] })).to.throw(TypeError, 'blank');
  });

  it('make any Host and Origin good', async () => {
    const given = { host: 'tunnel.example', origin: 'https://app.example', authorization: 'Bearer first-key' };
    expect((await app.call({ path: '/v1/models', headers: given })).status).to.equal(200);
  });
});

describe('Host and Origin, without a key', () => {
  const cases: readonly [headers: Record<string, string>, code: string | undefined][] = [
    [{ host: 'localhost' }, undefined],
    [{ host: 'LOCALHOST:8000' }, undefined],
    [{ host: 'app.localhost:1' }, undefined],
    [{ host: '127.0.0.1:8000' }, undefined],
    [{ host: '127.9.9.9' }, undefined],
    [{ host: '[::1]:8000' }, undefined],
    [{ host: 'box.lan' }, undefined],
    [{ host: 'box.lan:8000' }, undefined],
    [{ host: 'exact.lan:81' }, undefined],
    [{ host: 'exact.lan:82' }, 'host_not_allowed'],
    [{ host: 'evil.example' }, 'host_not_allowed'],
    [{ host: 'localhost.evil.example' }, 'host_not_allowed'],
    [{ host: '127.0.0.1.evil.example' }, 'host_not_allowed'],
    [{ host: 'evil.example@localhost' }, 'host_not_allowed'],
    [{ host: '192.168.0.9:8000' }, 'host_not_allowed'],
    [{ host: ':80' }, 'host_not_allowed'],
    [{ host: 'localhost', origin: 'http://localhost:3000' }, undefined],
    [{ host: 'localhost', origin: 'tauri://localhost' }, undefined],
    [{ host: 'localhost', origin: 'http://box.lan' }, undefined],
    [{ host: 'localhost', origin: 'https://app.example' }, undefined],
    [{ host: 'localhost', origin: 'http://app.example' }, 'origin_not_allowed'],
    [{ host: 'localhost', origin: 'https://evil.example' }, 'origin_not_allowed'],
    [{ host: 'localhost', origin: 'http://localhost.evil.example' }, 'origin_not_allowed'],
    [{ host: 'localhost', origin: 'null' }, 'origin_not_allowed'],
    [{ host: 'localhost', origin: 'null', 'content-type': 'text/plain' }, 'origin_not_allowed'],
    [{ host: 'localhost', origin: 'null', 'access-control-request-headers': 'authorization' }, 'origin_not_allowed'],
    [{ host: 'localhost', origin: 'null', authorization: 'x', 'sec-fetch-site': 'cross-site' }, 'origin_not_allowed'],
    [{ host: 'evil.example', origin: 'null', authorization: 'x' }, 'host_not_allowed'],
    [{ host: 'localhost', origin: 'null', authorization: 'Bearer any' }, undefined],
    [{ host: 'localhost', origin: 'null', 'x-api-key': 'any' }, undefined],
    [{ host: 'localhost', origin: 'null', 'content-type': 'application/json' }, undefined],
    [{ host: 'localhost', origin: 'https://evil.example', authorization: 'x' }, 'origin_not_allowed'],
    [{ host: 'localhost', origin: 'file://' }, 'origin_not_allowed'],
  ];
  let app: ScriptedApp;

  before(async () => {
    app = await ScriptedApp.start(MODELS, {
      allowedHosts: ['Box.lan', 'exact.lan:81'],
      allowedOrigins: ['https://app.example'],
    });
  });
  after(async () => app[Symbol.asyncDispose]());

  for (const [headers, code] of cases) {
    it(`${JSON.stringify(headers)}: ${code ?? 'allowed'}`, async () => {
      const answer = await app.call({ path: '/v1/models', headers });
      expect(answer.status).to.equal(code === undefined ? 200 : 403);
      if (code !== undefined) expect(answer.json.error).to.include({ type: 'permission_error', code });
    });
  }

  it("'*' allows any", async () => {
    await using any = await ScriptedApp.start(MODELS, { allowedHosts: ['*'], allowedOrigins: ['*'] });
    const headers = { host: 'x.example', origin: 'https://y.example' };
    expect((await any.call({ path: '/v1/models', headers })).status).to.equal(200);
    await using hosts = await ScriptedApp.start(MODELS, { allowedHosts: ['*'] });
    expect((await hosts.call({ path: '/v1/models', headers })).status).to.equal(403);
  });
});

describe('CORS', () => {
  const preflight = {
    method: 'OPTIONS',
    path: CHAT,
    headers: {
      origin: 'https://page.example',
      'access-control-request-method': 'POST',
      'access-control-request-headers': 'authorization,content-type,x-stainless-os',
      'access-control-request-private-network': 'true',
    },
  };
  const simple = { path: '/v1/models', headers: { origin: 'https://page.example' } };

  it('is off by default', async () => {
    await using app = await ScriptedApp.start(MODELS, { apiKeys: ['k'] });
    for (const call of [preflight, simple]) {
      const headers = { ...call.headers, authorization: 'Bearer k' };
      expect((await app.call({ ...call, headers })).headers).not.to.have.property('access-control-allow-origin');
    }
  });

  it('is on for allowed origins', async () => {
    await using app = await ScriptedApp.start(MODELS, { allowedOrigins: ['https://page.example'] });
    const allowed = { 'access-control-allow-origin': 'https://page.example', vary: 'Origin' };
    for (const call of [preflight, simple]) expect((await app.call(call)).headers).to.include(allowed);
  });

  it('answers preflights without a key', async () => {
    await using app = await ScriptedApp.start(MODELS, { cors: true, apiKeys: ['k'] });
    const answer = await app.call(preflight);
    expect([answer.status, answer.text]).to.deep.equal([204, '']);
    expect(answer.headers).to.include({
      'access-control-allow-origin': '*',
      'access-control-allow-methods': 'GET, POST, DELETE, OPTIONS',
      'access-control-allow-headers': 'authorization,content-type,x-stainless-os',
      'access-control-allow-private-network': 'true',
      'access-control-max-age': '600',
    });
  });

  it('lets pages read answers and errors', async () => {
    await using app = await ScriptedApp.start(MODELS, { cors: true });
    for (const path of ['/v1/models', '/nothing']) {
      const { headers } = await app.call({ ...simple, path });
      expect(headers['access-control-allow-origin']).to.equal('*');
      expect(headers['access-control-expose-headers']).to.include('x-request-id');
    }
  });

  it('can be for some origins only', async () => {
    await using app = await ScriptedApp.start(MODELS, { cors: ['https://page.example'] });
    const allowed = await app.call(simple);
    expect(allowed.status).to.equal(200);
    expect(allowed.headers).to.include({ 'access-control-allow-origin': 'https://page.example', vary: 'Origin' });
    const other = await app.call({ ...simple, headers: { origin: 'https://other.example' } });
    expect(other.status).to.equal(403);
    expect(other.headers).not.to.have.property('access-control-allow-origin');
  });
});
