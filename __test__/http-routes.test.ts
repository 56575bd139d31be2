import { expect } from 'chai';

import { SERVER_LIMITS } from '../ts/http/limits.js';
import { ROUTES } from '../ts/http/routes/index.js';
import { authOf } from '../ts/http/routes/route.js';
import { formBody, RECORDING } from './helpers/form.js';
import { finished, heard, started, transcribed } from './helpers/scripted-events.js';
import { ScriptedApp } from './helpers/scripted-app.js';

/** Everything but this needs a key. */
const OPEN = ['GET /health'];

const MODELS = [{ id: 'org/one', chat: () => [started, finished()], generate: () => [started, finished()] }];
const SPEECH = { id: 'org/speech', transcribe: () => [heard, transcribed] };
const FORM = formBody([RECORDING, { name: 'model', value: 'org/speech' }]);
const bodies: Readonly<Record<string, object>> = {
  '/v1/chat/completions': { model: 'org/one', messages: [{ role: 'user', content: 'hi' }] },
  '/v1/completions': { model: 'org/one', prompt: 'hi' },
  '/v1/responses': { model: 'org/one', input: 'hi' },
  '/v1/conversations': {},
  '/load_model': { model: 'org/one' },
};

describe('the route table', () => {
  it('says who may ask', () => {
    const open = ROUTES.filter((route) => authOf(route) === 'open').map(({ method, path }) => `${method} ${path}`);
    expect(open).to.deep.equal(OPEN);
  });

  it('has each route once', () => {
    const names = ROUTES.map(({ method, path }) => `${method} ${path}`);
    expect(new Set(names).size).to.equal(names.length);
  });

  it('is what the server does: without a key, with a wrong one, with the right one', async () => {
    await using app = await ScriptedApp.start([...MODELS, SPEECH], { apiKeys: ['right'] });
    for (const route of ROUTES) {
      const path = route.path.replace('*id', 'org/one').replace(':id', 'resp_1');
      const json = bodies[route.path] === undefined ? undefined : JSON.stringify(bodies[route.path]);
      const body = route.body?.form === true ? FORM.body : json;
      const status = async (headers: Record<string, string>): Promise<number> => {
        const type = route.body?.form === true ? FORM.headers : { 'content-type': 'application/json' };
        const all = { ...(body === undefined ? {} : type), ...headers };
        return (await app.call({ method: route.method, path, headers: all, ...(body === undefined ? {} : { body }) }))
          .status;
      };
      const refused = authOf(route) === 'open' ? 200 : 401;
      expect(await status({}), route.path).to.equal(refused);
      expect(await status({ authorization: 'Bearer wrong' }), route.path).to.equal(refused);
      const right = await status({ authorization: 'Bearer right' });
      if (route.path.includes(':id')) expect(right, route.path).to.equal(404);
      else if (body !== undefined || route.method === 'GET') expect(right, route.path).to.equal(200);
      else expect(right, route.path).not.to.equal(401);
    }
  });
});

describe('paths that are not served', () => {
  const openAi = [
    'POST /v1/embeddings',
    'POST /v1/images/generations',
    'GET /v1/files',
    'POST /v1/assistants',
    'POST /v1/threads/t1/runs',
    'POST /v1/fine_tuning/jobs',
    'POST /v1/moderations',
    'POST /v1/batches',
    'POST /v1/vector_stores',
    'GET /v1/realtime',
  ];
  for (const call of openAi) {
    it(`${call} is a 404 that names what is served`, async () => {
      const [method = '', path = ''] = call.split(' ');
      await using app = await ScriptedApp.start(MODELS);
      const answer = await app.call({ method, path });
      expect(answer.status).to.equal(404);
      expect(answer.json.error).to.include({ type: 'not_found_error', param: null, code: 'unknown_url' });
      expect(answer.json.error.message)
        .to.match(new RegExp(`^${method} ${path} is not served here: this part of OpenAI's API is not available`))
        .and.contain('POST /v1/chat/completions, ');
    });
  }

  it('are told apart from a wrong base URL', async () => {
    await using app = await ScriptedApp.start(MODELS);
    for (const path of ['/chat/completions', '/v1/v1/chat/completions']) {
      const { json } = await app.post(path, {});
      expect(json.error.message).to.contain('the path is /v1/chat/completions (check the base URL');
    }
    expect((await app.call({ path: '/v1/nothing' })).json.error.message).to.contain('GET / lists what is');
  });

  it('are cut in the message', async () => {
    await using app = await ScriptedApp.start(MODELS);
    const { status, json } = await app.call({ path: `/${'x'.repeat(5000)}` });
    expect(status).to.equal(404);
    expect(json.error.message.length).to.be.lessThan(300);
  });
});

