/** A Node server around the app, and its beginning and end. */

import { randomUUID } from 'node:crypto';
import { createServer, type RequestListener, type Server, STATUS_CODES } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';

import { ApiError } from '../protocol/errors.js';
import { type AppParts, appPartsOf } from './app-parts.js';
import { SERVER_LIMITS } from './limits.js';

/** @param app what createApp returns */
export function createHttpServer(app: RequestListener): Server {
  const server = createBareServer();
  mountApp(server, app);
  return server;
}

/** A server that answers nothing yet. */
export function createBareServer(): Server {
  const { maxHeaderBytes, headersTimeoutMs, requestTimeoutMs, keepAliveTimeoutMs } = SERVER_LIMITS;
  const server = createServer({
    maxHeaderSize: maxHeaderBytes,
    headersTimeout: headersTimeoutMs,
    requestTimeout: requestTimeoutMs,
    keepAliveTimeout: keepAliveTimeoutMs,
  });
  return server.on('clientError', answerBrokenRequest);
}

/** From now on `app`, what createApp returns, answers. */
export function mountApp(server: Server, app: RequestListener): void {
  server.on('request', app);
  const parts = appPartsOf(app);
  if (parts === undefined) return;
  server.on('upgrade', (req, socket, head) => parts.sockets.upgrade(req, socket, head));
  server.once('close', () => void parts.endRuns());
  partsOfServers.set(server, parts);
}

const partsOfServers = new WeakMap<Server, AppParts>();

export interface ListenOptions {
  readonly host: string;
  /** 0: any free one. */
  readonly port: number;
}

/** @returns where it listens @throws NodeJS.ErrnoException: EADDRINUSE, EACCES, EADDRNOTAVAIL */
export function listen(server: Server, { host, port }: ListenOptions): Promise<AddressInfo> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port }, () => {
      server.off('error', reject);
      resolve(server.address() as AddressInfo);
    });
  });
}

/**
 * Takes no more connections, waits for the answers under way, then ends what is left, in the background too: that is
 * stored as failed when this resolves.
 * @param graceMs how long to wait; ended connections abort their generations
 */
export async function closeServer(server: Server, graceMs = 0): Promise<void> {
  const closed = new Promise<void>((resolve) => {
    server.close(() => resolve());
  });
  const parts = partsOfServers.get(server);
  parts?.sockets.drain();
  const timer = setTimeout(() => {
    parts?.sockets.end();
    server.closeAllConnections();
  }, graceMs);
  await closed;
  clearTimeout(timer);
  await parts?.endRuns();
}

/** What no request can be made of: the parser's errors, before any route. */
function answerBrokenRequest(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  const status = error.code === 'HPE_HEADER_OVERFLOW' ? 431 : error.code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 408 : 400;
  const message = STATUS_CODES[status]?.toLowerCase() ?? 'bad request';
  const apiError = new ApiError({ status, type: 'invalid_request_error', code: 'invalid_http', message });
  const body = JSON.stringify(apiError.toEnvelope());
  const head = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}`,
    'content-type: application/json',
    `content-length: ${Buffer.byteLength(body)}`,
    `x-request-id: ${randomUUID()}`,
    'connection: close',
  ];
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`);
}
