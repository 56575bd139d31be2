/**
 * The one way to fetch an address that a stranger chose: MCP servers and images of a request. http(s) only; the name is
 * resolved while connecting, every address it has is checked, and the connection goes to one of those, so that nothing
 * can change between check and use; redirects are followed by hand; size and time are bounded.
 *
 * It stands on node:http, whose `lookup` is part of the connecting; the built-in `fetch` offers no such place. Every
 * request has a connection of its own: a kept one would be a check that has aged. Proxy variables are not read.
 */

import { lookup as dnsLookup } from 'node:dns/promises';
import { type ClientRequest, type IncomingMessage, request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { isIP, type LookupFunction } from 'node:net';
import type { ReadableStream } from 'node:stream/web';

import { type AddressPolicy, refusedAddress } from './addresses.js';
import { boundedBody } from './bounded-body.js';
import { GuardedFetchError } from './errors.js';

export interface GuardedFetchOptions extends AddressPolicy {
  /** Bytes of one response, or of one event of an event stream. @default 8 MiB */
  readonly maxBytes?: number;
  /** Milliseconds until the headers are there, over all redirects. @default 30 000 */
  readonly headersTimeoutMs?: number;
  /** Milliseconds until the body is there, from the start. Default: no bound, for streams whose reader has its own. */
  readonly totalTimeoutMs?: number;
  /** Redirects followed. @default 5 */
  readonly maxRedirects?: number;
  /** All addresses of a host name. Default: the system's resolver. */
  readonly resolve?: (hostname: string) => Promise<readonly string[]>;
}

export type GuardedFetch = (url: string | URL, init?: RequestInit) => Promise<Response>;

export const GUARDED_FETCH_DEFAULTS = {
  maxBytes: 8 * 1024 * 1024,
  headersTimeoutMs: 30_000,
  maxRedirects: 5,
} as const;

/** Bytes of all response headers. */
const MAX_HEADER_BYTES = 16 * 1024;
/** Statuses whose responses have no body (`Response` insists). */
const BODILESS = new Set([204, 205, 304]);
const REDIRECTS = new Set([301, 302, 303, 307, 308]);
/** What may follow a redirect to another origin. Anything else may be a key: servers choose the header's name. */
const HARMLESS_HEADERS = new Set(['accept', 'accept-language', 'user-agent', 'content-type']);

/**
 * A `fetch` within bounds. Bodies of requests are strings or bytes; `redirect` may be 'follow' (the default), 'manual' or
 * 'error'; responses come uncompressed. Rejects with GuardedFetchError, or with the signal's reason.
 */
export function guardedFetch(options: GuardedFetchOptions = {}): GuardedFetch {
  const bounds = { ...GUARDED_FETCH_DEFAULTS, ...options };
  const lookup = checkedLookup(options, options.resolve ?? systemResolve);

  return async (input, init = {}) => {
    const deadline = new Deadline(bounds, init.signal ?? undefined);
    try {
      let hop: Hop = {
        url: new URL(input),
        method: init.method ?? 'GET',
        headers: new Headers(init.headers),
        ...bodyOf(init),
      };
      for (let redirects = 0; ; redirects++) {
        checkUrl(hop.url, options);
        const message = await send(hop, lookup, deadline);
        const target = init.redirect === 'manual' ? undefined : redirectTarget(message, hop.url);
        if (target === undefined) {
          deadline.headersArrived();
          return respond(message, hop.url, redirects > 0, bounds.maxBytes, deadline);
        }
        message.destroy();
        if (init.redirect === 'error') throw new GuardedFetchError('redirect_refused', `${hop.url.host} redirects`);
        if (redirects === bounds.maxRedirects)
          throw new GuardedFetchError('redirect_refused', `${hop.url.host} redirects more than ${redirects} times`);
        hop = redirected(hop, target, message.statusCode ?? 0);
      }
    } catch (error) {
      deadline.done();
      throw deadline.reasonOf(error);
    }
  };
}

interface Hop {
  readonly url: URL;
  readonly method: string;
  readonly headers: Headers;
  readonly body?: string | Uint8Array;
}

function bodyOf({ body }: RequestInit): Pick<Hop, 'body'> {
  if (body === undefined || body === null) return {};
  if (typeof body === 'string' || body instanceof Uint8Array) return { body };
  throw new TypeError('a guarded fetch sends strings and bytes only');
}

function checkUrl(url: URL, policy: AddressPolicy): void {
  if (url.protocol !== 'http:' && url.protocol !== 'https:')
    throw new GuardedFetchError('invalid_url', `${url.protocol} addresses are not fetched, only http: and https:`);
  if (url.username !== '' || url.password !== '')
    throw new GuardedFetchError('invalid_url', 'an address must not hold a user name or a password');
  const literal = url.hostname.replace(/^\[|\]$/g, '');
  // Names are checked while connecting; for an address that is written out, Node resolves nothing.
  if (isIP(literal) !== 0) refuse(url.hostname, [literal], policy);
}

/** @throws GuardedFetchError if one of the addresses may not be reached; it names the host only, not what is behind it */
function refuse(host: string, addresses: readonly string[], policy: AddressPolicy): void {
  if (addresses.length === 0) throw new GuardedFetchError('network', `${host} has no address`);
  for (const address of addresses) {
    const reason = refusedAddress(address, policy);
    if (reason !== undefined)
      throw new GuardedFetchError('blocked_address', `${host} is refused: its address ${reason}`);
  }
}

async function systemResolve(hostname: string): Promise<readonly string[]> {
  return (await dnsLookup(hostname, { all: true, verbatim: true })).map(({ address }) => address);
}

function checkedLookup(
  policy: AddressPolicy,
  resolve: (hostname: string) => Promise<readonly string[]>,
): LookupFunction {
  return (hostname, { all }, callback) => {
    resolve(hostname).then(
      (addresses) => {
        try {
          refuse(hostname, addresses, policy);
        } catch (error) {
          callback(error as Error, '', 0);
          return;
        }
        const found = addresses.map((address) => ({ address, family: isIP(address) }));
        if (all === true) callback(null, found);
        else callback(null, found[0]?.address ?? '', found[0]?.family);
      },
      (error: unknown) => callback(networkError(hostname, error), '', 0),
    );
  };
}

function send(hop: Hop, lookup: LookupFunction, deadline: Deadline): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const headers = new Headers(hop.headers);
    headers.set('accept-encoding', 'identity');
    if (!headers.has('user-agent')) headers.set('user-agent', 'tsserve');
    if (hop.body !== undefined) headers.set('content-length', String(Buffer.byteLength(hop.body)));
    const start = hop.url.protocol === 'https:' ? httpsRequest : httpRequest;
    const request: ClientRequest = start(hop.url, {
      method: hop.method,
      headers: Object.fromEntries(headers),
      lookup,
      agent: false,
      signal: deadline.signal,
      maxHeaderSize: MAX_HEADER_BYTES,
    });
    request.on('response', resolve);
    request.on('error', (error) =>
      reject(error instanceof GuardedFetchError ? error : networkError(hop.url.host, error)),
    );
    request.end(hop.body);
  });
}

