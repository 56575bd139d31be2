/**
 * OpenAI's published schema as an oracle. Two sources, one result:
 * - the types of the official client, which are generated from that schema, read out of the installed package and turned
 *   into JSON schema here: always;
 * - the OpenAPI document itself (github.com/openai/openai-openapi, openapi.json), where TSSERVE_OPENAI_OPENAPI names a
 *   copy of it; with the patches below.
 */

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

import { Ajv, type ValidateFunction } from 'ajv';
import ts from 'typescript';

type Schema = Record<string, any>;

/** Throws an Error that lists what is wrong. */
export type Check = (value: unknown) => void;

export interface ResponsesSchema {
  readonly event: Check;
  readonly response: Check;
}

export function clientSchema(): ResponsesSchema {
  const require = createRequire(import.meta.url);
  const file = path.join(path.dirname(require.resolve('openai')), 'resources/responses/responses.d.ts');
  const definitions = schemasOfTypes(file, ['ResponseStreamEvent', 'Response']);
  // Where the types contradict what the live API sends:
  // - a message of the live API that has not ended has `usage: null`
  const usage = definitions['Response']!['properties'];
  usage['usage'] = { anyOf: [usage['usage'], { type: 'null' }] };
  // - the client itself adds output_text, it does not come over the wire
  definitions['Response']!['required'] = definitions['Response']!['required'].filter(
    (k: string) => k !== 'output_text',
  );
  // - an MCP call's error is an object by now; these types still say a string
  for (const { properties } of Object.values(definitions)) {
    if (properties?.type?.const === 'mcp_call') properties.error = { anyOf: [properties.error, { type: 'object' }] };
  }
  const ajv = new Ajv({ strict: false, allErrors: false });
  const compile = (name: string): Check =>
    checkWith(ajv.compile({ $ref: `#/definitions/${name}`, definitions }), `the client's ${name}`);
  return { event: compile('ResponseStreamEvent'), response: compile('Response') };
}

/** Undefined where there is no copy of the document. */
export function publishedSchema(): ResponsesSchema | undefined {
  const file = process.env['TSSERVE_OPENAI_OPENAPI'];
  if (file === undefined) return undefined;
  const schemas = (JSON.parse(readFileSync(file, 'utf8')) as Schema)['components'].schemas as Record<string, Schema>;
  // `nullable: true` is OpenAPI 3.0 in a 3.1 document: JSON schema does not know it.
  const document = rewrite({ components: { schemas } }) as { components: { schemas: Record<string, Schema> } };
  const fixed = document.components.schemas;
  const response = fixed['Response']!['allOf'].at(-1).properties;
  // The live API sends null for both until there is something to say; the document has no null for them.
  response.usage = { anyOf: [response.usage, { type: 'null' }] };
  response.error = { anyOf: [response.error, { type: 'null' }] };
  const ajv = new Ajv({ strict: false, allErrors: false, validateFormats: false, discriminator: false });
  ajv.addSchema(document, 'openapi');
  const compile = (name: string): Check =>
    checkWith(ajv.compile({ $ref: `openapi#/components/schemas/${name}` }), `OpenAI's ${name}`);
  return { event: compile('ResponseStreamEvent'), response: compile('Response') };
}

function checkWith(validate: ValidateFunction, what: string): Check {
  return (value) => {
    if (validate(value)) return;
    const errors = (validate.errors ?? []).map(({ instancePath, message }) => `${instancePath} ${message ?? ''}`);
    const type = (value as { type?: string }).type ?? '';
    throw new Error(`${type} is not ${what}: ${[...new Set(errors)].slice(0, 12).join('; ')}`);
  };
}

function rewrite(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(rewrite);
  if (typeof value !== 'object' || value === null) return value;
  const { nullable, ...rest } = value as Schema;
  const schema = Object.fromEntries(Object.entries(rest).map(([key, item]) => [key, rewrite(item)]));
  delete schema['discriminator'];
  if (typeof schema['$ref'] === 'string') return { $ref: schema['$ref'].replace('#/', 'openapi#/') };
  return nullable === true ? { anyOf: [schema, { type: 'null' }] } : schema;
}

/** The named types of a declaration file, and all they mention, as JSON schema. */
function schemasOfTypes(file: string, names: readonly string[]): Record<string, Schema> {
  const program = ts.createProgram([file], { strict: true, skipLibCheck: true, target: ts.ScriptTarget.ES2022 });
  const checker = program.getTypeChecker();
  const source = program.getSourceFile(file);
  const module = source && checker.getSymbolAtLocation(source);
  if (source === undefined || module === undefined) throw new Error(`${file} cannot be read`);
  const definitions: Record<string, Schema> = {};
  const known = new Map<ts.Type, string>();

  const schemaOf = (type: ts.Type, optional = false): Schema => {
    if (type.flags & (ts.TypeFlags.Any | ts.TypeFlags.Unknown)) return {};
    if (type.isStringLiteral() || type.isNumberLiteral()) return { const: type.value };
    if (type.flags & ts.TypeFlags.BooleanLiteral) return { const: checker.typeToString(type) === 'true' };
    if (type.flags & ts.TypeFlags.String) return { type: 'string' };
    if (type.flags & ts.TypeFlags.Number) return { type: 'number' };
    if (type.flags & ts.TypeFlags.Boolean) return { type: 'boolean' };
    if (type.flags & ts.TypeFlags.Null) return { type: 'null' };
    if (type.isUnion()) {
      const members = type.types.filter((member) => !(optional && member.flags & ts.TypeFlags.Undefined));
      // `(string & {})` is a string that an editor still completes.
      return members.length === 1
        ? schemaOf(members[0]!)
        : named(type, () => ({ anyOf: members.map((m) => schemaOf(m)) }));
    }
    if (type.isIntersection()) return { allOf: type.types.map((member) => schemaOf(member)) };
    if (checker.isArrayType(type)) {
      return { type: 'array', items: schemaOf(checker.getTypeArguments(type as ts.TypeReference)[0]!) };
    }
    return named(type, () => objectSchema(type));
  };
  const named = (type: ts.Type, make: () => Schema): Schema => {
    let name = known.get(type);
    if (name === undefined) {
      name = `type${known.size}`;
      known.set(type, name);
      definitions[name] = {};
      definitions[name] = make();
    }
    return { $ref: `#/definitions/${name}` };
  };
  const objectSchema = (type: ts.Type): Schema => {
    const properties: Record<string, Schema> = {};
    const required: string[] = [];
    for (const property of checker.getPropertiesOfType(type)) {
      const isOptional = (property.flags & ts.SymbolFlags.Optional) !== 0;
      properties[property.name] = schemaOf(checker.getTypeOfSymbol(property), isOptional);
      if (!isOptional) required.push(property.name);
    }
    const index = checker.getIndexTypeOfType(type, ts.IndexKind.String);
    const isEmpty = required.length === 0 && Object.keys(properties).length === 0 && index === undefined;
    if (isEmpty) return {};
    return {
      type: 'object',
      properties,
      required,
      ...(index === undefined ? {} : { additionalProperties: schemaOf(index) }),
    };
  };

  for (const name of names) {
    const symbol = checker.getExportsOfModule(module).find((candidate) => candidate.name === name);
    if (symbol === undefined) throw new Error(`${file} declares no ${name}`);
    const { $ref } = schemaOf(checker.getDeclaredTypeOfSymbol(symbol));
    definitions[name] = definitions[String($ref).replace('#/definitions/', '')]!;
  }
  return definitions;
}
