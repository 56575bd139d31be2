import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import { expect } from 'chai';

import { describeApi } from '../ts/http/openapi.js';
import { ROUTES } from '../ts/http/routes/index.js';
import { authOf } from '../ts/http/routes/route.js';
import { parseChatCompletionRequest } from '../ts/protocol/chat-completions.js';
import { parseCompletionRequest } from '../ts/protocol/completions.js';
import { parseCreateResponse } from '../ts/protocol/responses.js';
import { content, delta, finished, started } from './helpers/scripted-events.js';
import { ScriptedApp } from './helpers/scripted-app.js';

/** What OpenAPI 3.1 asks of the objects that occur here, as far as a schema can say it. */
const DOCUMENT = {
  type: 'object',
  required: ['openapi', 'info', 'paths'],
  additionalProperties: false,
  properties: {
    openapi: { type: 'string', pattern: '^3\\.1\\.\\d+$' },
    info: {
      type: 'object',
      required: ['title', 'version'],
      additionalProperties: false,
      properties: { title: { type: 'string' }, version: { type: 'string' }, description: { type: 'string' } },
    },
    servers: { type: 'array', items: { type: 'object', required: ['url'] } },
    paths: {
      type: 'object',
      additionalProperties: false,
      patternProperties: {
        '^/': {
          type: 'object',
          additionalProperties: false,
          minProperties: 1,
          patternProperties: { '^(get|post|delete|put|patch)$': { $ref: '#/$defs/operation' } },
        },
      },
    },
    components: {
      type: 'object',
      additionalProperties: false,
      properties: {
        schemas: { type: 'object', propertyNames: { pattern: '^[a-zA-Z0-9._-]+$' } },
        responses: { type: 'object', additionalProperties: { $ref: '#/$defs/response' } },
        securitySchemes: {
          type: 'object',
          additionalProperties: {
            type: 'object',
            required: ['type', 'scheme'],
            properties: { type: { const: 'http' } },
          },
        },
      },
    },
  },
  $defs: {
    operation: {
      type: 'object',
      required: ['operationId', 'summary', 'responses'],
      additionalProperties: false,
      properties: {
        operationId: { type: 'string', pattern: '^[a-z0-9_]+$' },
        summary: { type: 'string', minLength: 1 },
        parameters: {
          type: 'array',
          items: {
            type: 'object',
            required: ['name', 'in', 'required', 'schema'],
            properties: { in: { enum: ['path', 'query'] }, required: { type: 'boolean' } },
            if: { properties: { in: { const: 'path' } } },
            then: { properties: { required: { const: true } } },
          },
        },
        requestBody: {
          type: 'object',
          required: ['content'],
          additionalProperties: false,
          properties: { required: { type: 'boolean' }, content: { $ref: '#/$defs/content' } },
        },
        responses: {
          type: 'object',
          minProperties: 1,
          additionalProperties: false,
          patternProperties: { '^([1-5]\\d\\d|default)$': { $ref: '#/$defs/response' } },
        },
        security: { type: 'array', items: { type: 'object', additionalProperties: { type: 'array' } } },
      },
    },
    response: {
      anyOf: [
        { type: 'object', required: ['$ref'], additionalProperties: false, properties: { $ref: { type: 'string' } } },
        {
          type: 'object',
          required: ['description'],
          additionalProperties: false,
          properties: { description: { type: 'string', minLength: 1 }, content: { $ref: '#/$defs/content' } },
        },
      ],
    },
    content: {
      type: 'object',
      minProperties: 1,
      propertyNames: { pattern: '^[a-z]+/[a-z.+-]+$' },
      additionalProperties: {
        type: 'object',
        required: ['schema'],
        additionalProperties: false,
        properties: { schema: {} },
      },
    },
  },
};

const MODELS = [
  {
    id: 'org/one',
    contextLength: 512,
    chat: () => [started, content('a'), finished()],
    generate: () => [started, delta('a'), finished()],
  },
];

const LENIENT = { strict: false, warn: () => undefined };

function isTaken(parse: () => unknown): boolean {
  try {
    parse();
    return true;
  } catch {
    return false;
  }
}

