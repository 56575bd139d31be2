/** `--mcp-config` and what goes with it. */

import { readFile } from 'node:fs/promises';

import { createMcp, type McpServices } from '../http/mcp.js';
import type { Logger } from '../http/logger.js';
import { McpConfigError } from '../mcp/config.js';
import { CliFailure, systemCode } from './failure.js';

export interface McpFlags {
  readonly mcpConfig?: string;
  readonly mcpAllowLoopback?: boolean;
  readonly mcpAllowPrivate?: boolean;
}

/** @throws CliFailure for a file that cannot be used */
export async function openMcpServers(flags: McpFlags, version: string, logger: Logger): Promise<McpServices> {
  const {
    mcpConfig: path = '',
    mcpAllowLoopback: allowLoopback = false,
    mcpAllowPrivate: allowPrivate = false,
  } = flags;
  const config = path === '' ? undefined : await read(path);
  try {
    return createMcp({
      ...(config === undefined ? {} : { config }),
      allowLoopback,
      allowPrivate,
      version,
      log: (message) => logger.info(`MCP: ${message}`),
      warn: (message) => logger.warn(`${path}: ${message}`),
    });
  } catch (error) {
    if (error instanceof McpConfigError) throw new CliFailure(`the MCP file ${path}: ${error.message}`);
    throw error;
  }
}

function read(path: string): Promise<string> {
  return readFile(path, 'utf8').catch((error: unknown) => {
    throw new CliFailure(`the MCP file ${path} cannot be read (${systemCode(error) ?? String(error)})`);
  });
}
