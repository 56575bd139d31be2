/**
 * The names under which a model is offered the tools of several servers.
 *
 * A tool keeps its own name where nothing else in the request has it: models were trained on `get_weather`, not on
 * `weather__get_weather`, and small ones copy long names badly. Where two servers, or a server and a function of the
 * client, share a name, each server's tool becomes `label__tool`; none of them gets the bare name, so that it never depends
 * on an order who is meant. Names that no function may have are made of the letters that it may have. What is still not
 * unique, or too long, ends in a hash of label and name. The same servers and functions always give the same names.
 */

import { createHash } from 'node:crypto';

import type { ToolDefinition } from '../chat/types.js';
import { needsApproval } from './approval.js';
import { matches, type McpServer, type McpToolInfo, type RequestedServer } from './tool.js';

/** One tool as the model sees it, and what stands behind it. */
export interface OfferedTool {
  /** 1 to 64 characters of A-Z, a-z, 0-9, _ and -; unique within the request. */
  readonly name: string;
  readonly server: McpServer;
  readonly tool: McpToolInfo;
  readonly needsApproval: boolean;
}

export interface ListedServer {
  readonly requested: RequestedServer;
  readonly tools: readonly McpToolInfo[];
}

const MAX_NAME = 64;
const VALID = /^[A-Za-z0-9_-]{1,64}$/;

/** Every tool that a request may use. What is not here can neither be offered nor run. */
export class ToolCatalog {
  readonly tools: readonly OfferedTool[];
  private readonly byName: ReadonlyMap<string, OfferedTool>;

  /** @param functions names of the client's own functions: those are never changed */
  constructor(servers: readonly ListedServer[], functions: readonly string[] = []) {
    const allowed = servers.flatMap(({ requested, tools }) =>
      unique(tools)
        .filter((tool) => requested.allowedTools === undefined || matches(requested.allowedTools, tool))
        .map((tool) => ({ requested, tool })),
    );
    const bare = count([...functions, ...allowed.map(({ tool }) => tool.name)]);
    const prefixed = allowed.map(({ requested, tool }) =>
      VALID.test(tool.name) && bare.get(tool.name) === 1 ? tool.name : prefixedName(requested.server.label, tool.name),
    );
    const all = count([...functions, ...prefixed]);
    this.tools = allowed.map(({ requested, tool }, index) => {
      const name = prefixed[index] ?? '';
      return {
        name:
          name.length <= MAX_NAME && all.get(name) === 1 ? name : hashedName(name, requested.server.label, tool.name),
        server: requested.server,
        tool,
        needsApproval: needsApproval(requested.requireApproval, tool),
      };
    });
    this.byName = new Map(this.tools.map((tool) => [tool.name, tool]));
  }

  /** By the name that the model uses. */
  named(name: string): OfferedTool | undefined {
    return this.byName.get(name);
  }

  /** By the names that the wire uses. */
  find(label: string, tool: string): OfferedTool | undefined {
    return this.tools.find((offered) => offered.server.label === label && offered.tool.name === tool);
  }

  ofServer(label: string): readonly OfferedTool[] {
    return this.tools.filter(({ server }) => server.label === label);
  }

  get definitions(): readonly ToolDefinition[] {
    return this.tools.map(({ name, tool }) => ({
      name,
      ...(tool.description === undefined ? {} : { description: tool.description }),
      parameters: tool.inputSchema,
    }));
  }
}

/** The name that a tool has where its own cannot be used; not yet unique. */
export function prefixedName(label: string, tool: string): string {
  return `${plain(label)}__${plain(tool)}`;
}

function plain(text: string): string {
  return text.replace(/[^A-Za-z0-9_-]/g, '_');
}

function hashedName(name: string, label: string, tool: string): string {
  const hash = createHash('sha256')
    .update(JSON.stringify([label, tool]))
    .digest('hex')
    .slice(0, 10);
  return `${name.slice(0, MAX_NAME - hash.length - 1)}_${hash}`;
}

function count(names: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
  return counts;
}

/** A server that lists a name twice means the first. */
function unique(tools: readonly McpToolInfo[]): readonly McpToolInfo[] {
  const seen = new Set<string>();
  return tools.filter(({ name }) => !seen.has(name) && seen.add(name));
}