function networkError(host: string, error: unknown): GuardedFetchError {
  const code = error instanceof Error && 'code' in error && typeof error.code === 'string' ? ` (${error.code})` : '';
  return new GuardedFetchError('network', `${host} cannot be reached${code}`, { cause: error });
}

function redirectTarget(message: IncomingMessage, from: URL): URL | undefined {
  const { location } = message.headers;
  if (location === undefined || !REDIRECTS.has(message.statusCode ?? 0)) return undefined;
  if (!URL.canParse(location, from.href)) {
    message.destroy();
    throw new GuardedFetchError('redirect_refused', `${from.host} redirects to something that is not an address`);
  }
  return new URL(location, from);
}

function redirected({ url, method, headers, body }: Hop, target: URL, status: number): Hop {
  if (url.protocol === 'https:' && target.protocol === 'http:')
    throw new GuardedFetchError('redirect_refused', `${url.host} redirects from https to http`);
  const keepsMethod = status === 307 || status === 308 || method === 'GET' || method === 'HEAD';
  const sameOrigin = target.origin === url.origin;
  if (keepsMethod && !sameOrigin && body !== undefined)
    throw new GuardedFetchError('redirect_refused', `${url.host} redirects a body to another origin`);
  const kept = [...headers].filter(([name]) => sameOrigin || HARMLESS_HEADERS.has(name));
  return keepsMethod
    ? { url: target, method, headers: new Headers(kept), ...(body === undefined ? {} : { body }) }
    : { url: target, method: 'GET', headers: new Headers(kept.filter(([name]) => name !== 'content-type')) };
}

