/** The HTTP API as an Express app. */

import type { IncomingMessage, ServerResponse } from 'node:http';

import express, { type Express, type NextFunction, type Request, type Response } from 'express';

import type { ModelRegistry } from '../app/types.js';
import { ApiError } from '../protocol/errors.js';
import { createMemoryStore } from '../responses/memory-store.js';
import type { ResponseStore } from '../responses/store.js';
import { createAccessCheck } from './access.js';
import { setAppParts } from './app-parts.js';
import { createKeyCheck } from './auth.js';
import { RequestContext, type Services } from './context.js';
import { createCors } from './cors.js';
import { Drain, drainingError } from './drain.js';
import { STATUS_CLIENT_GONE } from './errors.js';
import { DEFAULT_LIMITS, type HttpLimits } from './limits.js';
import { type Logger, silentLogger, warnOnce } from './logger.js';
import { type McpServices, mcpResponseLoop } from './mcp.js';
import { Metrics } from './metrics.js';
import { identify, sendEmpty, sendError } from './respond.js';
import { createResponses, type ResponseLoopFactory } from './responses/services.js';
import { createResponsesSockets } from './responses/socket.js';
import { health } from './routes/health.js';
import { ROUTES } from './routes/index.js';
import type { PathParameters, Route } from './routes/route.js';
import { TranscriptionSlots } from './transcription-slots.js';
import { unservedPath } from './unserved.js';

export interface AppOptions {
  readonly registry: ModelRegistry;
  /** Any of them opens every route; without keys, Host and Origin are checked instead. @default none */
  readonly apiKeys?: readonly string[];
  /** Web pages that may ask: true for all, or their origins. @default false */
  readonly cors?: boolean | readonly string[];
  /** Unknown fields are a 400 instead of a warning. @default false */
  readonly strict?: boolean;
  /** Host names besides loopback ones; '*' for any. @default none */
  readonly allowedHosts?: readonly string[];
  /** Origins besides loopback ones, '*' for any: they may ask, and read the answers as those of `cors` do. @default none */
  readonly allowedOrigins?: readonly string[];
  /** @default silent */
  readonly logger?: Logger;
  /** What models are asked goes to the log, at level info. @default false */
  readonly logPrompts?: boolean;
  /** Ends the server in an orderly way; by default nothing does. */
  readonly drain?: Drain;
  readonly limits?: Partial<HttpLimits>;
  /** Where responses are kept; false: nowhere. Closing it is the caller's business. @default in memory */
  readonly responses?: ResponseStore | false;
  /** MCP servers, of requests and of the operator. @default tools of type `mcp` are refused */
  readonly mcp?: McpServices;
  /** What runs tools on the server, per response. @default `mcp` does */
  readonly responseLoop?: ResponseLoopFactory;
}

