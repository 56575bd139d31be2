/** What `!set` changes: the model, the system prompt and the fields that go with every request. */

import { CliFailure } from './failure.js';

export interface ChatSettings {
  readonly model: string;
  /** Fields of the request by their names on the wire; undefined ones are not sent. */
  readonly fields: Readonly<Record<string, unknown>>;
}

export interface Assignment {
  readonly name: string;
  /** Undefined: back to the server's default. */
  readonly value: unknown;
}

/** Fields that the session itself fills in. */
const OWN_FIELDS = ['messages', 'stream', 'stream_options', 'tools', 'tool_choice', 'n'];

/** `a=1 b="two words" c=[1,2] d=none`, as a list. Throws CliFailure. */
export function parseAssignments(text: string): Assignment[] {
  const pattern = /\s*(?:([A-Za-z_]\w*)=("(?:[^"\\]|\\.)*"|\[[^\]]*\]|\{.*\}|[^\s"]*)(?=\s|$)|(\S+))/gy;
  const found: Assignment[] = [];
  for (const [, name, value = '', rest] of text.trim().matchAll(pattern)) {
    if (name === undefined) throw new CliFailure(`'${rest ?? ''}' is not name=value; quote values with spaces`);
    if (OWN_FIELDS.includes(name)) throw new CliFailure(`${name} cannot be set here`);
    found.push({ name, value: parseValue(name, value) });
  }
  return found;
}

/** Numbers, booleans and lists as JSON or Python write them; anything else is text. */
function parseValue(name: string, text: string): unknown {
  if (/^(none|null|)$/i.test(text)) return undefined;
  if (/^(true|false)$/i.test(text)) return text.toLowerCase() === 'true';
  if (/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text)) return Number(text);
  if (!/^["[{]/.test(text)) return text;
  try {
    return JSON.parse(text) as unknown;
  } catch {
    throw new CliFailure(`${name}: ${text} is not valid JSON`);
  }
}

/** The settings after an assignment. `max_new_tokens` and `do_sample` are other names of what the API has. */
export function withField({ model, fields }: ChatSettings, { name, value }: Assignment): ChatSettings {
  switch (name) {
    case 'model':
      if (typeof value !== 'string') throw new CliFailure('model must be an id, like model=org/name');
      return { model: value, fields };
    case 'max_new_tokens':
      return { model, fields: { ...fields, max_tokens: value } };
    case 'do_sample':
      return { model, fields: { ...fields, temperature: value === false ? 0 : sampled(fields.temperature) } };
    default:
      return { model, fields: { ...fields, [name]: value } };
  }
}

/** A temperature that samples: what is set, unless it is greedy. */
function sampled(temperature: unknown): unknown {
  return temperature === undefined || temperature === 0 ? 1 : temperature;
}

/** `temperature=0.5 stop=["a"]` */
export function describeFields(fields: Readonly<Record<string, unknown>>): string {
  const set = Object.entries(fields).filter(([, value]) => value !== undefined);
  if (set.length === 0) return 'as the server decides';
  return set.map(([name, value]) => `${name}=${JSON.stringify(value)}`).join(' ');
}
