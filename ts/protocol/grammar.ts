/** Structured output as vLLM's clients ask for it: `guided_*` and `structured_outputs`, and OpenAI's `response_format`. */

import { invalidType, invalidValue } from './errors.js';
import {
  array,
  boolean,
  type Fields,
  fieldsOf,
  isObject,
  type JsonObject,
  nonEmptyString,
  object,
  oneOf,
} from './fields.js';

/** What the answer must match. */
export type GrammarFields =
  | { readonly type: 'json_object' }
  | { readonly type: 'json_schema'; readonly schema: JsonObject | boolean }
  | { readonly type: 'regex'; readonly pattern: string }
  | { readonly type: 'choice'; readonly choices: readonly string[] }
  | { readonly type: 'lark'; readonly grammar: string };

type Found = readonly [path: string, grammar: GrammarFields];

/** The one grammar that a request asks for; undefined if none. */
export function parseGrammar(fields: Fields): GrammarFields | undefined {
  return theOnly(fields)?.[1];
}

/** The same without that of `response_format`, which is somebody else's, but must not come with another. */
export function parseGuided(fields: Fields): GrammarFields | undefined {
  const [path, grammar] = theOnly(fields) ?? [];
  return path === fields.pathOf('response_format') ? undefined : grammar;
}

function theOnly(fields: Fields): Found | undefined {
  const structured = fields.optional('structured_outputs', (value, path) => found(fieldsOf(value, path), '')) ?? [];
  const format = fields.optional('response_format', (value, path): Found[] => {
    const grammar = parseResponseFormat(value, path);
    return grammar === undefined ? [] : [[path, grammar]];
  });
  const [first, second] = [...found(fields, 'guided_'), ...structured, ...(format ?? [])];
  if (second !== undefined) throw invalidValue(second[0], `cannot be combined with '${first?.[0] ?? ''}'`);
  return first;
}

function found(fields: Fields, prefix: '' | 'guided_'): Found[] {
  const one = (name: string, parse: (value: unknown, path: string) => GrammarFields | undefined): Found[] => {
    const grammar = fields.optional(`${prefix}${name}`, parse);
    return grammar === undefined ? [] : [[fields.pathOf(`${prefix}${name}`), grammar]];
  };
  return [
    ...one('json', (value, path) => ({ type: 'json_schema', schema: parseSchema(value, path) })),
    ...one('json_object', (value, path) => (boolean(value, path) ? { type: 'json_object' } : undefined)),
    ...one('regex', (value, path) => ({ type: 'regex', pattern: nonEmptyString(value, path) })),
    ...one('choice', (value, path) => ({ type: 'choice', choices: array(nonEmptyString, 1)(value, path) })),
    ...one('grammar', (value, path) => ({ type: 'lark', grammar: nonEmptyString(value, path) })),
  ];
}

/** A schema, or its JSON text. */
function parseSchema(value: unknown, path: string): JsonObject | boolean {
  let schema = value;
  if (typeof value === 'string') {
    try {
      schema = JSON.parse(value);
    } catch {
      throw invalidValue(path, 'must hold a JSON schema');
    }
  }
  if (typeof schema === 'boolean' || isObject(schema)) return schema;
  throw invalidType(path, 'a JSON schema', schema);
}

function parseResponseFormat(value: unknown, path: string): GrammarFields | undefined {
  const format = fieldsOf(value, path);
  const type = format.required('type', oneOf('text', 'json_object', 'json_schema'));
  if (type === 'text') return undefined;
  if (type === 'json_object') {
    const schema = format.optional('value', parseSchema) ?? format.optional('schema', parseSchema);
    return schema === undefined ? { type } : { type: 'json_schema', schema };
  }
  const inner = fieldsOf(format.required('json_schema', object), format.pathOf('json_schema'));
  return { type, schema: inner.optional('schema', parseSchema) ?? {} };
}
