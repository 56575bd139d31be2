/** Small parsers from unknown JSON to typed values. Each knows its path, so that an error names the field. */

import { invalidType, invalidValue, missingParameter } from './errors.js';

/** Returns the value in its type, or throws an ApiError that names `path`. */
export type Parse<T> = (value: unknown, path: string) => T;

export type JsonObject = Readonly<Record<string, unknown>>;

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The fields of one object, read by name. `null` counts as absent, as it does at OpenAI. */
export class Fields {
  constructor(
    readonly values: JsonObject,
    private readonly path: string,
  ) {}

  pathOf(name: string): string {
    return this.path === '' ? name : `${this.path}.${name}`;
  }

  /** The field as it came; undefined if absent or null. Own properties only: a body may not reach Object.prototype. */
  raw(name: string): unknown {
    return Object.hasOwn(this.values, name) ? (this.values[name] ?? undefined) : undefined;
  }

  optional<T>(name: string, parse: Parse<T>): T | undefined {
    const value = this.raw(name);
    return value === undefined ? undefined : parse(value, this.pathOf(name));
  }

  required<T>(name: string, parse: Parse<T>): T {
    const value = this.raw(name);
    if (value === undefined) throw missingParameter(this.pathOf(name));
    return parse(value, this.pathOf(name));
  }
}

/** The fields of a value that must be an object; the path of the body is ''. */
export const fieldsOf: Parse<Fields> = (value, path) => {
  if (!isObject(value)) throw invalidType(path, path === '' ? 'a JSON object' : 'an object', value);
  return new Fields(value, path);
};

export const string: Parse<string> = (value, path) => {
  if (typeof value !== 'string') throw invalidType(path, 'a string', value);
  return value;
};

export const nonEmptyString: Parse<string> = (value, path) => {
  const text = string(value, path);
  if (text === '') throw invalidValue(path, 'must not be empty');
  return text;
};

export const boolean: Parse<boolean> = (value, path) => {
  if (typeof value !== 'boolean') throw invalidType(path, 'a boolean', value);
  return value;
};

export const object: Parse<JsonObject> = (value, path) => fieldsOf(value, path).values;

/** A finite number within [min, max]. */
export function number(min: number, max: number): Parse<number> {
  return (value, path) => {
    if (typeof value !== 'number' || !Number.isFinite(value)) throw invalidType(path, 'a number', value);
    return inRange(value, min, max, path);
  };
}

/** A whole number within [min, max]. */
export function integer(min: number, max: number): Parse<number> {
  return (value, path) => {
    if (typeof value !== 'number' || !Number.isInteger(value)) throw invalidType(path, 'an integer', value);
    return inRange(value, min, max, path);
  };
}

export function inRange(value: number, min: number, max: number, path: string): number {
  if (value < min) throw invalidValue(path, `must be at least ${min}, got ${value}`);
  if (value > max) throw invalidValue(path, `must be at most ${max}, got ${value}`);
  return value;
}

export function oneOf<const T extends string>(...choices: readonly T[]): Parse<T> {
  return (value, path) => {
    const text = string(value, path);
    const choice = choices.find((candidate) => candidate === text);
    if (choice === undefined) throw invalidValue(path, `must be one of ${quoted(choices)}, got ${shortened(text)}`);
    return choice;
  };
}

/** An array of min..max items. */
export function array<T>(item: Parse<T>, min = 0, max = Number.POSITIVE_INFINITY): Parse<T[]> {
  return (value, path) => {
    if (!Array.isArray(value)) throw invalidType(path, 'an array', value);
    if (value.length < min)
      throw invalidValue(path, min === 1 ? 'must not be empty' : `must hold at least ${min} items`);
    if (value.length > max) throw invalidValue(path, `must hold at most ${max} items, got ${value.length}`);
    return value.map((element: unknown, index) => item(element, `${path}[${index}]`));
  };
}

/** A signed 64-bit integer as a whole number in 0..2^53-1, so that it survives a double: the same seed gives the same number. */
export const seed: Parse<number> = (value, path) => {
  const given = integer(-(2 ** 63), 2 ** 63)(value, path);
  if (given >= 0 && Number.isSafeInteger(given)) return given;
  const bits = BigInt.asUintN(64, BigInt(given));
  return Number(BigInt.asUintN(53, bits ^ (bits >> 11n)));
};

function quoted(choices: readonly string[]): string {
  return choices.map((choice) => `'${choice}'`).join(', ');
}

/** Outside text in a message stays short and on one line. */
export function shortened(text: string): string {
  return JSON.stringify(text.length > 40 ? `${text.slice(0, 40)}…` : text);
}