/** @throws TypeError for a blank API key */
export function createApp(options: AppOptions): Express {
  const { registry, apiKeys = [], cors = false, strict = false, logger = silentLogger, mcp } = options;
  const limits = { ...DEFAULT_LIMITS, ...options.limits };
  const responses = createResponses(
    options.responses === false ? undefined : (options.responses ?? createMemoryStore()),
    options.responseLoop ?? (mcp && mcpResponseLoop(mcp)),
    logger,
  );
  const drain = options.drain ?? new Drain();
  const transcriptions = new TranscriptionSlots(limits);
  const services: Services = {
    registry,
    limits,
    strict,
    logger,
    warnOnce: warnOnce(logger),
    routes: ROUTES,
    responses,
    hasKeys: apiKeys.length > 0,
    metrics: new Metrics(registry, () => drain.requests, transcriptions),
    drain,
    transcriptions,
    logPrompts: options.logPrompts ?? false,
    mcp,
  };
  const contexts = new WeakMap<IncomingMessage, RequestContext>();
  const contextOf = (req: IncomingMessage, res: ServerResponse): RequestContext => {
    const known = contexts.get(req);
    if (known !== undefined) return known;
    const context = new RequestContext(req, res, services);
    contexts.set(req, context);
    return context;
  };
  const checkKey = createKeyCheck(apiKeys);
  const origins = cors === true ? ['*'] : [...(options.allowedOrigins ?? []), ...(cors === false ? [] : cors)];
  const checkAccess = createAccessCheck({ allowedHosts: options.allowedHosts ?? [], allowedOrigins: origins });
  const crossOrigin = createCors(origins.length > 0 && origins);

  const app = express();
  app.disable('x-powered-by');

  app.use((req, res, next) => {
    const context = contextOf(req, res);
    identify(res, context.id);
    reportWhenDone(context, req.path);
    drain.enter(res);
    if (drain.draining && req.path !== health.path) throw drainingError();
    // With a key any Host will do (tunnels, containers): a page that rebinds its name still has no key.
    if (apiKeys.length === 0) checkAccess(req);
    const preflight = crossOrigin.apply(req, res);
    if (preflight === undefined) next();
    else sendEmpty(context, 204, preflight);
  });

  for (const [path, routes] of byPath(ROUTES)) {
    app.all(path, async (req, res) => {
      const method = req.method === 'HEAD' ? 'GET' : req.method;
      const route = routes.find((candidate) => candidate.method === method);
      const context = contextOf(req, res);
      context.route = path;
      if (route?.open !== true) context.caller = checkKey(req);
      if (route !== undefined)
        await route.handle(context, { id: parameterOf(req, 'id'), item: parameterOf(req, 'item') });
      else if (method === 'OPTIONS') sendEmpty(context, 204, { allow: allowed(routes) });
      else throw methodNotAllowed(req, routes);
    });
  }
  app.use((req) => {
    checkKey(req);
    throw unservedPath(req.method, req.path, ROUTES);
  });
  // eslint-disable-next-line @typescript-eslint/no-unused-vars -- Express knows an error handler by its four parameters.
  app.use((error: unknown, req: Request, res: Response, _next: NextFunction) => {
    sendError(contextOf(req, res), error);
  });
  setAppParts(app, {
    sockets: createResponsesSockets(services, (req) => {
      if (apiKeys.length === 0) checkAccess(req);
      return checkKey(req);
    }),
    endRuns: async () => responses.kept?.background.end(),
  });
  return app;
}

/** Counts each request and logs one line of it when its connection is done with it; never a body, never a query. */
function reportWhenDone(context: RequestContext, path: string): void {
  const { req, res, services } = context;
  res.once('close', () => {
    const status = res.writableFinished ? res.statusCode : STATUS_CLIENT_GONE;
    const { usage, audioSeconds, failure, elapsedMs, id: requestId, model } = context;
    const method = req.method ?? '';
    services.metrics.request({
      method,
      route: context.route ?? 'none',
      status,
      model: model ?? '',
      seconds: elapsedMs / 1000,
    });
    const tokens = usage === undefined ? '' : ` ${usage.promptTokens}+${usage.completionTokens} tokens`;
    const audio = audioSeconds === undefined ? '' : ` ${audioSeconds.toFixed(1)} s audio`;
    const why = failure === undefined ? '' : ` ${failure}`;
    // A path may hold bytes that a terminal obeys.
    const where = path.slice(0, 200).replace(/[^\x21-\x7e]/g, '?');
    services.logger.info(`${method} ${where} ${status}${why} ${elapsedMs} ms${tokens}${audio} ${requestId}`, {
      requestId,
      method,
      path: where,
      status,
      code: failure,
      ms: elapsedMs,
      model,
      ...usage,
      audioSeconds,
    });
  });
}

function byPath(routes: readonly Route[]): Map<string, Route[]> {
  const paths = new Map<string, Route[]>();
  for (const route of routes) paths.set(route.path, [...(paths.get(route.path) ?? []), route]);
  return paths;
}

/** The segment `:id`, or the segments of a path's `*id`, decoded by Express one by one: `a%2Fb` and `a/b` are the same id. */
function parameterOf(req: Request, name: keyof PathParameters): string {
  const segments: unknown = req.params[name];
  return Array.isArray(segments) ? segments.join('/').replace(/\/$/, '') : typeof segments === 'string' ? segments : '';
}

function allowed(routes: readonly Route[]): string {
  const methods = routes.flatMap(({ method }) => (method === 'GET' ? ['GET', 'HEAD'] : [method]));
  return [...methods, 'OPTIONS'].join(', ');
}

function methodNotAllowed(req: Request, routes: readonly Route[]): ApiError {
  return new ApiError({
    status: 405,
    type: 'invalid_request_error',
    code: 'method_not_allowed',
    message: `${req.method} is not allowed for ${req.path}; use ${routes.map((route) => route.method).join(' or ')}`,
    headers: { allow: allowed(routes) },
  });
}
