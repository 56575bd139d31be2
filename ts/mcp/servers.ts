/** Which servers a request means: its own addresses, or the operator's servers by label. */

import type { ApiError } from '../protocol/errors.js';
import { invalidValue, unsupportedParameter } from '../protocol/errors.js';
import { shortened } from '../protocol/fields.js';
import type { McpTool } from '../protocol/mcp.js';
import type { McpServer, RequestedServer } from './tool.js';

export interface ServerPolicy {
  /** The operator's servers. */
  readonly configured: ReadonlyMap<string, McpServer>;
  /** Requests may name addresses. @default true */
  readonly allowUrls?: boolean;
  /** Connections of requests with different partitions (API keys) are never shared. */
  readonly partition?: string;
}

/**
 * @param pathOf where a tool stands in the request: `tools[2]`
 * @throws ApiError 400: an unknown label, or addresses where none are allowed
 */
export function resolveServers(
  tools: readonly McpTool[],
  pathOf: (tool: McpTool) => string,
  policy: ServerPolicy,
): RequestedServer[] {
  return tools.map((tool) => {
    const { allowedTools, requireApproval } = tool;
    const server = resolveServer(tool, pathOf(tool), policy);
    return { server, requireApproval, ...(allowedTools === undefined ? {} : { allowedTools }) };
  });
}

function resolveServer(tool: McpTool, path: string, { configured, allowUrls, partition }: ServerPolicy): McpServer {
  const { serverLabel: label, serverUrl: url, headers, authorization } = tool;
  const own = partition === undefined ? {} : { partition };
  if (url === undefined) {
    const server = configured.get(label);
    if (server === undefined) throw unknownLabel(label, path, [...configured.keys()]);
    return { ...server, ...own };
  }
  if (allowUrls === false)
    throw unsupportedParameter(
      `${path}.server_url`,
      `this server uses only its own MCP servers${listed([...configured.keys()])}`,
    );
  return {
    label,
    trusted: false,
    reach: {
      type: 'http',
      url,
      ...(headers === undefined ? {} : { headers }),
      ...(authorization === undefined ? {} : { authorization }),
    },
    ...own,
  };
}

function unknownLabel(label: string, path: string, labels: readonly string[]): ApiError {
  return invalidValue(
    `${path}.server_label`,
    `names no MCP server of this server: ${shortened(label)}${listed(labels)}; for a server of your own give server_url`,
  );
}

function listed(labels: readonly string[]): string {
  return labels.length === 0 ? ' (it has none)' : ` (${labels.map((label) => `'${label}'`).join(', ')})`;
}
