/** One tool call, by the syntax of its family. */

import type { CallSyntax } from '../formats/index.js';
import type { ToolDefinition } from '../types.js';
import type { Reader, Step } from './reader.js';
import { castText, propertyNames, propertyOf, type Schema, typesOf } from './schema.js';
import type { EventSink } from './sink.js';
import { copyValue, escaped, readString, toJson } from './value.js';

/**
 * 'none': this is no call, and nothing was said about one. 'cut': a call was begun that never became whole.
 * 'whole': its arguments are complete.
 */
export type CallResult = 'none' | 'cut' | 'whole';

export interface CallContext {
  readonly reader: Reader;
  readonly sink: EventSink;
  readonly tools: readonly ToolDefinition[];
  /** Ends the section of the call, if anything does. */
  readonly close: string | undefined;
  /** Without a marker only the name of an offered tool makes a call. */
  readonly mustBeOffered: boolean;
}

/** Letters of a tool's name. OpenAI allows no dots, other clients do. */
const NAME = /[A-Za-z0-9_.-]/;
const MAX_NAME = 128;

export function* readCall(context: CallContext, call: CallSyntax): Step<CallResult> {
  switch (call.kind) {
    case 'json':
      return yield* readJson(context, call);
    case 'named':
      return yield* readNamed(context, call);
    case 'tagged':
      return yield* readTagged(context, call);
    case 'object':
      return yield* readObject(context, call);
    case 'python':
      return yield* readPython(context);
  }
}

/** The name is known and the arguments begin. Undefined if no call may begin so. */
function begin(context: CallContext, name: string): number | undefined {
  if (name === '' || name.length > MAX_NAME) return undefined;
  if (context.mustBeOffered && !context.tools.some((tool) => tool.name === name)) return undefined;
  // From here on it is a call: nothing of it will be read again.
  context.reader.forget();
  return context.sink.beginCall(name);
}

function schemaOf(context: CallContext, name: string): Schema {
  return context.tools.find((tool) => tool.name === name)?.parameters;
}

/** The arguments as an object that is JSON or nearly so. */
export function* copyArguments(
  { reader, sink }: Pick<CallContext, 'reader' | 'sink'>,
  index: number,
  dialect: { readonly quote?: string; readonly bare?: boolean } = {},
): Step<CallResult> {
  const whole = yield* copyValue(reader, (json) => sink.arguments(index, json), dialect);
  if (!whole) return 'cut';
  sink.endCall(index);
  return 'whole';
}

function* readJson(context: CallContext, call: CallSyntax & { kind: 'json' }): Step<CallResult> {
  const { reader } = context;
  if (!(yield* reader.literal('{'))) return 'none';
  yield* reader.spaces();
  // Qwen 2.5's template shows the object in double braces, and some write it so.
  const doubled = yield* reader.literal('{');
  let name: string | undefined;
  let early: string | undefined;
  let result: CallResult = 'none';
  for (;;) {
    yield* reader.all(/[\s,]/);
    if (yield* reader.literal('}')) break;
    const key = yield* readString(reader);
    // A brace too few is no harm once the arguments are there.
    if (key === undefined) return result;
    yield* reader.spaces();
    if (!(yield* reader.literal(':'))) return result;
    yield* reader.spaces();
    if (result === 'none' && (key === call.name || key === 'name')) {
      name = yield* readString(reader);
      if (name === undefined) return 'none';
      if (early !== undefined) result = sayCall(context, name, early);
      if (early !== undefined && result === 'none') return 'none';
    } else if (result === 'none' && (key === call.arguments || key === 'arguments' || key === 'parameters')) {
      if (name !== undefined && (yield* reader.peek()) === '{') {
        const index = begin(context, name);
        if (index === undefined) return 'none';
        result = yield* copyArguments(context, index);
        if (result === 'cut') return 'cut';
      } else {
        early = yield* readArguments(reader);
        if (early === undefined) return 'none';
        if (name !== undefined) result = sayCall(context, name, early);
        if (name !== undefined && result === 'none') return 'none';
      }
    } else if (!(yield* copyValue(reader, () => undefined))) {
      return result;
    }
  }
  if (doubled) {
    yield* reader.spaces();
    yield* reader.literal('}');
  }
  if (result === 'none' && name !== undefined && early === undefined) return sayCall(context, name, '{}');
  return result;
}

/** A call whose arguments are known already. */
function sayCall(context: CallContext, name: string, json: string): CallResult {
  const index = begin(context, name);
  if (index === undefined) return 'none';
  context.sink.arguments(index, json);
  context.sink.endCall(index);
  return 'whole';
}

/** Arguments that cannot be streamed: before the name, or a string that holds JSON. */
function* readArguments(reader: Reader): Step<string | undefined> {
  let json = '';
  if (!(yield* copyValue(reader, (part) => (json += part)))) return undefined;
  if (json.startsWith('{')) return json;
  if (json === 'null' || json === '""') return '{}';
  if (!json.startsWith('"')) return undefined;
  const inner = JSON.parse(json) as string;
  try {
    const value = JSON.parse(inner) as unknown;
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? inner : undefined;
  } catch {
    return undefined;
  }
}

