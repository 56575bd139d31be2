/** Cross-origin headers, for web pages that are allowed to ask. Off unless asked for. */

import type { IncomingMessage, ServerResponse } from 'node:http';

export interface Cors {
  /** Sets the headers. Returns those of the preflight's answer if the request is one. */
  apply(req: IncomingMessage, res: ServerResponse): Readonly<Record<string, string>> | undefined;
}

const EXPOSED = 'x-request-id, openai-processing-ms, openai-version, retry-after';
/** Seconds a browser may keep a preflight's answer. */
const MAX_AGE = '600';

/** @param allowed true: any origin; a list: those */
export function createCors(allowed: boolean | readonly string[]): Cors {
  const listed = typeof allowed === 'boolean' ? undefined : new Set(allowed.map((origin) => origin.toLowerCase()));
  const any = allowed === true || listed?.has('*') === true;
  const allowOrigin = (origin: string): string | undefined => {
    if (any) return '*';
    return listed?.has(origin.toLowerCase()) === true ? origin : undefined;
  };
  return {
    apply(req, res) {
      const origin = req.headers.origin;
      if (listed !== undefined && !any) res.setHeader('vary', 'Origin');
      const allow = origin === undefined ? undefined : allowOrigin(origin);
      if (allow === undefined) return undefined;
      res.setHeader('access-control-allow-origin', allow);
      res.setHeader('access-control-expose-headers', EXPOSED);
      if (req.method !== 'OPTIONS' || req.headers['access-control-request-method'] === undefined) return undefined;
      return preflight(req);
    },
  };
}

function preflight(req: IncomingMessage): Record<string, string> {
  // '*' would not cover Authorization, so the headers that were asked for are named.
  const asked = req.headers['access-control-request-headers'];
  return {
    'access-control-allow-methods': 'GET, POST, DELETE, OPTIONS',
    'access-control-allow-headers': typeof asked === 'string' ? asked : 'authorization, content-type',
    'access-control-max-age': MAX_AGE,
    ...(req.headers['access-control-request-private-network'] === 'true'
      ? { 'access-control-allow-private-network': 'true' }
      : {}),
  };
}
