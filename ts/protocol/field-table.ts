/** What becomes of each field of a request: one line each, so that the documentation can be made from it. */

import { unknownParameter, unsupportedParameter } from './errors.js';
import type { Fields } from './fields.js';

export type FieldRule = (
  | { readonly status: 'honoured'; readonly note?: string }
  /** Accepted without effect; logged once. */
  | { readonly status: 'ignored'; readonly note: string }
  /** Ignoring it would change the answer: a 400 that names it, unless its value asks for nothing. */
  | { readonly status: 'refused'; readonly note: string; readonly harmless?: (value: unknown) => boolean }
) & {
  /** OpenAI's endpoint does not have it. */
  readonly extra?: true;
};

export type FieldTable = Readonly<Record<string, FieldRule>>;

export interface ParseOptions {
  /** Unknown fields are an error instead of a warning. */
  readonly strict: boolean;
  /** Told of every field that has no effect: a name of the table, or an unknown one as the client wrote it. */
  readonly warn: (field: string) => void;
}

/** Holds every field that came against the table. @throws ApiError for refused fields, in strict mode for unknown ones */
export function checkFields(fields: Fields, table: FieldTable, options: ParseOptions): void {
  for (const [name, value] of Object.entries(fields.values)) {
    const rule = Object.hasOwn(table, name) ? table[name] : undefined;
    if (rule === undefined) {
      if (options.strict) throw unknownParameter(fields.pathOf(name));
      options.warn(fields.pathOf(name));
    } else if (value !== null && rule.status === 'ignored') {
      options.warn(fields.pathOf(name));
    } else if (value !== null && rule.status === 'refused' && rule.harmless?.(value) !== true) {
      throw unsupportedParameter(fields.pathOf(name), rule.note);
    }
  }
}

/** A table of fields none of which OpenAI's endpoint has. */
export function extras<const T extends FieldTable>(
  table: T,
): { readonly [K in keyof T]: T[K] & { readonly extra: true } } {
  const entries = Object.entries(table).map(([name, rule]) => [name, { ...rule, extra: true }]);
  return Object.fromEntries(entries) as { readonly [K in keyof T]: T[K] & { readonly extra: true } };
}

export function equals(...allowed: readonly unknown[]): (value: unknown) => boolean {
  return (value) => allowed.includes(value);
}

export function isEmpty(value: unknown): boolean {
  if (typeof value === 'string' || Array.isArray(value)) return value.length === 0;
  return typeof value === 'object' && value !== null && Object.keys(value).length === 0;
}
