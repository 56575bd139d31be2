/** Tools, the choice among them, and the form of the text, as the Responses API writes them (flat, unlike chat). */

import { invalidType, invalidValue, unsupportedValue } from './errors.js';
import {
  array,
  boolean,
  type Fields,
  fieldsOf,
  isObject,
  type JsonObject,
  nonEmptyString,
  object,
  oneOf,
  shortened,
  string,
} from './fields.js';
import { checkMcpTools, type McpTool, parseMcpTool } from './mcp.js';
import { toolParameters } from './tools.js';

export interface ResponseFunctionTool {
  readonly type: 'function';
  readonly name: string;
  readonly description: string | null;
  readonly parameters: JsonObject | null;
  readonly strict: boolean | null;
}

/** As it is shown in a response: without what authenticates to the server. */
export interface ResponseMcpTool {
  readonly type: 'mcp';
  readonly server_label: string;
  /** Absent: a server of the operator's, known by its label. Without its query, where keys are put at times. */
  readonly server_url?: string;
  readonly server_description?: string;
  readonly allowed_tools?: readonly string[] | ResponseMcpFilter;
  readonly require_approval:
    'always' | 'never' | { readonly always?: ResponseMcpFilter; readonly never?: ResponseMcpFilter };
}

export interface ResponseMcpFilter {
  readonly tool_names?: readonly string[];
  readonly read_only?: boolean;
}

export type ResponseTool = ResponseFunctionTool | McpTool;

export type EchoedTool = ResponseFunctionTool | ResponseMcpTool;

export type ResponseToolChoice =
  | 'none'
  | 'auto'
  | 'required'
  | { readonly type: 'function'; readonly name: string }
  | { readonly type: 'mcp'; readonly server_label: string; readonly name?: string }
  | {
      readonly type: 'allowed_tools';
      readonly mode: 'auto' | 'required';
      /** Functions by name, MCP servers by label. */
      readonly tools: readonly AllowedTool[];
    };

export type AllowedTool =
  | { readonly type: 'function'; readonly name: string }
  | { readonly type: 'mcp'; readonly server_label: string; readonly name?: string };

export type ResponseTextFormat =
  | { readonly type: 'text' }
  | { readonly type: 'json_object' }
  | {
      readonly type: 'json_schema';
      readonly name: string;
      readonly description?: string;
      readonly schema: JsonObject;
      readonly strict: boolean;
    };

export const MAX_TOOLS = 128;
const MAX_NAMES = 1_024;
const TOOL_NAME = /^[A-Za-z0-9_-]{1,128}$/;
const FORMAT_NAME = /^[A-Za-z0-9_-]{1,64}$/;

type Warn = (field: string) => void;

/** @param warn told of tools that run elsewhere (web_search, …): agents send them by habit, and they are dropped */
export function parseResponseTools(value: unknown, path: string, warn: Warn): readonly ResponseTool[] {
  const tools = array((tool, toolPath) => parseTool(tool, toolPath, warn), 0, MAX_TOOLS)(value, path);
  const kept = tools.filter((tool) => tool !== undefined);
  const seen = new Set<string>();
  for (const tool of kept) {
    const key = tool.type === 'function' ? `function ${tool.name}` : `server ${tool.serverLabel}`;
    if (seen.has(key)) throw invalidValue(path, `holds the ${key} twice`);
    seen.add(key);
  }
  checkMcpTools(
    kept.filter((tool) => tool.type === 'mcp'),
    path,
  );
  return kept;
}

function parseTool(value: unknown, path: string, warn: Warn): ResponseTool | undefined {
  const fields = fieldsOf(value, path);
  const type = fields.required('type', string);
  if (type === 'function') return functionTool(fields);
  if (type === 'mcp') return parseMcpTool(value, path);
  if (type === 'custom') {
    throw unsupportedValue(fields.pathOf('type'), 'custom tools are not available; use a function');
  }
  warn(`tools[].type=${shortened(type)}`);
  return undefined;
}

function functionTool(outer: Fields): ResponseFunctionTool {
  // Clients written for chat nest the definition.
  const fields = outer.raw('name') === undefined ? (outer.optional('function', fieldsOf) ?? outer) : outer;
  return {
    type: 'function',
    name: fields.required('name', toolName),
    description: fields.optional('description', string) ?? null,
    parameters: fields.optional('parameters', toolParameters) ?? null,
    strict: fields.optional('strict', boolean) ?? null,
  };
}

export function parseResponseToolChoice(value: unknown, path: string): ResponseToolChoice {
  if (typeof value === 'string') return oneOf('none', 'auto', 'required')(value, path);
  if (!isObject(value)) throw invalidType(path, 'a string or an object', value);
  const fields = fieldsOf(value, path);
  const type = fields.required('type', string);
  if (type === 'function' || type === 'mcp') return allowedTool(value, path);
  if (type !== 'allowed_tools') {
    throw unsupportedValue(fields.pathOf('type'), 'functions, MCP servers and allowed_tools can be chosen');
  }
  return {
    type,
    mode: fields.optional('mode', oneOf('auto', 'required')) ?? 'auto',
    tools: fields.required('tools', array(allowedTool, 1, MAX_NAMES)),
  };
}

function allowedTool(value: unknown, path: string): AllowedTool {
  const fields = fieldsOf(value, path);
  const type = fields.required('type', oneOf('function', 'mcp'));
  if (type === 'function') return { type, name: fields.required('name', nonEmptyString) };
  const name = fields.optional('name', nonEmptyString);
  return {
    type,
    server_label: fields.required('server_label', nonEmptyString),
    ...(name === undefined ? {} : { name }),
  };
}

export function parseTextFormat(value: unknown, path: string): ResponseTextFormat {
  const fields = fieldsOf(value, path);
  const type = fields.required('type', oneOf('text', 'json_object', 'json_schema'));
  if (type !== 'json_schema') return { type };
  const name = fields.required('name', (given, namePath) => {
    const text = string(given, namePath);
    if (FORMAT_NAME.test(text)) return text;
    throw invalidValue(namePath, 'must be 1 to 64 characters of a-z, A-Z, 0-9, _ and -');
  });
  const description = fields.optional('description', string);
  return {
    type,
    name,
    ...(description === undefined ? {} : { description }),
    schema: fields.required('schema', object),
    strict: fields.optional('strict', boolean) ?? false,
  };
}

function toolName(value: unknown, path: string): string {
  const name = string(value, path);
  if (!TOOL_NAME.test(name)) throw invalidValue(path, 'must be 1 to 128 characters of a-z, A-Z, 0-9, _ and -');
  return name;
}
