/** MCP as the routes know it. */

import type { McpPool } from '../mcp/client-pool.js';
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
  return ({ request, items, caller }) => {
    const tools = request.tools.filter((tool) => tool.type === 'mcp');
    if (tools.length === 0 && !request.input.some(({ type }) => type === 'mcp_approval_response')) return undefined;
    const { pool, maxTurns } = mcp;
    const { toolChoice, maxToolCalls } = request;
    const servers = requestedServers(mcp, tools, (tool) => `tools[${request.tools.indexOf(tool)}]`, caller);
    return createMcpLoop({ pool, servers, items, toolChoice, maxTurns, maxToolCalls });
  };
}
