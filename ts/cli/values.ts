/** Flag values: text in, a checked value out. A value that is wrong is refused by commander with its flag's name. */

import { InvalidArgumentError } from 'commander';

const units: Readonly<Record<string, number>> = { '': 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 };

/** A whole number of a range. */
export function wholeNumber(min: number, max = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^-?\d+$/.test(text) || !Number.isSafeInteger(value) || value < min || value > max) {
      const range = max === Number.MAX_SAFE_INTEGER ? `from ${min} on` : `from ${min} to ${max}`;
      throw new InvalidArgumentError(`It must be a whole number ${range}.`);
    }
    return value;
  };
}

/** A number of a range; fractions are welcome. */
export function decimal(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() === '' || !Number.isFinite(value) || value < min || value > max) {
      throw new InvalidArgumentError(`It must be a number from ${min} to ${max}.`);
    }
    return value;
  };
}

/** `536870912`, `512M`, `2G`, `1.5GiB`: bytes, in powers of 1024. */
export function byteSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?$/i.exec(text.trim());
  const bytes = match === null ? NaN : Math.floor(Number(match[1]) * (units[(match[2] ?? '').toLowerCase()] ?? NaN));
  if (!Number.isSafeInteger(bytes) || bytes <= 0) {
    throw new InvalidArgumentError('It must be a size like 512M or 2G.');
  }
  return bytes;
}

/** A JSON object. */
export function jsonObject(text: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  } catch {
    // Said below.
  }
  throw new InvalidArgumentError('It must be a JSON object like {"enable_thinking": false}.');
}

/** A flag that may be given several times. */
export function collect(text: string, before: readonly string[] | undefined): readonly string[] {
  if (text.trim() === '') throw new InvalidArgumentError('It must not be empty.');
  return [...(before ?? []), text];
}

/** `a,b`, and the flag may be given several times. */
export function collectList(text: string, before: readonly string[] | undefined): readonly string[] {
  const values = text.split(',').map((part) => part.trim());
  if (values.includes('')) throw new InvalidArgumentError('It must be a list like a,b.');
  return [...(before ?? []), ...values];
}

/** A list of origins as browsers send them, `*` for any. One with a path would never match. */
export function collectOrigins(text: string, before: readonly string[] | undefined): readonly string[] {
  const values = collectList(text, before);
  if (values.every((value) => /^(?:\*|null|[a-z][a-z\d+.-]*:\/\/[^\s/?#]+)$/i.test(value))) return values;
  throw new InvalidArgumentError('It must be a list of origins like https://app.example, without a path.');
}
