/** `--mcp-config` and what goes with it. */

import { readFile } from 'node:fs/promises';

import type { McpServices } from '../http/mcp.js';
import type { Logger } from '../http/logger.js';
import { McpPool } from '../mcp/client-pool.js';
import { McpConfigError, parseMcpConfig } from '../mcp/config.js';
import { CliFailure, systemCode } from './failure.js';

export interface McpFlags {
  readonly mcpConfig?: string;
  readonly mcpAllowLoopback?: boolean;
  readonly mcpAllowPrivate?: boolean;
}

/** Nothing is started or connected before a request needs it. @throws CliFailure for a file that cannot be used */
export async function openMcpServers(flags: McpFlags, version: string, logger: Logger): Promise<McpServices> {
  const { mcpConfig: path, mcpAllowLoopback: allowLoopback = false, mcpAllowPrivate: allowPrivate = false } = flags;
  const log = (message: string): void => logger.info(`MCP: ${message}`);
  const servers = path === undefined ? undefined : await readServers(path, logger);
  const pool = new McpPool({ allowLoopback, allowPrivate, version, log });
  return { pool, ...(servers === undefined ? {} : { servers }) };
}

async function readServers(path: string, logger: Logger): Promise<NonNullable<McpServices['servers']>> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    throw new CliFailure(`the MCP file ${path} cannot be read (${systemCode(error) ?? String(error)})`);
  });
  try {
    const { servers, warnings } = parseMcpConfig(text, process.env);
    for (const warning of warnings) logger.warn(`${path}: ${warning}`);
    return servers;
  } catch (error) {
    if (error instanceof McpConfigError) throw new CliFailure(`the MCP file ${path}: ${error.message}`);
    throw error;
  }
}
