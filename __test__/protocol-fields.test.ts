/** The tables of request fields: against OpenAI's published schema, and against the parsers that they speak for. */

import { expect } from 'chai';

import { ROUTES } from '../ts/http/routes/index.js';
import { CHAT_COMPLETION_FIELDS, parseChatCompletionRequest } from '../ts/protocol/chat-completions.js';
import { COMPLETION_FIELDS, parseCompletionRequest } from '../ts/protocol/completions.js';
import type { FieldTable, ParseOptions } from '../ts/protocol/field-table.js';
import { parseCreateResponse, RESPONSE_FIELDS } from '../ts/protocol/responses.js';
import {
  parseTranscriptionRequest,
  parseTranslationRequest,
  TRANSCRIPTION_FIELDS,
  TRANSLATION_FIELDS,
} from '../ts/protocol/transcriptions.js';
import type { JsonObject } from '../ts/protocol/fields.js';
import { readSpec, templateFor } from './helpers/schemas/published.js';
import type { Schema, SpecDocument } from './helpers/schemas/rewrite.js';

const openai = readSpec('openai.json');
const openResponses = readSpec('open-responses.json');

/** Names of an object's properties, whatever it is put together from. */
function propertiesOf(spec: SpecDocument, schema: Schema): string[] {
  const { $ref, properties = {}, allOf = [], anyOf = [], oneOf = [] } = schema;
  if ($ref !== undefined) {
    return propertiesOf(spec, spec.components.schemas[String($ref).replace('#/components/schemas/', '')] ?? {});
  }
  const parts = [...allOf, ...anyOf, ...oneOf] as Schema[];
  return [...Object.keys(properties as Schema), ...parts.flatMap((part) => propertiesOf(spec, part))];
}

function bodyOf(spec: SpecDocument, path: string): string[] | undefined {
  const template = templateFor(Object.keys(spec.paths), path);
  const content = template === undefined ? undefined : spec.paths[template]?.['post']?.requestBody?.content;
  const [media] = Object.values(content ?? {});
  return media && propertiesOf(spec, media.schema);
}

describe('tables of request fields', () => {
  const routes = ROUTES.filter(({ method }) => method === 'POST').map(({ path, body }) => {
    const published = bodyOf(openai, path.replace('/v1', '').replace(/:(\w+)/g, 'x'));
    return { path, fields: body?.fields, published };
  });
  const known = routes.filter(({ published }) => published !== undefined);

  it('stand for every endpoint that OpenAI’s schema has a body for', () => {
    expect(known.map(({ path }) => path)).to.include.members([
      ...['/v1/chat/completions', '/v1/completions', '/v1/responses', '/v1/responses/input_tokens'],
      ...['/v1/responses/compact', '/v1/audio/transcriptions', '/v1/audio/translations'],
    ]);
    expect(known.filter(({ fields }) => fields === undefined).map(({ path }) => path)).to.deep.equal([]);
  });

  for (const { path, fields = {}, published = [] } of known) {
    it(`have a line for each field of ${path}, and mark those that are not OpenAI’s`, () => {
      expect(published.filter((name) => fields[name] === undefined)).to.deep.equal([]);
      // Counting tokens takes the request that would be sent.
      const also = path.endsWith('/input_tokens') ? (bodyOf(openai, '/responses') ?? []) : [];
      const names = new Set([...published, ...also]);
      for (const [name, { extra }] of Object.entries(fields)) {
        expect(extra === true, `${name} of ${path}`).to.equal(!names.has(name));
      }
    });
  }

  it('have a line for each field of Open Responses', () => {
    const names = bodyOf(openResponses, '/responses') ?? [];
    expect(names.length).to.be.greaterThan(20);
    expect(names.filter((name) => !(name in RESPONSE_FIELDS))).to.deep.equal([]);
  });

  const parsers: readonly (readonly [string, FieldTable, object, (body: unknown, options: ParseOptions) => unknown])[] =
    [
      ['chat', CHAT_COMPLETION_FIELDS, { messages: [{ role: 'user', content: 'x' }] }, parseChatCompletionRequest],
      ['completions', COMPLETION_FIELDS, { prompt: 'x' }, parseCompletionRequest],
      ['responses', RESPONSE_FIELDS, { input: 'x' }, parseCreateResponse],
      [
        'transcriptions',
        TRANSCRIPTION_FIELDS,
        { file: { name: 'a.wav', size: 1 } },
        (body, options) => parseTranscriptionRequest(body as JsonObject, options),
      ],
      [
        'translations',
        TRANSLATION_FIELDS,
        { file: { name: 'a.wav', size: 1 } },
        (body, options) => parseTranslationRequest(body as JsonObject, options),
      ],
    ];
  for (const [name, table, body, parse] of parsers) {
    it(`are honest: what is honoured in ${name} is read, the rest is not`, () => {
      const read = new Set<string>();
      const watched = new Proxy(body, {
        getOwnPropertyDescriptor(target, key) {
          read.add(String(key));
          return Reflect.getOwnPropertyDescriptor(target, key);
        },
      });
      parse(watched, { strict: true, warn: () => undefined });
      const honoured = Object.keys(table).filter((field) => table[field]?.status === 'honoured');
      expect([...read]).to.have.members(honoured);
    });
  }
});
