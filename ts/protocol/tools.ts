/** Tool definitions and the choice among them. */

import { invalidValue, unsupportedValue } from './errors.js';
import { array, boolean, type Fields, fieldsOf, type JsonObject, object, oneOf, shortened, string } from './fields.js';

export interface ToolDefinition {
  readonly name: string;
  readonly description?: string;
  /** JSON schema. */
  readonly parameters?: JsonObject;
  readonly strict?: boolean;
}

/** Whether and which tools may or must be called. */
export type ToolChoice =
  | 'none'
  | 'auto'
  | 'required'
  | { readonly name: string }
  /** Only these. */
  | { readonly allowed: readonly string[]; readonly mode: 'auto' | 'required' };

const TOOL_NAME = /^[A-Za-z0-9_-]{1,64}$/;

/**
 * One tool. Undefined for tools that run elsewhere (web_search, …): agents send them by habit.
 * @param warn told of the tool that was dropped
 */
export function parseTool(value: unknown, path: string, warn: (field: string) => void): ToolDefinition | undefined {
  const fields = fieldsOf(value, path);
  const type = fields.required('type', string);
  if (type === 'custom')
    throw unsupportedValue(fields.pathOf('type'), 'custom tools are not available; use a function');
  if (type !== 'function') {
    warn(`tools[].type=${shortened(type)}`);
    return undefined;
  }
  const definition = fields.required('function', fieldsOf);
  return {
    name: definition.required('name', toolName),
    description: definition.optional('description', string),
    parameters: definition.optional('parameters', toolParameters),
    strict: definition.optional('strict', boolean),
  };
}

/** The schema of a function's arguments, which are an object. */
export function toolParameters(value: unknown, path: string): JsonObject {
  const schema = object(value, path);
  const { type } = schema;
  const types: readonly unknown[] = Array.isArray(type) ? type : [type];
  if (type === undefined || types.includes('object')) return schema;
  throw invalidValue(`${path}.type`, `must be 'object', got ${shortened(JSON.stringify(type))}`);
}

/** A word, one function, or the functions among which to choose. */
export function parseToolChoice(value: unknown, path: string): ToolChoice {
  if (typeof value === 'string') return oneOf('none', 'auto', 'required')(value, path);
  const fields = fieldsOf(value, path);
  const type = fields.required('type', string);
  switch (type) {
    case 'function':
      return { name: parseFunctionName(fields) };
    case 'allowed_tools': {
      const allowed = fields.required('allowed_tools', fieldsOf);
      return {
        mode: allowed.required('mode', oneOf('auto', 'required')),
        allowed: allowed.required(
          'tools',
          array((tool, toolPath) => parseAllowedTool(fieldsOf(tool, toolPath)), 1),
        ),
      };
    }
    case 'custom':
      throw unsupportedValue(fields.pathOf('type'), 'custom tools are not available; use a function');
    default:
      throw invalidValue(fields.pathOf('type'), "must be 'function' or 'allowed_tools'");
  }
}

/**
 * @param hasOthers there are also tools whose names are not known yet; a choice can demand them, but not name them
 * @throws ApiError if the choice needs tools that there are not
 */
export function checkToolChoice(
  choice: ToolChoice,
  tools: readonly ToolDefinition[],
  path: string,
  hasOthers = false,
): void {
  if (choice === 'none' || choice === 'auto') return;
  if (tools.length === 0 && !hasOthers) throw invalidValue(path, 'needs tools');
  if (choice === 'required') return;
  for (const name of 'name' in choice ? [choice.name] : choice.allowed) {
    if (!tools.some((tool) => tool.name === name)) {
      throw invalidValue(path, `names ${shortened(name)}, which is not among the tools`);
    }
  }
}

function parseAllowedTool(fields: Fields): string {
  if (fields.required('type', string) === 'function') return parseFunctionName(fields);
  throw unsupportedValue(fields.pathOf('type'), 'only functions are available');
}

/** `{type: 'function', function: {name}}`; Responses and some clients put the name beside the type. */
function parseFunctionName(fields: Fields): string {
  return fields.optional('name', toolName) ?? fields.required('function', fieldsOf).required('name', toolName);
}

function toolName(value: unknown, path: string): string {
  const name = string(value, path);
  if (!TOOL_NAME.test(name)) throw invalidValue(path, 'must be 1 to 64 characters of a-z, A-Z, 0-9, _ and -');
  return name;
}
