/** The API's description (OpenAPI 3.1), made from the routes and from the tables that the parsers go by. */

import type { FieldTable } from '../protocol/field-table.js';
import { ANSWER_SCHEMAS, FIELD_SCHEMAS, type JsonSchema, OWN_FIELD_SCHEMAS } from '../protocol/schemas.js';
import { authOf, type Route } from './routes/route.js';

/** The whole document. @param keys whether the server asks for a key */
export function describeApi(routes: readonly Route[], { keys }: { readonly keys: boolean }): JsonSchema {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const route of routes) {
    (paths[templated(route.path)] ??= {})[route.method.toLowerCase()] = operation(route, keys);
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'tsserve',
      version: '1',
      description: 'Local models behind the OpenAI API. Fields that are not listed are ignored, or refused by name.',
    },
    servers: [{ url: '/' }],
    paths,
    components: {
      schemas: ANSWER_SCHEMAS,
      responses: {
        Error: { description: 'What went wrong, in the envelope of the OpenAI API', content: json(reference('Error')) },
      },
      ...(keys ? { securitySchemes: { key: { type: 'http', scheme: 'bearer' } } } : {}),
    },
  };
}

function operation(route: Route, keys: boolean): JsonSchema {
  const { method, path, summary, body } = route;
  return {
    operationId: operationId(method, path),
    summary,
    ...parametersOf(route),
    ...(body === undefined ? {} : { requestBody: { required: true, content: bodyContent(path, body) } }),
    responses: { 200: success(route), default: { $ref: '#/components/responses/Error' } },
    ...(keys ? { security: authOf(route) === 'key' ? [{ key: [] }] : [] } : {}),
  };
}

function parametersOf({ path, query = {} }: Route): JsonSchema {
  const segments = [...path.matchAll(/[*:](\w+)/g)].map(([, name]) => ({
    name,
    in: 'path',
    required: true,
    schema: { type: 'string' },
  }));
  const further = Object.entries(query).map(([name, { schema, note }]) => ({
    name,
    in: 'query',
    required: false,
    description: note,
    schema,
  }));
  const parameters = [...segments, ...further];
  return parameters.length === 0 ? {} : { parameters };
}

function bodyContent(path: string, { fields, required, form }: NonNullable<Route['body']>): JsonSchema {
  const schema = bodySchema(path, fields, required, form === true);
  return form === true ? { 'multipart/form-data': { schema } } : json(schema);
}

/** What is honoured, and what is accepted without effect and says so; what is refused is left out. A form has no null. */
function bodySchema(path: string, fields: FieldTable, required: readonly string[], isForm: boolean): JsonSchema {
  const properties: Record<string, JsonSchema> = {};
  for (const [name, rule] of Object.entries(fields)) {
    if (rule.status === 'refused') continue;
    const schema = OWN_FIELD_SCHEMAS[path]?.[name] ?? FIELD_SCHEMAS[name];
    const description = [...(rule.status === 'ignored' ? ['Without effect'] : []), rule.note ?? []].flat().join(': ');
    const typed = isForm ? schema : { anyOf: [schema, { type: 'null' }] };
    properties[name] = {
      ...(rule.status === 'honoured' && schema !== undefined ? typed : {}),
      ...(description === '' ? {} : { description }),
    };
  }
  return { type: 'object', properties, ...(required.length === 0 ? {} : { required }) };
}

function success({ answer, summary }: Route): JsonSchema {
  const content = {
    ...(answer?.json === undefined ? {} : json(reference(answer.json))),
    ...(answer?.event === undefined ? {} : { 'text/event-stream': { schema: reference(answer.event) } }),
    ...Object.fromEntries(textTypes(answer?.text).map((type) => [type, { schema: { type: 'string' } }])),
  };
  return { description: summary, content: Object.keys(content).length === 0 ? json({ type: 'object' }) : content };
}

function textTypes(text: true | readonly string[] = []): readonly string[] {
  return text === true ? ['text/plain'] : text;
}

function json(schema: JsonSchema): JsonSchema {
  return { 'application/json': { schema } };
}

function reference(name: string): JsonSchema {
  return { $ref: `#/components/schemas/${name}` };
}

function templated(path: string): string {
  return path.replace(/[*:](\w+)/g, '{$1}');
}

/** "post_v1_chat_completions" */
function operationId(method: string, path: string): string {
  const words = path.match(/\w+/g) ?? ['home'];
  return [method.toLowerCase(), ...words].join('_');
}
