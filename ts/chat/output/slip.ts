/**
 * Small models slip: instead of the call's syntax they answer with the call as a bare or fenced JSON object, or with
 * several calls one after the other or in a list. If the whole message is such objects, each names an offered tool and its
 * arguments fit the tool's schema, they are the calls. Where only one may be made the others are dropped, as they are in
 * the call's own syntax.
 */

import type { ToolDefinition } from '../types.js';
import type { Reader, Step } from './reader.js';
import { fits } from './schema.js';
import type { EventSink } from './sink.js';
import { copyValue } from './value.js';

const KEYS = ['name', 'arguments', 'parameters', 'type'];

/** Reads the message if it is a slip and says the calls; else reads nothing, as early as that is sure. */
export function* readSlip(
  reader: Reader,
  sink: EventSink,
  tools: readonly ToolDefinition[],
  parallel: boolean,
): Step<boolean> {
  const start = reader.keep();
  const slips = yield* readWhole(reader, tools);
  if (slips === undefined) reader.rewind(start);
  reader.forget();
  if (slips === undefined) return false;
  for (const slip of parallel ? slips : slips.slice(0, 1)) {
    const index = sink.beginCall(slip.name);
    sink.arguments(index, slip.arguments);
    sink.endCall(index);
  }
  return true;
}

interface Slip {
  readonly name: string;
  readonly arguments: string;
}

/** Groups of calls, each perhaps in a fence, and nothing else. */
function* readWhole(reader: Reader, tools: readonly ToolDefinition[]): Step<Slip[] | undefined> {
  const slips: Slip[] = [];
  yield* reader.spaces();
  do {
    const fenced = yield* reader.literal('```');
    if (fenced) {
      yield* reader.all(/\w/, 16);
      yield* reader.spaces();
    }
    if (!(yield* readGroup(reader, tools, slips))) return undefined;
    if (fenced && !(yield* reader.literal('```'))) return undefined;
    // Marks of the end are no text.
    yield* reader.all(/[\s\ufdd0-\ufdef]/);
  } while ((yield* reader.peek()) === '`');
  return (yield* reader.peek()) === '' ? slips : undefined;
}

/** Calls in a list, or one after the other. */
function* readGroup(reader: Reader, tools: readonly ToolDefinition[], slips: Slip[]): Step<boolean> {
  const listed = yield* reader.literal('[');
  do {
    yield* reader.spaces();
    const slip = yield* readCallObject(reader, tools);
    if (slip === undefined) return false;
    const schema = tools.find((tool) => tool.name === slip.name)?.parameters;
    if (!fits(JSON.parse(slip.arguments), schema)) return false;
    slips.push(slip);
    yield* reader.spaces();
  } while ((yield* reader.all(/[,;]/, 1)) !== '' || (!listed && (yield* reader.peek()) === '{'));
  if (!listed) return true;
  if (!(yield* reader.literal(']'))) return false;
  yield* reader.spaces();
  return true;
}

function* readCallObject(reader: Reader, tools: readonly ToolDefinition[]): Step<Slip | undefined> {
  if (!(yield* reader.literal('{'))) return undefined;
  let name: string | undefined;
  let given: string | undefined;
  for (;;) {
    yield* reader.spaces();
    const key = yield* readOneOf(reader, KEYS);
    if (key === undefined) return undefined;
    yield* reader.spaces();
    if (!(yield* reader.literal(':'))) return undefined;
    yield* reader.spaces();
    if (key === 'name') {
      if (name !== undefined) return undefined;
      name = yield* readOneOf(
        reader,
        tools.map((tool) => tool.name),
      );
      if (name === undefined) return undefined;
    } else if (key === 'type') {
      if ((yield* readOneOf(reader, ['function'])) === undefined) return undefined;
    } else {
      if (given !== undefined || (yield* reader.peek()) !== '{') return undefined;
      let json = '';
      if (!(yield* copyValue(reader, (part) => (json += part)))) return undefined;
      given = json;
    }
    yield* reader.spaces();
    if (yield* reader.literal(',')) continue;
    if (!(yield* reader.literal('}'))) return undefined;
    return name === undefined || given === undefined ? undefined : { name, arguments: given };
  }
}

/** One of these strings in quotes, given up at the first letter that none of them has. */
function* readOneOf(reader: Reader, choices: readonly string[]): Step<string | undefined> {
  if (!(yield* reader.literal('"'))) return undefined;
  let text = '';
  while (choices.some((choice) => choice.startsWith(text))) {
    const next = yield* reader.peek();
    if (next === '') return undefined;
    reader.advance();
    if (next === '"') return choices.includes(text) ? text : undefined;
    text += next;
  }
  return undefined;
}
