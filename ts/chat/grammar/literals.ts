/** Arguments in syntaxes that are not JSON, as grammars from the tool's schema. */

import { propertyNames, propertyOf, resolveRef, type Schema, typesOf } from '../output/schema.js';
import type { ToolDefinition } from '../types.js';
import { anyOf, joined, members, type Rules } from './rules.js';

export interface LiteralDialect {
  readonly string: string;
  /** A string with this very text. */
  readonly exactly: (text: string) => string;
  readonly words: { readonly true: string; readonly false: string; readonly null: string };
  readonly separator: string;
  /** `key:` or `key=`. */
  readonly key: (name: string) => string;
  readonly anyKey: string;
  /** Objects inside of arguments are JSON. */
  readonly jsonObjects: boolean;
}

const INTEGER = '/-?(0|[1-9][0-9]{0,15})/';
const NUMBER = '/-?(0|[1-9][0-9]{0,15})(\\.[0-9]{1,16})?([eE][+-]?[0-9]{1,3})?/';
/** Deeper values may be anything: grammars are read by recursion. */
const MAX_DEPTH = 32;

export class LiteralRules {
  private any: string | undefined;
  /** What is referred to is a rule of its own, so that a schema may refer to itself. */
  private readonly references = new Map<string, string>();
  private readonly root: Schema;
  private readonly lenient: boolean;

  constructor(
    private readonly rules: Rules,
    private readonly dialect: LiteralDialect,
    { parameters, strict }: ToolDefinition,
  ) {
    this.root = parameters;
    this.lenient = strict !== true;
  }

  /** The members of an object, without its brackets. */
  members(schema: Schema, depth = 0): string {
    const required = typeof schema === 'object' && Array.isArray(schema['required']) ? schema['required'] : [];
    const names = propertyNames(schema);
    const { key, anyKey, separator } = this.dialect;
    if (names.length === 0) {
      if (isClosed(schema)) return '';
      const member = this.rules.rule(joined(anyKey, this.anything()));
      return `(${member} (${separator} ${member})*)?`;
    }
    return members(
      names.map((name) => ({
        expression: this.rules.rule(joined(key(name), this.value(propertyOf(schema, name), depth + 1))),
        required: required.includes(name),
      })),
      separator,
    );
  }

  private value(schema: Schema, depth: number): string {
    if (typeof schema !== 'object' || depth > MAX_DEPTH) return this.anything();
    const target = resolveRef(schema, this.root);
    if (target !== undefined) return this.reference(String(schema['$ref']), target, depth);
    const choices = schema['enum'] ?? ('const' in schema ? [schema['const']] : undefined);
    if (Array.isArray(choices)) return anyOf(choices.map((choice) => this.exactly(choice)));
    const alternatives = schema['anyOf'] ?? schema['oneOf'];
    if (Array.isArray(alternatives)) {
      return anyOf(alternatives.map((one: unknown) => this.value(one as Schema, depth + 1)));
    }
    const types = typesOf(schema, this.root);
    if (types === undefined) return this.anything();
    return anyOf([...types].map((type) => this.typed(type, schema, depth)));
  }

  private reference(path: string, target: Schema, depth: number): string {
    const known = this.references.get(path);
    if (known !== undefined) return known;
    return this.rules.recursive((name) => {
      this.references.set(path, name);
      return this.value(target, depth + 1);
    });
  }

  private typed(type: string, schema: Readonly<Record<string, unknown>>, depth: number): string {
    const { string, words, separator, jsonObjects } = this.dialect;
    switch (type) {
      case 'string':
        return string;
      case 'integer':
        return INTEGER;
      case 'number':
        return NUMBER;
      case 'boolean':
        return anyOf([words.true, words.false].map((word) => JSON.stringify(word)));
      case 'null':
        return JSON.stringify(words.null);
      case 'array': {
        const item = this.rules.rule(this.value(schema['items'] as Schema, depth + 1));
        return `"[" (${item} (${separator} ${item})*)? "]"`;
      }
      case 'object':
        if (jsonObjects) return this.json(withDefinitions(schema, this.root));
        return joined('"{"', this.members(schema, depth + 1), '"}"');
      default:
        return this.anything();
    }
  }

  private json(schema: Schema): string {
    return this.rules.json(schema, { lenient: this.lenient });
  }

  private exactly(value: unknown): string {
    const { words, exactly } = this.dialect;
    if (typeof value === 'string') return exactly(value);
    if (typeof value === 'boolean') return JSON.stringify(value ? words.true : words.false);
    if (value === null) return JSON.stringify(words.null);
    return typeof value === 'number' ? JSON.stringify(String(value)) : this.anything();
  }

  private anything(): string {
    const { string, words, separator, anyKey, jsonObjects } = this.dialect;
    this.any ??= this.rules.recursive((name) => {
      const list = `"[" (${name} (${separator} ${name})*)? "]"`;
      const object = jsonObjects
        ? this.json({ type: 'object' })
        : `"{" (${anyKey} ${name} (${separator} ${anyKey} ${name})*)? "}"`;
      const known = [words.true, words.false, words.null].map((word) => JSON.stringify(word));
      return [string, NUMBER, ...known, list, object].join(' | ');
    });
    return this.any;
  }
}

/** A part of a schema on its own, with what it may refer to. */
export function withDefinitions(schema: Schema, root: Schema): Schema {
  if (typeof schema !== 'object' || typeof root !== 'object') return schema ?? {};
  const { $defs, definitions } = root;
  return {
    ...schema,
    ...($defs === undefined ? {} : { $defs }),
    ...(definitions === undefined ? {} : { definitions }),
  };
}

/** Nothing may be given. */
export function isClosed(schema: Schema): boolean {
  if (schema === undefined) return true;
  if (typeof schema !== 'object') return false;
  return propertyNames(schema).length === 0 && (schema['additionalProperties'] === false || 'properties' in schema);
}
