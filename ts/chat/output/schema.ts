/**
 * What little of JSON Schema parsing needs: which types a value may have, and whether it fits. Looked at: type, enum,
 * const, required, properties, additionalProperties: false, items, anyOf, oneOf, allOf, local $ref, and the bounds of
 * numbers, of lengths and of counts. All else is taken to fit.
 */

export type Schema = Readonly<Record<string, unknown>> | boolean | undefined;

type JsonType = 'string' | 'number' | 'integer' | 'boolean' | 'object' | 'array' | 'null';

/** A schema that refers to itself is not followed for ever, nor one whose parts refer to each other many times over. */
const MAX_STEPS = 2000;

/** Steps that one question may still take. */
interface Budget {
  left: number;
}

function fresh(): Budget {
  return { left: MAX_STEPS };
}

/** The schema of an argument, and of what it refers to. */
export function propertyOf(schema: Schema, key: string): Schema {
  if (typeof schema !== 'object') return undefined;
  const properties = schema['properties'];
  if (!isObject(properties) || !Object.hasOwn(properties, key)) return undefined;
  return properties[key] as Schema;
}

/** Names of the properties in their order. */
export function propertyNames(schema: Schema): string[] {
  const properties = typeof schema === 'object' ? schema['properties'] : undefined;
  return isObject(properties) ? Object.keys(properties) : [];
}

/** The types that a value may have; undefined where the schema does not say. */
export function typesOf(schema: Schema, root: Schema, budget = fresh()): ReadonlySet<JsonType> | undefined {
  if (typeof schema !== 'object' || budget.left-- <= 0) return undefined;
  const target = resolveRef(schema, root);
  if (target !== undefined) return typesOf(target, root, budget);
  const { type } = schema;
  if (typeof type === 'string') return new Set([type as JsonType]);
  if (Array.isArray(type)) return new Set(type as JsonType[]);
  if (Array.isArray(schema['enum'])) return new Set(schema['enum'].map(typeOf));
  if ('const' in schema) return new Set([typeOf(schema['const'])]);
  const choices = schema['anyOf'] ?? schema['oneOf'];
  if (Array.isArray(choices)) {
    const types = choices.map((choice: unknown) => typesOf(choice as Schema, root, budget));
    return types.includes(undefined) ? undefined : new Set(types.flatMap((set) => [...(set ?? [])]));
  }
  return undefined;
}

/**
 * Text that stands for a value → that value as JSON, by the types it may have.
 * @param json what the text is if it is taken for a value
 */
export function castText(text: string, json: string | undefined, types: ReadonlySet<JsonType> | undefined): string {
  if (json === undefined) return JSON.stringify(text);
  return types === undefined || holds(types, JSON.parse(json)) ? json : JSON.stringify(text);
}

/** Whether a value fits a schema, by the keywords above. */
export function fits(value: unknown, schema: Schema, root: Schema = schema, budget = fresh()): boolean {
  if (schema === false) return false;
  if (typeof schema !== 'object' || budget.left-- <= 0) return true;
  const inside = (inner: unknown, other: unknown): boolean => fits(inner, other as Schema, root, budget);
  const target = resolveRef(schema, root);
  if (target !== undefined && !inside(value, target)) return false;
  const { type, enum: choices, const: only, anyOf, oneOf, allOf } = schema;
  if (typeof type === 'string' && !isA(type, value)) return false;
  if (Array.isArray(type) && !type.some((one) => isA(String(one), value))) return false;
  if (Array.isArray(choices) && !choices.some((choice) => equal(choice, value))) return false;
  if (only !== undefined && !equal(only, value)) return false;
  if (Array.isArray(anyOf) && !anyOf.some((one) => inside(value, one))) return false;
  if (Array.isArray(oneOf) && !oneOf.some((one) => inside(value, one))) return false;
  if (Array.isArray(allOf) && !allOf.every((one) => inside(value, one))) return false;
  if (!isWithin(value, schema)) return false;
  if (Array.isArray(value)) return value.every((item) => inside(item, schema['items']));
  return !isObject(value) || fitsObject(value, schema, inside);
}

/** Figures of a value, and the keywords that bound them from below and from above. */
function isWithin(value: unknown, schema: Readonly<Record<string, unknown>>): boolean {
  const between = (figure: number, least: string, most: string): boolean => {
    const [low, high] = [schema[least], schema[most]];
    return !(typeof low === 'number' && figure < low) && !(typeof high === 'number' && figure > high);
  };
  if (typeof value === 'number') {
    const { exclusiveMinimum: above, exclusiveMaximum: below } = schema;
    if ((typeof above === 'number' && value <= above) || (typeof below === 'number' && value >= below)) return false;
    return between(value, 'minimum', 'maximum');
  }
  // JSON Schema counts code points.
  if (typeof value === 'string') return between(Array.from(value).length, 'minLength', 'maxLength');
  return !Array.isArray(value) || between(value.length, 'minItems', 'maxItems');
}

function fitsObject(
  value: Readonly<Record<string, unknown>>,
  schema: Readonly<Record<string, unknown>>,
  inside: (inner: unknown, schema: unknown) => boolean,
): boolean {
  const { required, additionalProperties } = schema;
  if (Array.isArray(required) && !required.every((key) => Object.hasOwn(value, String(key)))) return false;
  const properties = isObject(schema['properties']) ? schema['properties'] : {};
  return Object.entries(value).every(([key, item]) =>
    Object.hasOwn(properties, key) ? inside(item, properties[key]) : additionalProperties !== false,
  );
}

function isA(type: string, value: unknown): boolean {
  const own = typeOf(value);
  return own === type || (type === 'number' && own === 'integer');
}

function holds(types: ReadonlySet<JsonType>, value: unknown): boolean {
  return [...types].some((type) => isA(type, value));
}

function typeOf(value: unknown): JsonType {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  if (typeof value === 'number') return Number.isInteger(value) ? 'integer' : 'number';
  return typeof value as JsonType;
}

/** What a local `$ref` points to. */
export function resolveRef(schema: Readonly<Record<string, unknown>>, root: Schema): Schema {
  const path = schema['$ref'];
  if (typeof path !== 'string' || !path.startsWith('#')) return undefined;
  let target: unknown = root;
  for (const part of path.slice(1).split('/').filter(Boolean)) {
    const key = decodeURIComponentSafely(part).replaceAll('~1', '/').replaceAll('~0', '~');
    if (!isObject(target) || !Object.hasOwn(target, key)) return undefined;
    target = target[key];
  }
  return target as Schema;
}

function decodeURIComponentSafely(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function equal(a: unknown, b: unknown): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b);
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