function respond(
  message: IncomingMessage,
  url: URL,
  wasRedirected: boolean,
  maxBytes: number,
  deadline: Deadline,
): Response {
  const status = message.statusCode ?? 0;
  const encoding = message.headers['content-encoding'];
  if (encoding !== undefined && encoding !== 'identity') {
    message.destroy();
    throw new GuardedFetchError('bad_response', `${url.host} compresses its answer though it was asked not to`);
  }
  let body: ReadableStream<Uint8Array> | null = null;
  if (BODILESS.has(status)) {
    message.resume();
    deadline.done();
  } else {
    const size = Number(message.headers['content-length'] ?? 0);
    if (size > maxBytes) {
      message.destroy();
      throw new GuardedFetchError('too_large', `the answer of ${url.host} is larger than ${maxBytes} bytes`);
    }
    body = boundedBody(message, url.host, maxBytes, deadline);
  }
  const headers = new Headers();
  for (const [name, value] of Object.entries(message.headersDistinct)) {
    for (const one of value ?? []) headers.append(name, one);
  }
  const response = new Response(body, { status, statusText: message.statusMessage ?? '', headers });
  // A Response that was made by hand knows neither, and cannot be told.
  Object.defineProperties(response, { url: { value: url.href }, redirected: { value: wasRedirected } });
  return response;
}

/** The caller's signal and the guard's own clocks, as one signal. */
class Deadline {
  private readonly controller = new AbortController();
  private readonly headers: NodeJS.Timeout;
  private readonly total: NodeJS.Timeout | undefined;
  private readonly stop = (): void => this.controller.abort(this.outer?.reason);

  constructor(
    bounds: { readonly headersTimeoutMs: number; readonly totalTimeoutMs?: number },
    private readonly outer: AbortSignal | undefined,
  ) {
    this.headers = this.after(bounds.headersTimeoutMs, 'no answer');
    this.total = bounds.totalTimeoutMs === undefined ? undefined : this.after(bounds.totalTimeoutMs, 'no whole answer');
    if (outer?.aborted === true) this.stop();
    else outer?.addEventListener('abort', this.stop, { once: true });
  }

  get signal(): AbortSignal {
    return this.controller.signal;
  }

  headersArrived(): void {
    clearTimeout(this.headers);
  }

  /** Nothing of the exchange is left. */
  done(): void {
    clearTimeout(this.headers);
    clearTimeout(this.total);
    this.outer?.removeEventListener('abort', this.stop);
  }

  /** The error to throw: if a clock or the caller ended the exchange, why they did. */
  reasonOf(error: unknown): unknown {
    return this.signal.aborted ? this.signal.reason : error;
  }

  private after(ms: number, what: string): NodeJS.Timeout {
    const timer = setTimeout(() => {
      this.controller.abort(new GuardedFetchError('timeout', `${what} within ${ms} ms`));
    }, ms);
    timer.unref();
    return timer;
  }
}
