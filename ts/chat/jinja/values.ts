/** Jinja's values with Python's semantics: truth, equality, order, str(), repr(), json.dumps. */

import { TemplateRuntimeError } from './errors.js';

/** A Python float; plain JavaScript numbers are ints. */
export class Float {
  constructor(readonly value: number) {}
}

export class Tuple {
  constructor(readonly items: readonly Value[]) {}
}

/** `namespace()` and `loop`: attributes, no mapping behaviour. */
export class Namespace {
  readonly fields: Map<string, Value>;

  constructor(fields: Iterable<readonly [string, Value]> = []) {
    this.fields = new Map(fields);
  }
}

export type Keywords = ReadonlyMap<string, Value>;

export class Callable {
  constructor(
    readonly name: string,
    readonly call: (args: readonly Value[], keywords: Keywords) => Value,
  ) {}
}

export type Dict = Map<Value, Value>;
/** `undefined` is Jinja's Undefined, `null` is None. */
export type Value =
  undefined | null | boolean | number | string | Float | Value[] | Tuple | Dict | Namespace | Callable;

/**
 * Longest text or list that an operation may make. A worker that runs out of memory in one big step takes the whole
 * process with it, so sizes are checked before the step.
 */
const MAX_SIZE = 16 * 1024 * 1024;

/** The size itself, or a TemplateRuntimeError if it is too large. */
export function fit(size: number): number {
  if (size > MAX_SIZE) throw new TemplateRuntimeError(`a value would be larger than ${MAX_SIZE}`);
  return size;
}

/** About how long the value is as text. A list that holds another one twice, many times over, fails here early. */
export function measure(value: Value, before = 0): number {
  if (typeof value === 'string') return fit(before + value.length);
  if (value instanceof Map) {
    let size = before;
    for (const [key, item] of value) size = measure(item, measure(key, size));
    return fit(size + 2);
  }
  const items = sequenceItems(value) ?? [];
  return fit(items.reduce<number>((size, item) => measure(item, size), before) + items.length + 2);
}

/** Plain JSON-like data to values. Integral numbers are ints: JSON's 1.0 cannot be told from 1 in JavaScript. */
export function fromPlain(input: unknown): Value {
  switch (typeof input) {
    case 'undefined':
    case 'boolean':
    case 'string':
      return input;
    case 'number':
      return Number.isInteger(input) ? input : new Float(input);
    case 'object': {
      if (input === null) return null;
      if (Array.isArray(input)) return input.map(fromPlain);
      const dict: Dict = new Map();
      for (const [key, value] of Object.entries(input)) if (value !== undefined) dict.set(key, fromPlain(value));
      return dict;
    }
    default:
      throw new TemplateRuntimeError(`a ${typeof input} cannot be given to a template`);
  }
}

/** Python's name of the type, for messages. */
export function typeName(value: Value): string {
  if (value === undefined) return 'undefined';
  if (value === null) return 'NoneType';
  if (typeof value === 'string') return 'str';
  if (typeof value === 'boolean') return 'bool';
  if (typeof value === 'number') return 'int';
  if (value instanceof Float) return 'float';
  if (value instanceof Tuple) return 'tuple';
  if (value instanceof Map) return 'dict';
  if (value instanceof Namespace) return 'namespace';
  return value instanceof Callable ? 'function' : 'list';
}

export function truthy(value: Value): boolean {
  if (value instanceof Float) return value.value !== 0;
  if (value instanceof Tuple) return value.items.length > 0;
  if (value instanceof Map) return value.size > 0;
  if (Array.isArray(value)) return value.length > 0;
  return typeof value === 'object' && value !== null ? true : Boolean(value);
}

/** The number behind an int, float or bool. */
export function numeric(value: Value): number | undefined {
  if (typeof value === 'number') return value;
  if (typeof value === 'boolean') return Number(value);
  return value instanceof Float ? value.value : undefined;
}

/** An int (or bool, which is one in Python); anything else is an error that names what it was for. */
export function integer(value: Value, what: string): number {
  if (typeof value === 'number') return value;
  if (typeof value === 'boolean') return Number(value);
  throw new TemplateRuntimeError(`${what} must be an integer, not ${typeName(value)}`);
}

/** A string; anything else is an error that names what it was for. */
export function text(value: Value, what: string): string {
  if (typeof value === 'string') return value;
  throw new TemplateRuntimeError(`${what} must be a string, not ${typeName(value)}`);
}