function* readNamed(context: CallContext, call: CallSyntax & { kind: 'named' }): Step<CallResult> {
  const { reader } = context;
  if (!(yield* reader.loose(call.before))) return 'none';
  yield* reader.spaces();
  const name = yield* reader.all(NAME, MAX_NAME + 1);
  if (call.id !== undefined && (yield* reader.literal(call.id))) yield* reader.all(NAME, MAX_NAME);
  if (!(yield* reader.loose(call.between))) return 'none';
  yield* reader.spaces();
  if ((yield* reader.peek()) !== '{') return 'none';
  const index = begin(context, name);
  if (index === undefined) return 'none';
  const result = yield* copyArguments(context, index);
  if (result === 'whole') yield* reader.loose(call.after);
  return result;
}

function* readTagged(context: CallContext, call: CallSyntax & { kind: 'tagged' }): Step<CallResult> {
  const { reader, sink } = context;
  if (!(yield* reader.literal(call.nameOpen))) return 'none';
  const name = yield* reader.all(NAME, MAX_NAME + 1);
  if (!(yield* reader.loose(call.nameClose))) return 'none';
  yield* reader.spaces();
  const ends = [call.close, context.close ?? ''].filter((end) => end !== '');
  const atEnd = function* (): Step<boolean> {
    for (const end of ends) if (yield* reader.ahead(end)) return true;
    return false;
  };
  if (!(yield* reader.ahead(call.keyOpen)) && !(yield* atEnd())) return 'none';
  const index = begin(context, name);
  if (index === undefined) return 'none';
  const schema = schemaOf(context, name);
  sink.arguments(index, '{');
  for (let first = true; ; first = false) {
    yield* reader.spaces();
    if (yield* atEnd()) break;
    if (!(yield* reader.literal(call.keyOpen))) return 'cut';
    let key = '';
    const ended = yield* reader.until([call.keyClose], (text) => (key += text));
    if (ended === undefined) return 'cut';
    reader.advance(call.keyClose.length);
    if (call.valueOpen !== '' && !(yield* reader.loose(call.valueOpen))) return 'cut';
    sink.arguments(index, `${first ? '' : ', '}${JSON.stringify(key.trim())}: `);
    if (!(yield* copyTagged(context, call, index, propertyOf(schema, key.trim()), schema))) return 'cut';
  }
  if (call.close !== '') yield* reader.literal(call.close);
  sink.arguments(index, '}');
  sink.endCall(index);
  return 'whole';
}

/** The value of one tag: a string goes out as it comes, any other when it is there. */
function* copyTagged(
  { reader, sink }: CallContext,
  call: CallSyntax & { kind: 'tagged' },
  index: number,
  schema: Schema,
  root: Schema,
): Step<boolean> {
  if (call.lines) yield* reader.literal('\n');
  // A forgotten closing tag is made up for where a line begins with what follows it.
  const ends = call.lines
    ? [`\n${call.valueClose}`, call.valueClose, `\n${call.keyOpen}`, `\n${call.close}`]
    : [call.valueClose];
  const types = typesOf(schema, root);
  const isText = types?.size === 1 && types.has('string');
  let text = '';
  if (isText) sink.arguments(index, '"');
  const end = yield* reader.until(ends, (part) => {
    if (isText) sink.arguments(index, escaped(part));
    else text += part;
  });
  if (end === undefined) return false;
  sink.arguments(index, isText ? '"' : castText(text, toJson(text), types));
  if (end.endsWith(call.valueClose)) reader.advance(end.length);
  return true;
}

function* readObject(context: CallContext, call: CallSyntax & { kind: 'object' }): Step<CallResult> {
  const { reader } = context;
  if (!(yield* reader.loose(call.before))) return 'none';
  const name = yield* reader.all(NAME, MAX_NAME + 1);
  yield* reader.spaces();
  if ((yield* reader.peek()) !== '{') return 'none';
  const index = begin(context, name);
  if (index === undefined) return 'none';
  return yield* copyArguments(context, index, { quote: call.quote, bare: true });
}

function* readPython(context: CallContext): Step<CallResult> {
  const { reader, sink } = context;
  const name = yield* reader.all(NAME, MAX_NAME + 1);
  if (!(yield* reader.literal('('))) return 'none';
  const index = begin(context, name);
  if (index === undefined) return 'none';
  const positions = propertyNames(schemaOf(context, name));
  sink.arguments(index, '{');
  for (let count = 0; ; count++) {
    yield* reader.all(/[\s,]/);
    if (yield* reader.literal(')')) break;
    const start = reader.keep();
    let key: string | undefined = yield* reader.all(/\w/, MAX_NAME);
    yield* reader.spaces();
    if (key === '' || !(yield* reader.literal('='))) {
      // Without a name: by its place.
      reader.rewind(start);
      key = positions[count];
    }
    reader.forget();
    if (key === undefined) return 'cut';
    yield* reader.spaces();
    sink.arguments(index, `${count === 0 ? '' : ', '}${JSON.stringify(key)}: `);
    if (!(yield* copyValue(reader, (json) => sink.arguments(index, json)))) return 'cut';
  }
  sink.arguments(index, '}');
  sink.endCall(index);
  return 'whole';
}
