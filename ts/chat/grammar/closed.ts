/**
 * A schema that lists properties and says nothing of others allows any. Small models that are held to it make some up
 * (`"required": ["city"]`, from the definition they have just read): what a tool does not list is not offered to them.
 */

type JsonSchema = Readonly<Record<string, unknown>>;

/** Schemas whose parts apply to one value together: closing one part would forbid what another lists. */
const COMBINING = ['allOf', 'patternProperties', 'unevaluatedProperties', 'dependentSchemas', 'if', 'not'];

/** The schema with its objects closed where it does not say; as it is where that could forbid what it allows by name. */
export function closedSchema(schema: JsonSchema): JsonSchema {
  return isSimple(schema) ? (close(schema) as JsonSchema) : schema;
}

function isSimple(schema: unknown): boolean {
  if (Array.isArray(schema)) return schema.every(isSimple);
  if (!isObject(schema)) return true;
  if (COMBINING.some((key) => key in schema)) return false;
  if (isObject(schema['properties']) && ['$ref', 'anyOf', 'oneOf'].some((key) => key in schema)) return false;
  return Object.values(schema).every(isSimple);
}

function close(schema: unknown): unknown {
  if (!isObject(schema)) return schema;
  const { properties, items, anyOf, oneOf, $defs, definitions } = schema;
  const closes = isObject(properties) && Object.keys(properties).length > 0 && !('additionalProperties' in schema);
  return {
    ...schema,
    ...(isObject(properties) ? { properties: closeEach(properties) } : {}),
    ...(items === undefined ? {} : { items: close(items) }),
    ...(Array.isArray(anyOf) ? { anyOf: anyOf.map(close) } : {}),
    ...(Array.isArray(oneOf) ? { oneOf: oneOf.map(close) } : {}),
    ...(isObject($defs) ? { $defs: closeEach($defs) } : {}),
    ...(isObject(definitions) ? { definitions: closeEach(definitions) } : {}),
    ...(closes ? { additionalProperties: false } : {}),
  };
}

function closeEach(schemas: JsonSchema): JsonSchema {
  return Object.fromEntries(Object.entries(schemas).map(([key, schema]) => [key, close(schema)]));
}

function isObject(value: unknown): value is JsonSchema {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
