/**
 * `npm run docs`: writes docs/fields.md from the tables that the parsers go by. `--check` fails if that would change it.
 */

import { readFile, writeFile } from 'node:fs/promises';

import { CHAT_COMPLETION_FIELDS } from '../ts/protocol/chat-completions.js';
import { COMPLETION_FIELDS } from '../ts/protocol/completions.js';
import {
  CONVERSATION_FIELDS,
  CONVERSATION_ITEMS_FIELDS,
  CONVERSATION_UPDATE_FIELDS,
} from '../ts/protocol/conversations.js';
import type { FieldTable } from '../ts/protocol/field-table.js';
import { RESPONSE_FIELDS } from '../ts/protocol/responses.js';
import { LOAD_MODEL_FIELDS } from '../ts/protocol/load-model.js';

const file = new URL('../docs/fields.md', import.meta.url);

export function fieldsPage(): string {
  return `# Fields of requests

Made by \`npm run docs\` from the tables in \`ts/protocol/\`. **Honoured**: it does what OpenAI's API says. **Without effect**:
accepted and logged once. **Refused**: a 400 that names the field, because ignoring it would change the answer; values that
ask for nothing (\`n: 1\`, an empty list) pass. A field that is not listed is ignored and logged once, and with \`--strict\` is a 400.

${section('POST /v1/chat/completions', CHAT_COMPLETION_FIELDS)}
${section('POST /v1/completions', COMPLETION_FIELDS)}
${section('POST /v1/responses', RESPONSE_FIELDS)}
${section('POST /v1/conversations', CONVERSATION_FIELDS)}
${section('POST /v1/conversations/{id}', CONVERSATION_UPDATE_FIELDS)}
${section('POST /v1/conversations/{id}/items', CONVERSATION_ITEMS_FIELDS)}
${section('POST /load_model', LOAD_MODEL_FIELDS)}`;
}

const words = { honoured: 'honoured', ignored: 'without effect', refused: 'refused' } as const;

function section(title: string, fields: FieldTable): string {
  const rows = Object.entries(fields).sort(([a, x], [b, y]) => x.status.localeCompare(y.status) || a.localeCompare(b));
  const lines = rows.map(([name, rule]) => `| \`${name}\` | ${words[rule.status]} | ${rule.note ?? ''} |`);
  return `## ${title}\n\n| field | | |\n| --- | --- | --- |\n${lines.join('\n')}\n`;
}

if (process.argv[1]?.endsWith('docs.ts') === true) {
  const page = fieldsPage();
  if (!process.argv.includes('--check')) await writeFile(file, page);
  else if ((await readFile(file, 'utf8')) !== page)
    throw new Error("docs/fields.md is out of date: run 'npm run docs'");
}