function valuesOf(value: unknown, key: string): unknown[] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([name, inner]) => [...(name === key ? [inner] : []), ...valuesOf(inner, key)]);
}

describe('GET /openapi.json', () => {
  let document: any;
  const ajv = new Ajv2020({ strict: false });
  const schemaAt = (pointer: string): ValidateFunction => ajv.getSchema(`api${pointer}`)!;

  before(async () => {
    await using app = await ScriptedApp.start(MODELS);
    document = (await app.call({ path: '/openapi.json' })).json;
    ajv.addSchema(document, 'api');
  });

  it('keeps the rules of OpenAPI 3.1', () => {
    const valid = ajv.compile(DOCUMENT);
    expect(valid(document), JSON.stringify(valid.errors)).to.equal(true);
    const ids = valuesOf(document.paths, 'operationId');
    expect(new Set(ids).size).to.equal(ids.length);
    for (const [path, methods] of Object.entries<any>(document.paths)) {
      const named = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);
      for (const { parameters = [] } of Object.values<any>(methods)) {
        const inPath = parameters.filter((parameter: any) => parameter.in === 'path');
        expect(inPath.map((parameter: any) => parameter.name)).to.deep.equal(named);
      }
    }
  });

  it('holds schemas that are valid, and references that lead somewhere', () => {
    const schemas = [...Object.values(document.components.schemas), ...valuesOf(document.paths, 'schema')];
    expect(schemas.length).to.be.greaterThan(10);
    for (const schema of schemas) {
      expect(ajv.validateSchema(schema as object), JSON.stringify(ajv.errors)).to.equal(true);
    }
    for (const reference of valuesOf(document, '$ref')) {
      const steps = String(reference).replace('#/', '').split('/');
      expect(
        steps.reduce((node: any, step) => node?.[step], document),
        String(reference),
      ).to.be.an('object');
    }
  });

  it('describes every route, and only those', () => {
    const described = Object.entries<any>(document.paths).flatMap(([path, methods]) =>
      Object.keys(methods as object).map((method) => `${method.toUpperCase()} ${path}`),
    );
    expect(described.sort()).to.deep.equal(
      ROUTES.map(({ method, path }) => `${method} ${path.replace(/[*:](\w+)/g, '{$1}')}`).sort(),
    );
  });

  it('lists the fields that are taken, and none that are refused', () => {
    const withBody = ROUTES.filter(({ body }) => body !== undefined);
    expect(withBody.length).to.be.greaterThan(5);
    for (const { path, body } of withBody) {
      const type = body!.form === true ? 'multipart/form-data' : 'application/json';
      const { schema } = document.paths[path.replace(/[*:](\w+)/g, '{$1}')].post.requestBody.content[type];
      const taken = Object.entries(body!.fields).filter(([, { status }]) => status !== 'refused');
      expect(Object.keys(schema.properties as object).sort(), path).to.deep.equal(taken.map(([name]) => name).sort());
      const untyped = taken.filter(
        ([name, { status }]) =>
          status === 'honoured' && Object.keys(schema.properties[name] as object).join() === 'description',
      );
      expect(
        untyped.map(([name]) => name),
        `ts/protocol/schemas.ts has no schema for them, of ${path}`,
      ).to.deep.equal([]);
    }
  });

  it('says of every route what it answers', () => {
    const vague = ROUTES.filter(({ answer }) => answer === undefined).map(({ path }) => path);
    // Its answer is what this is about.
    expect(vague).to.deep.equal(['/openapi.json']);
    const named = new Set(valuesOf(document, '$ref').map((reference) => String(reference).split('/').at(-1)));
    expect([...Object.keys(document.components.schemas as object)].filter((name) => !named.has(name))).to.deep.equal(
      [],
    );
  });

  it('agrees with the parsers about what is valid', () => {
    const values = [null, true, 'x', '', 0, 1, -1, 2, 3, 1.5, 20, 21, 1e12, [], ['a'], [1], [-1], {}, { a: 'b' }];
    const shared = ['temperature', 'top_p', 'top_k', 'min_p', 'seed', 'stream', 'ignore_eos', 'cache_salt', 'model'];
    const generated = ['max_tokens', 'logprobs', 'stop_token_ids', 'guided_choice', 'guided_regex', 'min_tokens', 'n'];
    const messages = [{ role: 'user', content: 'hi' }];
    const endpoints: readonly (readonly [string, object, readonly string[], (body: unknown) => unknown])[] = [
      [
        '/v1/chat/completions',
        { messages },
        [...generated, 'chat_template_kwargs', 'max_completion_tokens', 'reasoning_effort'],
        (body) => parseChatCompletionRequest(body, LENIENT),
      ],
      [
        '/v1/completions',
        { prompt: 'x', echo: true },
        [...generated, 'add_special_tokens'],
        (body) => parseCompletionRequest(body, LENIENT),
      ],
      [
        '/v1/responses',
        { input: 'x' },
        [
          ...['max_output_tokens', 'max_tool_calls', 'store', 'background', 'metadata', 'truncation', 'instructions'],
          ...['safety_identifier', 'prompt_cache_key', 'include', 'previous_response_id', 'stop_token_ids'],
        ],
        (body) => parseCreateResponse(body, LENIENT),
      ],
    ];
    for (const [path, least, own, parse] of endpoints) {
      const pointer = path.replaceAll('/', '~1');
      const valid = schemaAt(`#/paths/${pointer}/post/requestBody/content/application~1json/schema`);
      for (const name of [...shared, ...own]) {
        for (const value of values) {
          const request = { ...least, [name]: value };
          expect(valid(request), `${path} ${name}: ${JSON.stringify(value)}`).to.equal(isTaken(() => parse(request)));
        }
      }
    }
    const valid = schemaAt('#/paths/~1v1~1chat~1completions/post/requestBody/content/application~1json/schema');
    expect(valid({})).to.equal(false);
    expect(valid({ messages: [] })).to.equal(false);
  });

  it('describes what is really answered', async () => {
    await using app = await ScriptedApp.start(MODELS);
    const chat = { model: 'org/one', messages: [{ role: 'user', content: 'hi' }] };
    const text = { model: 'org/one', prompt: 'hi' };
    const usage = { stream_options: { include_usage: true } };
    const events = async (path: string, body: object): Promise<unknown[]> =>
      (await app.stream(path, body)).filter((event) => event !== '[DONE]');
    const answers: readonly (readonly [string, readonly unknown[]])[] = [
      ['ChatCompletion', [(await app.post('/v1/chat/completions', chat)).json]],
      ['ChatCompletionChunk', await events('/v1/chat/completions', { ...chat, ...usage })],
      ['TextCompletion', [(await app.post('/v1/completions', text)).json, ...(await events('/v1/completions', text))]],
      ['LoadEvent', await events('/load_model', { model: 'org/one' })],
      ['Model', [(await app.call({ path: '/v1/models/org/one' })).json]],
      ['ModelList', [(await app.call({ path: '/v1/models' })).json]],
      ['Health', [(await app.call({ path: '/health' })).json]],
      ['Error', [(await app.post('/v1/chat/completions', {})).json, (await app.call({ path: '/v1/files' })).json]],
    ];
    for (const [name, values] of answers) {
      const valid = schemaAt(`#/components/schemas/${name}`);
      expect(values.length, name).to.be.greaterThan(0);
      for (const value of values) expect(valid(value), `${name}: ${JSON.stringify(valid.errors)}`).to.equal(true);
      expect(valid({}), name).to.equal(false);
    }
  });

  it('says where a key is needed, if there are keys', () => {
    expect(valuesOf(document, 'security')).to.deep.equal([]);
    const locked = describeApi(ROUTES, { keys: true }) as any;
    expect(locked.components.securitySchemes.key).to.deep.equal({ type: 'http', scheme: 'bearer' });
    for (const route of ROUTES) {
      const { security } = locked.paths[route.path.replace(/[*:](\w+)/g, '{$1}')][route.method.toLowerCase()];
      expect(security, route.path).to.deep.equal(authOf(route) === 'key' ? [{ key: [] }] : []);
    }
  });
});
