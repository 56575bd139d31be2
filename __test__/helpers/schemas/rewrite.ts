/** OpenAPI as it is published → JSON schema 2020-12 as ajv takes it, with objects that hold what is declared and nothing else. */

export type Schema = Record<string, any>;

export interface SpecDocument {
  readonly openapi: string;
  readonly info: { readonly title: string; readonly version: string };
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: { readonly schemas: Record<string, Schema> };
}

export interface Operation {
  readonly requestBody?: { readonly content: Content };
  readonly responses: { readonly 200: { readonly content: Content } };
}

export type Content = Readonly<Record<string, { readonly schema: Schema }>>;

/** Whether an object may hold more than its schema declares. */
export type Openness = 'open' | 'closed';

const PREFIX = '#/components/schemas/';

/**
 * Every component in two forms: `closed.NAME` holds only declared properties, `open.NAME` is a part of something larger
 * (an `allOf`) that knows the others.
 */
export function definitionsOf({ components }: SpecDocument, openness: Openness): Record<string, Schema> {
  return Object.fromEntries(
    Object.entries(components.schemas).flatMap(([name, schema]) => [
      [`open.${name}`, rewrite(schema, 'open', openness, name)],
      [`closed.${name}`, rewrite(schema, openness, openness, name)],
    ]),
  );
}

/** @param schema as it stands at an endpoint */
export function rootSchema(schema: Schema, openness: Openness): Schema {
  return rewrite(schema, openness, openness, '');
}

/**
 * @param here for this very object
 * @param below for the values in it
 * @param name of the component, for references to itself
 */
function rewrite(schema: Schema, here: Openness, below: Openness, name: string): Schema {
  if (typeof schema !== 'object') return schema;
  // OpenAPI 3.0's way to allow null, which the published 3.1 documents still use.
  if (schema['nullable'] === true) {
    return { anyOf: [rewrite({ ...schema, nullable: false }, here, below, name), { type: 'null' }] };
  }
  const { $ref, $recursiveRef, ...rest } = schema;
  if ($ref !== undefined || $recursiveRef !== undefined) {
    const target = $ref === undefined ? name : String($ref).replace(PREFIX, '');
    return Object.keys(rest).length === 0
      ? { $ref: `#/$defs/${here}.${target}` }
      : { $ref: `#/$defs/open.${target}`, ...rewrite(rest, here, below, name) };
  }
  const within = (inner: Schema): Schema => rewrite(inner, below, below, name);
  const isObject = schema['properties'] !== undefined;
  const isSum = schema['allOf'] !== undefined;
  // What is beside the members of a union belongs to each of them: then only the whole knows all properties.
  const members: Openness = isObject || isSum ? 'open' : here;
  const out: Schema = {};
  for (const [key, value] of Object.entries(schema)) {
    switch (key) {
      // Neither says what is valid: a discriminator only speeds a union up.
      case 'discriminator':
      case 'nullable':
      case '$recursiveAnchor':
        break;
      case 'properties':
      case 'patternProperties':
        out[key] = Object.fromEntries(Object.entries(value as Schema).map(([own, inner]) => [own, within(inner)]));
        break;
      case 'items':
      case 'additionalProperties':
        out[key] = within(value);
        break;
      case 'prefixItems':
        out[key] = (value as Schema[]).map(within);
        break;
      case 'anyOf':
      case 'oneOf':
        out[key] = (value as Schema[]).map((inner) => rewrite(inner, members, below, name));
        break;
      case 'allOf':
        out[key] = (value as Schema[]).map((inner) => rewrite(inner, 'open', below, name));
        break;
      default:
        out[key] = value;
    }
  }
  const isSettled = schema['additionalProperties'] !== undefined || schema['unevaluatedProperties'] !== undefined;
  if (here === 'closed' && (isObject || isSum) && !isSettled) out['unevaluatedProperties'] = false;
  return out;
}
