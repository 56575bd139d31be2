/**
 * Who may speak to a server without keys. A web page anywhere can send requests to localhost, under its own Origin or,
 * by rebinding its name to 127.0.0.1, under its own Host: both are checked.
 */

import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';

import { ApiError } from '../protocol/errors.js';

export interface AccessOptions {
  /** Host names, with or without a port, besides loopback ones. '*': any. */
  readonly allowedHosts: readonly string[];
  /** Origins besides loopback ones and those of allowed hosts. '*': any. */
  readonly allowedOrigins: readonly string[];
}

/** Throws an ApiError 403. */
export type AccessCheck = (req: IncomingMessage) => void;

export function createAccessCheck(options: AccessOptions): AccessCheck {
  const hosts = new Set(options.allowedHosts.map((host) => host.toLowerCase()));
  const origins = new Set(options.allowedOrigins.map((origin) => origin.toLowerCase()));
  const isAllowedHost = (host: string): boolean => {
    const name = hostName(host);
    return hosts.has('*') || hosts.has(host) || (name !== undefined && (isLoopback(name) || hosts.has(name)));
  };
  const isAllowedOrigin = (origin: string): boolean => {
    if (origins.has('*') || origins.has(origin)) return true;
    const host = hostOfOrigin(origin);
    return host !== undefined && host !== '' && !hosts.has('*') && isAllowedHost(host);
  };
  return (req) => {
    const host = req.headers.host?.toLowerCase() ?? '';
    if (!isAllowedHost(host)) {
      throw forbidden('host_not_allowed', `host ${JSON.stringify(host)} is not served here; see --allowed-hosts`);
    }
    const origin = req.headers.origin?.toLowerCase();
    if (origin !== undefined && !isAllowedOrigin(origin) && !(origin === 'null' && isNoPage(req.headers))) {
      throw forbidden('origin_not_allowed', `origin ${JSON.stringify(origin)} may not ask here; see --allowed-origins`);
    }
  };
}

/**
 * The HTTP client of a desktop app may send `Origin: null` (Tauri's does for `tauri://localhost`), as a sandboxed frame of
 * any page does. A page is told apart by what it cannot do: it adds no such header without a preflight, which is refused
 * here, and current browsers mark each request to this machine with Sec-Fetch-Site.
 */
function isNoPage(headers: IncomingHttpHeaders): boolean {
  const needsPreflight =
    headers.authorization !== undefined ||
    headers['x-api-key'] !== undefined ||
    /^application\/json\b/i.test(headers['content-type'] ?? '');
  return needsPreflight && headers['sec-fetch-site'] === undefined;
}

/** The name in a Host header, without port and final dot; undefined if it is none. */
function hostName(host: string): string | undefined {
  return /^(\[[0-9a-f:.]+\]|[^:[\]/@\s]+?)\.?(?::\d{1,5})?$/.exec(host)?.[1];
}

function hostOfOrigin(origin: string): string | undefined {
  try {
    return new URL(origin).host;
  } catch {
    return undefined;
  }
}

function isLoopback(name: string): boolean {
  return name === 'localhost' || name.endsWith('.localhost') || /^127(?:\.\d{1,3}){3}$/.test(name) || name === '[::1]';
}

function forbidden(code: string, message: string): ApiError {
  return new ApiError({ status: 403, type: 'permission_error', code, message });
}
