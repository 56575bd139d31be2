/** The form that the whole answer must have. */

import { invalidType, invalidValue } from './errors.js';
import { boolean, fieldsOf, type JsonObject, object, oneOf, string } from './fields.js';

export type ResponseFormat =
  | { readonly type: 'text' }
  | { readonly type: 'json_object' }
  | {
      readonly type: 'json_schema';
      readonly name: string;
      readonly schema: JsonObject | boolean;
      readonly strict: boolean;
    };

const FORMAT_NAME = /^[A-Za-z0-9_-]{1,64}$/;

export function parseResponseFormat(value: unknown, path: string): ResponseFormat {
  const fields = fieldsOf(value, path);
  const type = fields.required('type', oneOf('text', 'json_object', 'json_schema'));
  if (type === 'text') return { type };
  if (type === 'json_object') {
    // huggingface_hub writes OpenAI's json_schema as `json_object` with the schema as `value`, llama.cpp's users as `schema`.
    const own = fields.optional('value', schema) ?? fields.optional('schema', schema);
    return own === undefined ? { type } : { type: 'json_schema', name: 'response', schema: own, strict: true };
  }
  const format = fields.required('json_schema', fieldsOf);
  return {
    type,
    name: format.required('name', formatName),
    // Without a schema any JSON will do.
    schema: format.optional('schema', schema) ?? true,
    strict: format.optional('strict', boolean) ?? false,
  };
}

function formatName(value: unknown, path: string): string {
  const name = string(value, path);
  if (!FORMAT_NAME.test(name)) throw invalidValue(path, 'must be 1 to 64 characters of a-z, A-Z, 0-9, _ and -');
  return name;
}

function schema(value: unknown, path: string): JsonObject | boolean {
  if (typeof value === 'boolean') return value;
  if (typeof value !== 'object' || value === null) throw invalidType(path, 'a JSON schema', value);
  return object(value, path);
}
