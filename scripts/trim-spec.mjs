/**
 * `node scripts/trim-spec.mjs INPUT.json OUTPUT.json`: makes fixtures/specs/ of published OpenAPI documents. What is left is
 * what a test needs: the endpoints that are served here, their bodies and answers, and the schemas that these lead to;
 * without descriptions, examples and vendor extensions. fixtures/specs/README.md says which documents they were.
 */

import { readFile, writeFile } from 'node:fs/promises';
import { basename } from 'node:path';

/** Endpoints of the API that are served, or that a program expects where the others are. */
const PATHS = [
  /^\/chat\/completions$/,
  /^\/completions$/,
  /^\/responses(\/(?!.*\?).*)?$/,
  /^\/conversations(\/.*)?$/,
  /^\/models(\/.*)?$/,
  /^\/audio\/(transcriptions|translations)$/,
];

/** Schemas that no answer names, and that are sent all the same. */
const FURTHER = ['ErrorResponse', 'WebSocketErrorEvent'];

const PROSE = new Set(['description', 'summary', 'title', 'example', 'examples', 'externalDocs', 'deprecated']);

const [input, output] = process.argv.slice(2);
if (input === undefined || output === undefined) {
  process.stderr.write(`usage: node scripts/${basename(process.argv[1])} INPUT.json OUTPUT.json\n`);
  process.exit(2);
}
const trimmed = trim(JSON.parse(await readFile(input, 'utf8')));
await writeFile(output, `${JSON.stringify(trimmed, undefined, 1)}\n`);
process.stdout.write(`${Object.keys(trimmed.components.schemas).length} schemas\n`);

function trim({ openapi, info, paths, components }) {
  const served = Object.entries(paths).filter(([path]) => PATHS.some((pattern) => pattern.test(path)));
  const kept = Object.fromEntries(served.map(([path, item]) => [path, operationsOf(item)]));
  const schemas = reachable(kept, components.schemas);
  return { openapi, info: { title: info.title, version: info.version }, paths: kept, components: { schemas } };
}

/** Of each method its body and what it answers when all is well. */
function operationsOf(item) {
  const operations = Object.entries(item).filter(([method]) => /^(get|post|delete)$/.test(method));
  return Object.fromEntries(
    operations.map(([method, { requestBody, responses }]) => [
      method,
      {
        ...(requestBody === undefined ? {} : { requestBody: { content: contentOf(requestBody) } }),
        responses: { 200: { content: contentOf(responses[200]) } },
      },
    ]),
  );
}

function contentOf({ content = {} }) {
  return Object.fromEntries(Object.entries(content).map(([type, { schema }]) => [type, { schema: bare(schema) }]));
}

/** By name, in the document's order. */
function reachable(root, schemas) {
  const found = new Map();
  const visit = (node) => {
    for (const name of references(node)) {
      if (found.has(name)) continue;
      const schema = bare(schemas[name]);
      found.set(name, schema);
      visit(schema);
    }
  };
  visit(root);
  for (const name of FURTHER.filter((name) => Object.hasOwn(schemas, name)))
    visit({ $ref: `#/components/schemas/${name}` });
  return Object.fromEntries(Object.keys(schemas).flatMap((name) => (found.has(name) ? [[name, found.get(name)]] : [])));
}

function* references(node) {
  if (typeof node !== 'object' || node === null) return;
  for (const [key, value] of Object.entries(node)) {
    if (key === '$ref') yield value.replace('#/components/schemas/', '');
    else yield* references(value);
  }
}

/** A schema without prose. Below `properties` the keys are names of properties, whatever they are called. */
function bare(schema) {
  if (Array.isArray(schema)) return schema.map(bare);
  if (typeof schema !== 'object' || schema === null) return schema;
  const entries = Object.entries(schema).filter(([key]) => !PROSE.has(key) && !key.startsWith('x-'));
  return Object.fromEntries(
    entries.map(([key, value]) => {
      if (key === 'properties' || key === '$defs') {
        return [key, Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, bare(inner)]))];
      }
      // Values, not schemas.
      return [key, key === 'enum' || key === 'const' || key === 'default' || key === 'required' ? value : bare(value)];
    }),
  );
}
