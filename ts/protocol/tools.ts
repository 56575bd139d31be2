/** Tool definitions and the choice among them. */

import { invalidValue, unsupportedValue } from './errors.js';
import { boolean, fieldsOf, type JsonObject, object, shortened, string } from './fields.js';

export interface ToolDefinition {
  readonly name: string;
  readonly description?: string;
  /** JSON schema. */
  readonly parameters?: JsonObject;
  readonly strict?: boolean;
}

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
    parameters: definition.optional('parameters', object),
    strict: definition.optional('strict', boolean),
  };
}

/** `none` takes the tools out of the prompt; the choices that would force a call need parsed calls first. */
export function parseToolChoice(value: unknown, path: string): 'auto' | 'none' {
  if (value === 'auto' || value === 'none') return value;
  if (value === 'required' || (typeof value === 'object' && value !== null)) {
    throw unsupportedValue(path, "only 'auto' and 'none' are available yet");
  }
  throw invalidValue(path, "must be 'auto' or 'none'");
}

function toolName(value: unknown, path: string): string {
  const name = string(value, path);
  if (!TOOL_NAME.test(name)) throw invalidValue(path, 'must be 1 to 64 characters of a-z, A-Z, 0-9, _ and -');
  return name;
}
