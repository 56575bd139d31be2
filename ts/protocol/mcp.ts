/** The `{type: "mcp"}` tool of a request. Its headers and its token are secrets: never echoed, stored or logged. */

import { validateHeaderName, validateHeaderValue } from 'node:http';

import { invalidType, invalidValue, missingParameter, unsupportedParameter } from './errors.js';
import {
  array,
  boolean,
  type Fields,
  fieldsOf,
  nonEmptyString,
  object,
  type Parse,
  shortened,
  string,
} from './fields.js';

/** Which tools of a server are meant. Both given: the tools that are named and only read. */
export interface McpToolFilter {
  readonly toolNames?: readonly string[];
  /** True: tools whose server says `readOnlyHint`; false: the others. */
  readonly readOnly?: boolean;
}

/** Whether a call waits for the user. Tools that neither filter names wait; a tool that both name waits too. */
export type McpRequireApproval =
  'always' | 'never' | { readonly always?: McpToolFilter; readonly never?: McpToolFilter };

/** A value that exists is valid. */
export interface McpTool {
  readonly type: 'mcp';
  /** Unique within the request. */
  readonly serverLabel: string;
  /** Undefined: the operator's server of that label. */
  readonly serverUrl?: URL;
  readonly serverDescription?: string;
  /** Undefined: all. */
  readonly allowedTools?: McpToolFilter;
  readonly requireApproval: McpRequireApproval;
  readonly headers?: Readonly<Record<string, string>>;
  /** An OAuth access token, sent as a bearer token. */
  readonly authorization?: string;
}

export const MCP_TOOL_LIMITS = {
  /** Servers of one request. */
  maxServers: 16,
  /** Characters of an address. */
  maxUrl: 2048,
  /** Names in a filter. */
  maxToolNames: 256,
  /** Characters of one name; MCP's own bound. */
  maxToolName: 128,
  maxHeaders: 32,
  /** Characters of a header's value or of a token. */
  maxHeaderValue: 8192,
  maxDescription: 4096,
} as const;

const LABEL = /^[\p{L}\p{N}][\p{L}\p{N} ._-]{0,63}$/u;