/** The items of a list or tuple, or undefined. */
export function sequenceItems(value: Value): readonly Value[] | undefined {
  if (Array.isArray(value)) return value;
  return value instanceof Tuple ? value.items : undefined;
}

/** What `for` goes over. Undefined is empty, as in Jinja; None and numbers are errors. */
export function iterate(value: Value): readonly Value[] {
  const items = sequenceItems(value);
  if (items) return items;
  if (value === undefined) return [];
  if (typeof value === 'string') return characters(value);
  if (value instanceof Map) return [...value.keys()];
  throw new TemplateRuntimeError(`'${typeName(value)}' object is not iterable`);
}

/** The text itself, if it is not too long to be taken apart: each piece takes many times its own length. */
export function divisible(value: string): string {
  fit(value.length * 8);
  return value;
}

/** The code points: Python counts and cuts strings by them. */
export function characters(value: string): string[] {
  return Array.from(divisible(value));
}

export function lengthOf(value: Value): number {
  if (typeof value === 'string') {
    let pairs = 0;
    for (let at = 0; at < value.length; at += 1) {
      if ((value.codePointAt(at) ?? 0) > 0xffff) pairs += 1;
    }
    return value.length - pairs;
  }
  if (value instanceof Map) return value.size;
  const items = value === undefined ? [] : sequenceItems(value);
  if (!items) throw new TemplateRuntimeError(`object of type '${typeName(value)}' has no len()`);
  return items.length;
}

export function equal(a: Value, b: Value): boolean {
  if (a === b) return true;
  const x = numeric(a);
  if (x !== undefined) return x === numeric(b);
  if (a instanceof Map) {
    if (!(b instanceof Map) || a.size !== b.size) return false;
    for (const [key, value] of a) if (!b.has(key) || !equal(value, b.get(key))) return false;
    return true;
  }
  // A list never equals a tuple.
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const left = sequenceItems(a);
  const right = sequenceItems(b);
  return !!left && !!right && left.length === right.length && left.every((item, i) => equal(item, right[i]));
}

/** Negative, zero or positive. Numbers with numbers, strings with strings, lists with lists; the rest is an error. */
export function compare(a: Value, b: Value): number {
  const x = numeric(a);
  const y = numeric(b);
  if (x !== undefined && y !== undefined) return x - y;
  if (typeof a === 'string' && typeof b === 'string') return compareStrings(a, b);
  const left = sequenceItems(a);
  const right = sequenceItems(b);
  if (left && right && Array.isArray(a) === Array.isArray(b)) {
    for (let i = 0; i < Math.min(left.length, right.length); i += 1) {
      if (!equal(left[i], right[i])) return compare(left[i], right[i]);
    }
    return left.length - right.length;
  }
  throw new TemplateRuntimeError(`'<' not supported between instances of '${typeName(a)}' and '${typeName(b)}'`);
}

/** By code points; JavaScript's own order is by UTF-16 units. */
function compareStrings(a: string, b: string): number {
  if (a === b) return 0;
  const right = b[Symbol.iterator]();
  for (const char of a) {
    const other = right.next();
    if (other.done) return 1;
    if (char !== other.value) return (char.codePointAt(0) as number) - (other.value.codePointAt(0) as number);
  }
  return -1;
}

/** `x in container`. */
export function contains(container: Value, item: Value): boolean {
  if (typeof container === 'string') {
    if (typeof item === 'string') return container.includes(item);
    throw new TemplateRuntimeError(`'in <string>' requires string as left operand, not ${typeName(item)}`);
  }
  if (container instanceof Map) return container.has(item);
  if (
    container instanceof Namespace ||
    container instanceof Callable ||
    numeric(container) !== undefined ||
    container === null
  ) {
    throw new TemplateRuntimeError(`argument of type '${typeName(container)}' is not iterable`);
  }
  return iterate(container).some((entry) => equal(entry, item));
}

/** Python's str(); Undefined is empty. */
export function str(value: Value): string {
  if (typeof value === 'string') return value;
  return value === undefined ? '' : repr(value);
}

/** Python's repr(). */
export function repr(value: Value): string {
  if (typeof value === 'object') measure(value);
  return reprOf(value);
}

