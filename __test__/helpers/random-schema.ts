/** Random JSON schemas whose instances are bounded in length: nested, with references, enums and bounds. */

type Schema = Record<string, unknown>;

/** mulberry32: numbers in [0, 1). */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const WORDS = ['name', 'city', 'count', 'is open', 'größe', 'tags', '天気', 'a/b', 'x', 'street_number', '"quoted"'];

export function randomSchema(seed: number): Schema {
  const random = randomNumbers(seed);
  const below = (n: number): number => Math.floor(random() * n);
  const pick = <T>(items: readonly T[]): T => items[below(items.length)] as T;
  const definitions: Record<string, Schema> = {};

  const scalar = (): Schema =>
    pick<() => Schema>([
      () => ({ type: 'string', minLength: below(3), maxLength: 3 + below(12) }),
      () => ({ type: 'string', pattern: pick(['^[a-z]{2,5}$', '^[A-Z][0-9]{3}$', '^(yes|no|maybe)$']) }),
      () => ({ type: 'string', format: pick(['date', 'uuid', 'ipv4']) }),
      () => ({ enum: ['red', 'grün', 7, null, { deep: [1] }].slice(below(3)) }),
      () => ({ const: pick<unknown>(['fixed', 42, true, [], { a: 'b' }]) }),
      () => ({ type: 'integer', minimum: -below(50), maximum: 1 + below(1000) }),
      () => ({ type: 'integer', exclusiveMinimum: 0, maximum: 500, multipleOf: 5 }),
      () => ({ type: 'number', minimum: 0, maximum: 1 + below(9), multipleOf: 0.25 }),
      () => ({ type: 'boolean' }),
      () => ({ type: ['null', 'boolean'] }),
    ])();

  const object = (depth: number): Schema => {
    const names = WORDS.filter(() => random() < 0.35);
    const properties = Object.fromEntries((names.length > 0 ? names : ['value']).map((name) => [name, any(depth - 1)]));
    const required = Object.keys(properties).filter(() => random() < 0.7);
    return { type: 'object', properties, required, additionalProperties: false };
  };

  const any = (depth: number): Schema => {
    if (depth === 0) return scalar();
    return pick<() => Schema>([
      scalar,
      () => object(depth),
      () => ({ type: 'array', items: any(depth - 1), minItems: below(2), maxItems: 1 + below(2) }),
      () => ({ type: 'array', prefixItems: [scalar(), scalar()], items: false, minItems: 2 }),
      () => ({ anyOf: [scalar(), object(depth)] }),
      () => {
        const name = `d${String(Object.keys(definitions).length)}`;
        definitions[name] = {};
        definitions[name] = any(depth - 1);
        return { $ref: `#/$defs/${name}` };
      },
      () => ({ allOf: [{ type: 'integer', minimum: 3 }, { maximum: 30 }] }),
    ])();
  };

  const root = object(3);
  return Object.keys(definitions).length === 0 ? root : { ...root, $defs: definitions };
}
