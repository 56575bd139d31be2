/** What the parts of ts/mcp share: servers, their tools, and what a request asks of them. */

import type { Transport } from '@modelcontextprotocol/client';

import type { McpRequireApproval, McpToolFilter } from '../protocol/mcp.js';
import type { McpCallError } from './errors.js';

export interface HttpServer {
  /** 'http': Streamable HTTP, and HTTP+SSE where there is no such thing. 'sse': the old transport at once. */
  readonly type: 'http' | 'sse';
  readonly url: URL;
  /** Names in lower case. Secrets. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as a bearer token. A secret. */
  readonly authorization?: string;
}

/** Started by the operator's word only. */
export interface StdioServer {
  readonly type: 'stdio';
  readonly command: string;
  readonly args: readonly string[];
  /** On top of PATH and the like; the rest of our environment is not passed on. */
  readonly env: Readonly<Record<string, string>>;
  readonly cwd?: string;
}

/** A server inside this process. */
export interface CustomServer {
  readonly type: 'custom';
  /** Connections with the same key are the same. */
  readonly key: string;
  readonly open: () => Transport | Promise<Transport>;
}

export interface McpServer {
  /** `server_label` of the request, or the server's name in the operator's file. */
  readonly label: string;
  readonly reach: HttpServer | StdioServer | CustomServer;
  /** The operator named it: it may be on this machine or in a private network. */
  readonly trusted: boolean;
  /** Connections are shared only within a partition (such as one API key). */
  readonly partition?: string;
}

/** A server as one request wants it. */
export interface RequestedServer {
  readonly server: McpServer;
  /** Undefined: all. */
  readonly allowedTools?: McpToolFilter;
  readonly requireApproval: McpRequireApproval;
}

/** A tool as its server describes it. Names, texts and hints are the server's word, not the truth. */
export interface McpToolInfo {
  readonly name: string;
  readonly title?: string;
  readonly description?: string;
  /** JSON schema of an object. */
  readonly inputSchema: Readonly<Record<string, unknown>>;
  readonly annotations?: Readonly<Record<string, unknown>>;
}

/** What a call came to. */
export type McpOutcome =
  { readonly ok: true; readonly output: string } | { readonly ok: false; readonly error: McpCallError };

export interface McpProgress {
  readonly progress: number;
  readonly total?: number;
  readonly message?: string;
}

export function isReadOnly(tool: McpToolInfo): boolean {
  return tool.annotations?.['readOnlyHint'] === true;
}

/** Whether a filter means a tool. A filter without conditions means all. */
export function matches(filter: McpToolFilter, tool: McpToolInfo): boolean {
  const { toolNames, readOnly } = filter;
  return (
    (toolNames === undefined || toolNames.includes(tool.name)) &&
    (readOnly === undefined || readOnly === isReadOnly(tool))
  );
}