function reprOf(value: Value): string {
  if (value === undefined) return 'Undefined';
  if (value === null) return 'None';
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  if (typeof value === 'number') return intText(value);
  if (typeof value === 'string') return stringRepr(value);
  if (value instanceof Float) return floatRepr(value.value);
  if (value instanceof Map) return `{${[...value].map(([k, v]) => `${reprOf(k)}: ${reprOf(v)}`).join(', ')}}`;
  if (value instanceof Tuple) return `(${value.items.map(reprOf).join(', ')}${value.items.length === 1 ? ',' : ''})`;
  if (value instanceof Namespace) return `<Namespace ${reprOf(new Map(value.fields))}>`;
  if (value instanceof Callable) return `<function ${value.name}>`;
  return `[${value.map(reprOf).join(', ')}]`;
}

function intText(value: number): string {
  return Number.isSafeInteger(value) ? String(value) : BigInt(value).toString();
}

function floatRepr(value: number): string {
  if (Number.isNaN(value)) return 'nan';
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf';
  if (Object.is(value, -0)) return '-0.0';
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e16)) {
    // Python's exponents have two digits at least.
    return value.toExponential().replace(/e([+-])(\d)$/, 'e$10$2');
  }
  return Number.isInteger(value) ? value.toFixed(1) : String(value);
}

const REPR_ESCAPES: Readonly<Record<string, string>> = { '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t' };

function stringRepr(value: string): string {
  const quote = value.includes("'") && !value.includes('"') ? '"' : "'";
  // \p{C} and the separators but the space: what Python calls not printable.
  const body = value.replace(/[\\\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu, (char) => {
    const known = REPR_ESCAPES[char];
    if (known) return known;
    const code = char.codePointAt(0) as number;
    if (code < 0x100) return `\\x${code.toString(16).padStart(2, '0')}`;
    return code < 0x10000 ? `\\u${code.toString(16).padStart(4, '0')}` : `\\U${code.toString(16).padStart(8, '0')}`;
  });
  return quote + (quote === "'" ? body.replaceAll("'", "\\'") : body) + quote;
}

export interface JsonOptions {
  readonly ensureAscii: boolean;
  /** What one level adds; undefined: one line. */
  readonly indent: string | undefined;
  readonly itemSeparator: string;
  readonly keySeparator: string;
  readonly sortKeys: boolean;
}

/** Python's json.dumps. */
export function toJson(value: Value, options: JsonOptions): string {
  measure(value);
  return jsonOf(value, options, 0);
}

function jsonOf(value: Value, options: JsonOptions, depth: number): string {
  if (value === null) return 'null';
  if (typeof value === 'string') return jsonString(value, options.ensureAscii);
  if (typeof value === 'boolean') return String(value);
  if (typeof value === 'number') return intText(value);
  if (value instanceof Float) {
    if (Number.isFinite(value.value)) return floatRepr(value.value);
    return Number.isNaN(value.value) ? 'NaN' : value.value > 0 ? 'Infinity' : '-Infinity';
  }
  if (value instanceof Map) {
    const entries = [...value].map(([key, item]) => [jsonKey(key), item] as const);
    if (options.sortKeys) entries.sort(([a], [b]) => compareStrings(a, b));
    const parts = entries.map(
      ([key, item]) => jsonString(key, options.ensureAscii) + options.keySeparator + jsonOf(item, options, depth + 1),
    );
    return jsonGroup('{', parts, '}', options, depth);
  }
  const items = sequenceItems(value);
  if (!items) throw new TemplateRuntimeError(`object of type ${typeName(value)} is not JSON serializable`);
  return jsonGroup(
    '[',
    items.map((item) => jsonOf(item, options, depth + 1)),
    ']',
    options,
    depth,
  );
}

function jsonGroup(open: string, parts: readonly string[], close: string, options: JsonOptions, depth: number): string {
  if (parts.length === 0) return open + close;
  if (options.indent === undefined) return open + parts.join(options.itemSeparator) + close;
  const line = `\n${options.indent.repeat(depth + 1)}`;
  return `${open}${line}${parts.join(options.itemSeparator + line)}\n${options.indent.repeat(depth)}${close}`;
}

function jsonKey(key: Value): string {
  if (typeof key === 'string') return key;
  if (key === null) return 'null';
  if (typeof key === 'boolean') return String(key);
  if (numeric(key) !== undefined) return repr(key);
  throw new TemplateRuntimeError(`keys must be str, int, float, bool or None, not ${typeName(key)}`);
}

function jsonString(value: string, ensureAscii: boolean): string {
  const json = JSON.stringify(value);
  if (!ensureAscii) return json;
  return json.replace(/[\x7f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
