/** MCP as the routes know it. */

import { McpPool } from '../mcp/client-pool.js';
import { parseMcpConfig } from '../mcp/config.js';
import { resolveServers } from '../mcp/servers.js';
import type { McpServer, RequestedServer } from '../mcp/tool.js';
import type { McpTool } from '../protocol/mcp.js';
import { createMcpLoop } from '../responses/mcp-loop.js';
import type { ResponseLoopFactory } from './responses/services.js';

export interface McpServices {
  /** Closing it is the caller's business, after the server. */
  readonly pool: McpPool;
  /** The operator's servers, by label. @default none */
  readonly servers?: ReadonlyMap<string, McpServer>;
  /** Requests may name addresses. @default true */
  readonly allowUrls?: boolean;
  /** Answers of the model per request. @default 10 */
  readonly maxTurns?: number;
}

export interface McpOptions extends Pick<McpServices, 'allowUrls' | 'maxTurns'> {
  /** The text of an `mcp.json`: servers that requests may name by label. `${NAME}` is filled in from the environment. */
  readonly config?: string;
  /** Requests may name addresses on this machine. @default false */
  readonly allowLoopback?: boolean;
  /** Requests may name addresses in private networks. @default false */
  readonly allowPrivate?: boolean;
  /** Told of connections that open, close and fail. */
  readonly log?: (message: string) => void;
  /** Told of fields of the config that have no effect. */
  readonly warn?: (message: string) => void;
  /** Our version, as servers are told. */
  readonly version?: string;
}

/** Nothing is started or connected before a request needs it. @throws McpConfigError */
export function createMcp(options: McpOptions = {}): McpServices {
  const { config, warn, allowUrls, maxTurns, ...pool } = options;
  const read = config === undefined ? undefined : parseMcpConfig(config, process.env);
  for (const warning of read?.warnings ?? []) warn?.(warning);
  return {
    pool: new McpPool(pool),
    ...(read === undefined ? {} : { servers: read.servers }),
    ...(allowUrls === undefined ? {} : { allowUrls }),
    ...(maxTurns === undefined ? {} : { maxTurns }),
  };
}

/** @param caller connections are shared within one @throws ApiError 400 for servers that may not be used */
export function requestedServers(
  { servers, allowUrls }: McpServices,
  tools: readonly McpTool[],
  pathOf: (tool: McpTool) => string,
  caller: string | undefined,
): RequestedServer[] {
  return resolveServers(tools, pathOf, {
    configured: servers ?? new Map<string, McpServer>(),
    ...(allowUrls === undefined ? {} : { allowUrls }),
    ...(caller === undefined ? {} : { partition: caller }),
  });
}

/** Also for a request without servers whose input answers an approval: the answer has to be looked at. */
export function mcpResponseLoop(mcp: McpServices): ResponseLoopFactory {
  return ({ request, items, input, claims, caller }) => {
    const tools = request.tools.filter((tool) => tool.type === 'mcp');
    if (tools.length === 0 && !request.input.some(({ type }) => type === 'mcp_approval_response')) return undefined;
    const { pool, maxTurns } = mcp;
    const { toolChoice, maxToolCalls } = request;
    const servers = requestedServers(mcp, tools, (tool) => `tools[${request.tools.indexOf(tool)}]`, caller);
    return createMcpLoop({ pool, servers, items, input, claims, toolChoice, maxTurns, maxToolCalls });
  };
}
