/**
 * `npm run docs`: writes docs/openai-compatibility.md from the tables that the parsers and the routes go by, and
 * docs/performance.md with its plots from the samples of the bench, where there are any. `--check` fails if that would
 * change one of them.
 */

import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

import { performancePages } from '../bench/peers/page.js';
import { readResults } from '../bench/peers/results.js';
import { ROUTES } from '../ts/http/routes/index.js';
import type { Route } from '../ts/http/routes/route.js';
import { ANSWER_EXTRAS } from '../ts/protocol/answer-extras.js';
import type { FieldTable } from '../ts/protocol/field-table.js';
import { GENERATION_CONFIG_FIELDS } from '../ts/protocol/generation-config.js';
import { RESPONSE_EVENT_TYPES } from '../ts/protocol/response-events.js';
import { TRANSCRIPT_EVENT_TYPES } from '../ts/protocol/transcripts.js';

const docs = new URL('../docs/', import.meta.url);

/** All generated pages by their paths under docs/. */
export async function generatedPages(): Promise<ReadonlyMap<string, string>> {
  const results = await readResults(fileURLToPath(new URL('performance/results.json', docs)));
  const pages = results === undefined ? [] : performancePages(results);
  return new Map([['openai-compatibility.md', compatibilityPage()], ...pages]);
}

export function compatibilityPage(): string {
  return `# What of OpenAI's API is served, field by field

Made by \`npm run docs\` from the tables that the parsers go by; a test holds them against OpenAI's published schema, field
by field in both directions. **Honoured**: it does what OpenAI's API says. **Without effect**: accepted and logged once.
**Refused**: a 400 that names the field, because ignoring it would change the answer; values that ask for nothing (an empty
list, \`best_of: 1\`) pass. Fields marked **extra** are not OpenAI's. A field that is not listed is ignored and logged once,
and with \`--strict\` is a 400.

## Endpoints

${table(['endpoint', ''], ROUTES.map(endpoint))}

A path of OpenAI's API that is not here answers with a 404 in its envelope. Whatever is sent, bodies, events and WebSocket
frames, fits OpenAI's published schemas and those of Open Responses; the tests listen to every server that they start.

${ROUTES.flatMap(fieldsOf).join('\n\n')}

## The fields of generation_config

transformers' GenerationConfig as a JSON string, in any of the three endpoints that generate. A field of the request goes
before it, the checkpoint's own generation_config.json after it.

${fieldRows(GENERATION_CONFIG_FIELDS)}

## What answers hold beyond OpenAI's

${table(
  ['object', 'field', ''],
  ANSWER_EXTRAS.map(({ of, at, note }) => [code(of), code(at), note]),
)}

## Events of a streamed response

${RESPONSE_EVENT_TYPES.map((type) => `- ${code(type)}`).join('\n')}

They come as server-sent events whose \`event:\` is the type, then \`data: [DONE]\`; over a WebSocket as one text frame each,
and what is wrong with a frame of the client as \`{"type":"error","status":…,"error":{…}}\`.

## Events of a streamed transcription

${TRANSCRIPT_EVENT_TYPES.map((type) => `- ${code(type)}`).join('\n')}

They come as \`data:\` alone, then \`data: [DONE]\`. [transcription.md](transcription.md) says more.
`;
}

function endpoint({ method, path, summary }: Route): readonly string[] {
  return [code(`${method} ${readable(path)}`), summary];
}

function fieldsOf(route: Route): string[] {
  const { method, path, body } = route;
  if (body === undefined) return [];
  const like = ROUTES.find(
    (other) => other !== route && other.body !== undefined && isIn(other.body.fields, body.fields),
  );
  const title = `## ${method} ${readable(path)}\n\n`;
  if (like?.body === undefined) return [title + fieldRows(body.fields)];
  const { fields } = like.body;
  const own = Object.fromEntries(Object.entries(body.fields).filter(([name, rule]) => fields[name] !== rule));
  return [`${title}As ${method} ${readable(like.path)}, and:\n\n${fieldRows(own)}`];
}

/** Whether a table holds all of another one that is large enough for it to be a wonder. */
function isIn(part: FieldTable, whole: FieldTable): boolean {
  const names = Object.keys(part);
  return names.length > 10 && names.every((name) => part[name] === whole[name]);
}

const WORDS = { honoured: 'honoured', ignored: 'without effect', refused: 'refused' } as const;

function fieldRows(fields: FieldTable): string {
  const rows = Object.entries(fields).sort(([a, x], [b, y]) => x.status.localeCompare(y.status) || a.localeCompare(b));
  return table(
    ['field', '', ''],
    rows.map(([name, { status, note, extra }]) => [
      code(name),
      WORDS[status],
      [...(extra === true ? ['**extra**'] : []), ...(note === undefined ? [] : [note])].join('; '),
    ]),
  );
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}

function code(text: string): string {
  return `\`${text}\``;
}

function readable(path: string): string {
  return path.replace(/[*:](\w+)/g, '{$1}');
}

if (process.argv[1]?.endsWith('docs.ts') === true) {
  for (const [path, page] of await generatedPages()) {
    const file = new URL(path, docs);
    if (!process.argv.includes('--check')) await writeFile(file, page);
    else if ((await readFile(file, 'utf8')) !== page)
      throw new Error(`docs/${path} is out of date: run 'npm run docs'`);
  }
}
