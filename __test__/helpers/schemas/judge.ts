/** What the server says, held against everything that says what it should be. */

import type { ValidateFunction } from 'ajv';
import { Ajv2020 } from 'ajv/dist/2020.js';

import { describeApi } from '../../../ts/http/openapi.js';
import { ROUTES } from '../../../ts/http/routes/index.js';
import { extraPatches } from './extras.js';
import { OPEN_RESPONSES_PATCHES, OPENAI_PATCHES } from './patches.js';
import { PublishedSchema, readSpec, templateFor } from './published.js';
import type { Schema } from './rewrite.js';

/** One message that went out. */
export interface Said {
  readonly method: string;
  /** As requested, without its query. */
  readonly path: string;
  readonly status: number;
  readonly value: unknown;
  /** A whole body, an event of a stream, or a frame of a WebSocket. */
  readonly as: 'body' | 'event' | 'frame';
}

/** By the name of their file. */
export type Schemas = Readonly<Record<'openai.json' | 'open-responses.json', PublishedSchema>>;

let schemas: Schemas | undefined;

function publishedSchemas(): Schemas {
  if (schemas !== undefined) return schemas;
  const spec = readSpec('openai.json');
  schemas = {
    'openai.json': new PublishedSchema(spec, 'closed', [...extraPatches(spec), ...OPENAI_PATCHES]),
    // It has clients drop what they do not know: a superset is what it expects.
    'open-responses.json': new PublishedSchema(readSpec('open-responses.json'), 'open', OPEN_RESPONSES_PATCHES),
  };
  return schemas;
}

/** Where answers stream without the document's saying so. */
const STREAMS: Readonly<Record<string, string>> = {
  '/completions': 'CreateCompletionResponse',
  // A translation streams as a transcription does.
  '/audio/translations': 'CreateTranscriptionResponseStreamEvent',
  '/responses/{response_id}': 'ResponseStreamEvent',
};

/**
 * What is wrong with a message; undefined if nothing is.
 * @param others instead of the schemas that there are
 */
export function problemOf(said: Said, others: Partial<Schemas> = {}): string | undefined {
  const problem = problemBySchemas(said, { ...publishedSchemas(), ...others });
  if (problem === undefined) return undefined;
  const { method, path, status, value, as } = said;
  const what = as === 'body' ? `${status} of ${method} ${path}` : `the ${as} of ${method} ${path}`;
  return `${what}: ${problem} in ${JSON.stringify(value).slice(0, 600)}`;
}

function problemBySchemas(said: Said, by: Schemas): string | undefined {
  const { 'openai.json': openai, 'open-responses.json': openResponses } = by;
  const { method, path, status, value } = said;
  const isEvent = said.as !== 'body';
  // It says with 503 what it says with 200.
  if (path === '/health') return problemByOurs('GET', path, value, isEvent);
  // WebSocket mode stands in Open Responses only.
  if (isErrorFrame(said)) return openResponses.problem('WebSocketErrorEvent', value);
  if (status >= 400 || isFailureEvent(said)) return openai.problem('ErrorResponse', value);
  const own = path.replace(/^\/v1/, '').replace(/(?<=.)\/$/, '');
  const type = isEvent ? 'text/event-stream' : 'application/json';
  const template = templateFor(Object.keys(openai.spec.paths), own);
  const stream = isEvent && template !== undefined ? STREAMS[template] : undefined;
  const schema = stream === undefined ? openai.answerOf(method, own, type) : { $ref: `#/components/schemas/${stream}` };
  const byOurs = problemByOurs(method, path, value, isEvent);
  if (schema === undefined || byOurs !== undefined) return byOurs;
  return openai.problemBy(schema, value) ?? problemByOpenResponses(openResponses, schema, value);
}

/** Its names differ, what they stand for is the same. */
function problemByOpenResponses(openResponses: PublishedSchema, schema: Schema, value: unknown): string | undefined {
  const other = {
    '#/components/schemas/Response': openResponses.answerOf('post', '/responses', 'application/json'),
    '#/components/schemas/ResponseStreamEvent': openResponses.answerOf('post', '/responses', 'text/event-stream'),
    '#/components/schemas/CompactResource': openResponses.answerOf('post', '/responses/compact', 'application/json'),
  }[String(schema['$ref'])];
  if (other === undefined) return undefined;
  const problem = openResponses.problemBy(other, value);
  return problem === undefined ? undefined : `by Open Responses ${problem}`;
}

/** A stream that fails on its way ends with an error's envelope. */
function isFailureEvent({ as, value }: Said): boolean {
  return as === 'event' && typeof value === 'object' && value !== null && Object.keys(value).join() === 'error';
}

function isErrorFrame({ as, value }: Said): boolean {
  return as === 'frame' && (value as { readonly type?: unknown }).type === 'error';
}

/** Our own description of the API, which has to fit as well. */
const ours = describeApi(ROUTES, { keys: false }) as Schema;
const ajv = new Ajv2020({ strict: false }).addSchema({ $id: 'ours', ...ours });
const compiled = new Map<string, ValidateFunction>();

function problemByOurs(method: string, path: string, value: unknown, isEvent: boolean): string | undefined {
  const paths = ours['paths'] as Schema;
  const template = templateFor(Object.keys(paths), path.replace(/(?<=.)\/$/, ''));
  const operation = template === undefined ? undefined : paths[template][method.toLowerCase()];
  if (template === undefined || operation === undefined) return 'nobody says what this endpoint answers';
  const type = isEvent ? 'text/event-stream' : 'application/json';
  const content = operation.responses[200].content[type];
  if (content === undefined) return `our own description has no ${type} here`;
  const key = `${method} ${template} ${type}`;
  let validate = compiled.get(key);
  if (validate === undefined) {
    const text = JSON.stringify(content.schema).replaceAll('"#/components', '"ours#/components');
    validate = ajv.compile(JSON.parse(text) as Schema);
    compiled.set(key, validate);
  }
  return validate(value) ? undefined : `by our own description ${ajv.errorsText(validate.errors)}`;
}