/** Headers that belong to the connection or to MCP itself. */
const RESERVED_HEADERS = new Set([
  'accept',
  'accept-encoding',
  'connection',
  'content-encoding',
  'content-length',
  'content-type',
  'expect',
  'host',
  'keep-alive',
  'last-event-id',
  'mcp-method',
  'mcp-name',
  'mcp-protocol-version',
  'mcp-session-id',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

export function isServerLabel(label: string): boolean {
  return LABEL.test(label);
}

/** @param value an element of `tools` whose type is "mcp" */
export const parseMcpTool: Parse<McpTool> = (value, path) => {
  const fields = fieldsOf(value, path);
  for (const field of ['connector_id', 'tunnel_id']) {
    if (fields.raw(field) !== undefined)
      throw unsupportedParameter(fields.pathOf(field), 'it names a service of OpenAI; give server_url instead');
  }
  const serverLabel = fields.required('server_label', label);
  const serverUrl = fields.optional('server_url', url);
  const headers = fields.optional('headers', parseHeaders);
  const authorization = fields.optional('authorization', secret);
  if (serverUrl === undefined && (headers !== undefined || authorization !== undefined))
    throw missingParameter(fields.pathOf('server_url'), 'headers and authorization are for a server that you name');
  if (authorization !== undefined && headers !== undefined && 'authorization' in headers)
    throw invalidValue(fields.pathOf('authorization'), 'must not be given beside an Authorization header');
  return {
    type: 'mcp',
    serverLabel,
    ...defined({
      serverUrl,
      serverDescription: fields.optional('server_description', bounded(MCP_TOOL_LIMITS.maxDescription)),
      allowedTools: fields.optional('allowed_tools', allowedTools),
      headers,
      authorization,
    }),
    requireApproval: fields.optional('require_approval', requireApproval) ?? 'always',
  };
};

/** @throws ApiError: too many servers, or two under one label */
export function checkMcpTools(tools: readonly McpTool[], path: string): void {
  const { maxServers } = MCP_TOOL_LIMITS;
  if (tools.length > maxServers)
    throw invalidValue(path, `must name at most ${maxServers} MCP servers, got ${tools.length}`);
  const seen = new Set<string>();
  for (const { serverLabel } of tools) {
    if (seen.has(serverLabel))
      throw invalidValue(path, `must not use the server_label ${shortened(serverLabel)} twice`);
    seen.add(serverLabel);
  }
}

/** Chat completions have no way to ask. @throws ApiError 400 unless nothing has to be asked */
export function requireUnattended({ requireApproval: approval }: McpTool, path: string): void {
  if (approval === 'never') return;
  throw unsupportedParameter(
    `${path}.require_approval`,
    "chat completions cannot ask for an approval and wait for it; set require_approval to 'never' (its default is 'always'), or use /v1/responses",
  );
}

const label: Parse<string> = (value, path) => {
  const text = nonEmptyString(value, path);
  if (!isServerLabel(text))
    throw invalidValue(
      path,
      'must be 1 to 64 letters, digits, spaces, dots, _ and -, and begin with a letter or digit',
    );
  return text;
};

const url: Parse<URL> = (value, path) => {
  const text = bounded(MCP_TOOL_LIMITS.maxUrl)(value, path);
  const parsed = URL.canParse(text) ? new URL(text) : undefined;
  if (parsed === undefined || !['http:', 'https:'].includes(parsed.protocol))
    throw invalidValue(path, 'must be an http or https address');
  if (parsed.username !== '' || parsed.password !== '')
    throw invalidValue(path, 'must not hold a user name or a password; use headers or authorization');
  parsed.hash = '';
  return parsed;
};

function bounded(max: number): Parse<string> {
  return (value, path) => {
    const text = string(value, path);
    if (text.length > max) throw invalidValue(path, `must have at most ${max} characters, got ${text.length}`);
    return text;
  };
}

/** Its errors do not show the value. */
const secret: Parse<string> = (value, path) => {
  const text = bounded(MCP_TOOL_LIMITS.maxHeaderValue)(value, path);
  if (text === '') throw invalidValue(path, 'must not be empty');
  if (!isHeaderValue(text)) throw invalidValue(path, 'holds characters that a header cannot carry');
  return text;
};

/** Names in lower case. */
const parseHeaders: Parse<Record<string, string>> = (value, path) => {
  const entries = Object.entries(object(value, path));
  const { maxHeaders } = MCP_TOOL_LIMITS;
  if (entries.length > maxHeaders)
    throw invalidValue(path, `must hold at most ${maxHeaders} headers, got ${entries.length}`);
  const headers: Record<string, string> = {};
  for (const [given, headerValue] of entries) {
    const name = given.toLowerCase();
    if (!isHeaderName(name)) throw invalidValue(path, `holds ${shortened(given)}, which is not a header's name`);
    if (RESERVED_HEADERS.has(name)) throw invalidValue(path, `must not set ${name}`);
    headers[name] = secret(headerValue, `${path}.${given}`);
  }
  return headers;
};

function isHeaderName(name: string): boolean {
  try {
    validateHeaderName(name);
    return name !== '__proto__';
  } catch {
    return false;
  }
}

function isHeaderValue(value: string): boolean {
  try {
    validateHeaderValue('x', value);
    return true;
  } catch {
    return false;
  }
}

const toolNames: Parse<string[]> = (value, path) =>
  array(bounded(MCP_TOOL_LIMITS.maxToolName), 0, MCP_TOOL_LIMITS.maxToolNames)(value, path);

const filter: Parse<McpToolFilter> = (value, path) => filterOf(fieldsOf(value, path));

function filterOf(fields: Fields): McpToolFilter {
  return defined({
    toolNames: fields.optional('tool_names', toolNames),
    readOnly: fields.optional('read_only', boolean),
  });
}

const allowedTools: Parse<McpToolFilter> = (value, path) => {
  if (Array.isArray(value)) return { toolNames: toolNames(value, path) };
  if (typeof value !== 'object') throw invalidType(path, 'an array of names or an object', value);
  return filter(value, path);
};

const requireApproval: Parse<McpRequireApproval> = (value, path) => {
  if (value === 'always' || value === 'never') return value;
  if (typeof value !== 'object') throw invalidValue(path, "must be 'always', 'never' or an object with filters");
  const fields = fieldsOf(value, path);
  return defined({ always: fields.optional('always', filter), never: fields.optional('never', filter) });
};

/** Without the keys whose value is undefined. */
function defined<T extends object>(values: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
}
