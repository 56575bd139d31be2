/**
 * The app of `tsserve serve` and what stands behind it: most of the program. It is imported when the server already
 * listens.
 */

import type { RequestListener } from 'node:http';

import type { ModelRegistry } from '../app/types.js';
import { createApp } from '../http/app.js';
import type { Drain } from '../http/drain.js';
import type { Logger } from '../http/logger.js';
import { sweepUploads } from '../http/uploads.js';
import type { McpPool } from '../mcp/client-pool.js';
import { openMcpServers } from './mcp-servers.js';
import { type OpenResponses, openResponses } from './responses-file.js';
import type { Access } from './serve-access.js';
import type { ServeFlags } from './serve.js';

/** What there is already when the app is opened. */
export interface AppBase {
  readonly access: Access;
  readonly registry: ModelRegistry;
  readonly logger: Logger;
  readonly drain: Drain;
  readonly version: string;
}

export interface OpenApp {
  readonly app: RequestListener;
  readonly mcp: McpPool;
  readonly responses: OpenResponses;
}

/** @throws CliFailure for files of flags that cannot be used */
export async function openApp(flags: ServeFlags, base: AppBase): Promise<OpenApp> {
  const { access, registry, logger, drain, version } = base;
  const mcp = await openMcpServers(flags, version, logger);
  const responses = await openResponses(flags.responsesStore, logger);
  // What a process that was killed has left behind.
  void sweepUploads();
  const app = createApp({
    ...access,
    registry,
    cors: flags.enableCors ?? false,
    strict: flags.strict ?? false,
    ...(flags.maxUpload === undefined ? {} : { limits: { maxUploadBytes: flags.maxUpload } }),
    allowedOrigins: flags.allowedOrigins ?? [],
    logger,
    logPrompts: flags.logPrompts ?? false,
    drain,
    mcp,
    responses: responses.store,
  });
  return { app, mcp: mcp.pool, responses };
}
