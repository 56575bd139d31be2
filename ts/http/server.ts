/** A Node server around the app, and its beginning and end. */

import { randomUUID } from 'node:crypto';
import { createServer, type RequestListener, type Server, STATUS_CODES } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';

import { ApiError } from '../protocol/errors.js';
import { SERVER_LIMITS } from './limits.js';
import { endRuns } from './responses/services.js';
import { type AppSockets, socketsOf } from './responses/socket.js';

/** @param app what createApp returns */
export function createHttpServer(app: RequestListener): Server {
  const { maxHeaderBytes, headersTimeoutMs, requestTimeoutMs, keepAliveTimeoutMs } = SERVER_LIMITS;
  const server = createServer(
    {
      maxHeaderSize: maxHeaderBytes,
      headersTimeout: headersTimeoutMs,
      requestTimeout: requestTimeoutMs,
      keepAliveTimeout: keepAliveTimeoutMs,
    },
    app,
  );
  server.on('clientError', answerBrokenRequest);
  const end = (): Promise<void> => endRuns(app);
  endsOfServer.set(server, end);
  server.once('close', () => void end());
  const sockets = socketsOf(app);
  if (sockets !== undefined) {
    server.on('upgrade', (req, socket, head) => sockets.upgrade(req, socket, head));
    socketsOfServer.set(server, sockets);
  }
  return server;
}

/** An upgraded connection is no longer the server's: closing it is ours. */
const socketsOfServer = new WeakMap<Server, AppSockets>();

/** What runs in the background. */
const endsOfServer = new WeakMap<Server, () => Promise<void>>();

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
  const sockets = socketsOfServer.get(server);
  sockets?.drain();
  const timer = setTimeout(() => {
    sockets?.end();
    server.closeAllConnections();
  }, graceMs);
  await closed;
  clearTimeout(timer);
  await endsOfServer.get(server)?.();
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