describe('limits', () => {
  it('hold the headers of a request', async () => {
    await using app = await ScriptedApp.start(MODELS);
    const headers = { 'x-long': 'x'.repeat(SERVER_LIMITS.maxHeaderBytes) };
    const answer = await app.call({ path: '/health', headers });
    expect(answer.status).to.equal(431);
    expect(answer.json.error.code).to.equal('invalid_http');
    expect((await app.call({ path: '/health', headers: { 'x-long': 'x'.repeat(8000) } })).status).to.equal(200);
  });

  it('hold the lists of a request, by name', async () => {
    await using app = await ScriptedApp.start(MODELS, { limits: { maxMessages: 2, maxTools: 1 } });
    const message = { role: 'user', content: 'hi' };
    const tool = { type: 'function', function: { name: 'f' } };
    const ask = async (fields: object): Promise<[number, unknown]> => {
      const { status, json } = await app.post('/v1/chat/completions', { model: 'org/one', ...fields });
      return [status, json.error?.param];
    };
    expect(await ask({ messages: [message, message], tools: [tool] })).to.deep.equal([200, undefined]);
    expect(await ask({ messages: [message, message, message] })).to.deep.equal([400, 'messages']);
    expect(await ask({ messages: [message], tools: [tool, tool] })).to.deep.equal([400, 'tools']);
  });
});

describe('prefix caches', () => {
  const body = { model: 'org/one', messages: [{ role: 'user', content: 'hi' }] };

  it('are kept apart by key, and by a salt of the request within one', async () => {
    await using app = await ScriptedApp.start(MODELS, { apiKeys: ['a', 'b'] });
    const salt = async (key: string, fields: object = {}): Promise<string | undefined> => {
      await app.post('/v1/chat/completions', { ...body, ...fields }, { authorization: `Bearer ${key}` });
      return app.registry.first.chatRequests.at(-1)?.cacheSalt;
    };
    const own = await salt('a');
    expect(own).to.match(/^[0-9a-f]{32}$/);
    expect(await salt('a')).to.equal(own);
    const salts = [own, await salt('b'), await salt('a', { cache_salt: 's' }), await salt('b', { cache_salt: 's' })];
    expect(new Set(salts).size).to.equal(4);
    // However the key is shown, its owner is the same; the salt does not show the key.
    await app.post('/v1/completions', { model: 'org/one', prompt: 'x' }, { 'x-api-key': 'a' });
    expect(app.registry.first.generateRequests.at(-1)?.cacheSalt).to.equal(own);
    for (const background of [false, true]) {
      const asked = app.registry.first.chatRequests.length;
      const body = { model: 'org/one', input: 'hi', background };
      await app.post('/v1/responses', body, { authorization: 'Bearer a' });
      await app.registry.until(() => app.registry.first.chatRequests.length > asked);
      expect(app.registry.first.chatRequests.at(-1)?.cacheSalt).to.equal(own);
    }
  });

  it('are shared without keys, unless a request brings a salt', async () => {
    await using app = await ScriptedApp.start(MODELS);
    await app.post('/v1/chat/completions', body);
    await app.post('/v1/chat/completions', { ...body, cache_salt: 's' });
    expect(app.registry.first.chatRequests.map(({ cacheSalt }) => cacheSalt)).to.deep.equal([undefined, 's']);
  });
});
