/** The operator's servers: `--mcp-config mcp.json`, in the form that MCP clients share (`{"mcpServers": {…}}`). */

import { isObject, type JsonObject } from '../protocol/fields.js';
import { isServerLabel } from '../protocol/mcp.js';
import type { McpServer } from './tool.js';

/** What is wrong with the file, as a sentence for the operator. Never holds values: they may be secrets. */
export class McpConfigError extends Error {
  override readonly name = 'McpConfigError';
}

export interface McpConfig {
  /** By label, in the file's order. */
  readonly servers: ReadonlyMap<string, McpServer>;
  /** Fields that have no effect here. */
  readonly warnings: readonly string[];
}

const STDIO_FIELDS = ['command', 'args', 'env', 'cwd'];
const HTTP_FIELDS = ['url', 'headers'];
const COMMON_FIELDS = ['type', 'transport', 'disabled'];

/** Names by which clients' files call the transports. */
const HTTP_TYPES: Readonly<Record<string, 'http' | 'sse'>> = {
  http: 'http',
  'streamable-http': 'http',
  streamableHttp: 'http',
  sse: 'sse',
};

/**
 * @param text the file
 * @param environment where `${NAME}` and `${NAME:-default}` are looked up
 * @throws McpConfigError
 */
export function parseMcpConfig(text: string, environment: Readonly<Record<string, string | undefined>>): McpConfig {
  const root = parseFile(text);
  const servers = new Map<string, McpServer>();
  const warnings: string[] = [];
  for (const [label, value] of Object.entries(root)) {
    const at = `mcpServers[${JSON.stringify(label)}]`;
    if (!isServerLabel(label))
      throw new McpConfigError(
        `${at}: a name has 1 to 64 letters, digits, spaces, dots, _ and -, and begins with a letter or digit`,
      );
    const entry = new Entry(objectAt(value, at), at, environment);
    if (entry.flag('disabled')) continue;
    servers.set(label, { label, trusted: true, reach: reachOf(entry) });
    warnings.push(...entry.unused().map((field) => `${at}.${field} has no effect`));
  }
  return { servers, warnings };
}

function parseFile(text: string): JsonObject {
  let root: unknown;
  try {
    root = JSON.parse(text);
  } catch (error) {
    // V8's message quotes the text around the error, which may be a token.
    const position = /position \d+/.exec(error instanceof Error ? error.message : '')?.[0];
    throw new McpConfigError(`it is not valid JSON${position === undefined ? '' : ` (${position})`}`);
  }
  const servers = objectAt(root, 'the file')['mcpServers'];
  if (servers === undefined) throw new McpConfigError('it has no "mcpServers"; expected {"mcpServers": {"name": {…}}}');
  return objectAt(servers, 'mcpServers');
}

function reachOf(entry: Entry): McpServer['reach'] {
  const command = entry.text('command');
  const url = entry.text('url');
  if ((command === undefined) === (url === undefined))
    throw new McpConfigError(`${entry.at} must have either a command or a url`);
  const type = entry.text('type') ?? entry.text('transport');
  if (command !== undefined) {
    if (type !== undefined && type !== 'stdio')
      throw new McpConfigError(`${entry.at}.type must be "stdio" beside a command`);
    const cwd = entry.text('cwd');
    return {
      type: 'stdio',
      command,
      args: entry.texts('args'),
      env: entry.record('env'),
      ...(cwd === undefined ? {} : { cwd }),
    };
  }
  const transport = type === undefined ? 'http' : HTTP_TYPES[type];
  if (transport === undefined) throw new McpConfigError(`${entry.at}.type must be "http" or "sse" beside a url`);
  const headers = Object.entries(entry.record('headers')).map(([name, value]) => [name.toLowerCase(), value]);
  return {
    type: transport,
    url: parseUrl(url ?? '', `${entry.at}.url`),
    headers: Object.fromEntries(headers) as Record<string, string>,
  };
}

function parseUrl(text: string, at: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !['http:', 'https:'].includes(url.protocol))
    throw new McpConfigError(`${at} must be an http or https address`);
  if (url.username !== '' || url.password !== '')
    throw new McpConfigError(`${at} must not hold a user name or a password; use headers`);
  return url;
}

/** One server's fields, read by name, with variables filled in. */
class Entry {
  constructor(
    private readonly values: JsonObject,
    readonly at: string,
    private readonly environment: Readonly<Record<string, string | undefined>>,
  ) {}

  flag(name: string): boolean {
    const value = this.values[name];
    if (value !== undefined && typeof value !== 'boolean')
      throw new McpConfigError(`${this.at}.${name} must be true or false`);
    return value ?? false;
  }

  text(name: string): string | undefined {
    const value = this.values[name];
    return value === undefined ? undefined : this.expanded(value, `${this.at}.${name}`);
  }

  texts(name: string): string[] {
    const value = this.values[name] ?? [];
    if (!Array.isArray(value)) throw new McpConfigError(`${this.at}.${name} must be an array of strings`);
    return value.map((element: unknown, index) => this.expanded(element, `${this.at}.${name}[${index}]`));
  }

  record(name: string): Record<string, string> {
    const value = this.values[name];
    if (value === undefined) return {};
    const entries = Object.entries(objectAt(value, `${this.at}.${name}`));
    return Object.fromEntries(entries.map(([key, text]) => [key, this.expanded(text, `${this.at}.${name}.${key}`)]));
  }

  unused(): string[] {
    const used = [...COMMON_FIELDS, ...(this.values['command'] === undefined ? HTTP_FIELDS : STDIO_FIELDS)];
    return Object.keys(this.values).filter((name) => !used.includes(name));
  }

  private expanded(value: unknown, at: string): string {
    if (typeof value !== 'string') throw new McpConfigError(`${at} must be a string`);
    return value.replace(/\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}/g, (_whole, name: string, fallback?: string) => {
      const found = this.environment[name] ?? fallback;
      if (found === undefined) throw new McpConfigError(`${at}: the environment variable ${name} is not set`);
      return found;
    });
  }
}

function objectAt(value: unknown, at: string): JsonObject {
  if (!isObject(value)) throw new McpConfigError(`${at} must be an object`);
  return value;
}
