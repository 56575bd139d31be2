/** The fields of a form → an object like a JSON body, and parsers of its leaves, which are text. */

import { invalidType, invalidValue } from './errors.js';
import { inRange, isObject, type JsonObject, type Parse, shortened } from './fields.js';

/** Names as clients write them and values, in the order they came. */
export type FormEntries = readonly (readonly [name: string, value: string])[];

/** The fields whose values are not one text. */
export interface FormShape {
  /** Lists of texts; a value may hold several with commas between them. */
  readonly words: readonly string[];
  /** Lists of texts that may hold commas themselves. */
  readonly texts: readonly string[];
  /** Objects, or one text that stands for an object. */
  readonly objects: readonly string[];
}

/**
 * Every way to write a list (`a=x&a=y`, `a[]=x`, `a[0]=x`, `a=["x"]`, and where values hold no commas `a=x,y`) and an object
 * (`a[key]=x`, `a={"key":"x"}`). A form has no null: an empty value counts as absent.
 * @throws ApiError for a field that is given twice with different values
 */
export function formObject(entries: FormEntries, shape: FormShape): JsonObject {
  const fields = new Map<string, unknown>();
  for (const [written, value] of entries) {
    if (value.trim() === '') continue;
    const [, name = written, key] = /^(\w+)\[(\w*)\]$/.exec(written) ?? [];
    if ((shape.words.includes(name) || shape.texts.includes(name)) && (key === undefined || /^\d*$/.test(key))) {
      const before = (fields.get(name) ?? []) as readonly unknown[];
      fields.set(name, [...before, ...listOf(value, shape.words.includes(name))]);
    } else if (shape.objects.includes(name) && key !== undefined && key !== '') {
      const before = fields.get(name);
      const object = new Map(Object.entries(isObject(before) ? before : {}));
      setOnce(object, key, value, written);
      fields.set(name, Object.fromEntries(object));
    } else if (shape.objects.includes(written)) {
      setOnce(fields, written, parsedJson(value, '{') ?? value, written);
    } else {
      setOnce(fields, written, value, written);
    }
  }
  return Object.fromEntries(fields);
}

function setOnce(fields: Map<string, unknown>, name: string, value: unknown, written: string): void {
  if (fields.has(name) && JSON.stringify(fields.get(name)) !== JSON.stringify(value)) {
    throw invalidValue(written, 'is given twice, with different values');
  }
  fields.set(name, value);
}

function listOf(value: string, isSplit: boolean): readonly unknown[] {
  const parsed = parsedJson(value, '[');
  if (Array.isArray(parsed)) return parsed;
  if (!isSplit) return [value];
  return value
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '');
}

/** JSON that begins in this way; undefined if it is none. */
function parsedJson(value: string, begin: '[' | '{'): unknown {
  if (!value.trimStart().startsWith(begin)) return undefined;
  try {
    return JSON.parse(value) as unknown;
  } catch {
    return undefined;
  }
}

/** A number within [min, max], as text or, inside JSON, as it is. */
export function formNumber(min: number, max: number): Parse<number> {
  return (value, path) => {
    const number = numberOf(value);
    if (number === undefined) throw notA(path, 'a number', value);
    return inRange(number, min, max, path);
  };
}

/** A whole number within [min, max], likewise. */
export function formInteger(min: number, max: number): Parse<number> {
  return (value, path) => {
    const number = numberOf(value);
    if (number === undefined || !Number.isSafeInteger(number)) throw notA(path, 'an integer', value);
    return inRange(number, min, max, path);
  };
}

/** `true`, `True` (Python), `1`, and their opposites. */
export const formBoolean: Parse<boolean> = (value, path) => {
  if (typeof value === 'boolean') return value;
  const text = typeof value === 'string' ? value.trim().toLowerCase() : '';
  if (text === 'true' || text === '1') return true;
  if (text === 'false' || text === '0') return false;
  throw notA(path, "'true' or 'false'", value);
};

function numberOf(value: unknown): number | undefined {
  if (typeof value === 'number') return Number.isFinite(value) ? value : undefined;
  const isNumber = typeof value === 'string' && /^\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?\s*$/i.test(value);
  return isNumber && Number.isFinite(Number(value)) ? Number(value) : undefined;
}

function notA(path: string, expected: string, value: unknown): Error {
  // Everything in a form is text: to say so would explain nothing.
  return typeof value === 'string'
    ? invalidValue(path, `must be ${expected}, got ${shortened(value)}`)
    : invalidType(path, expected, value);
}
