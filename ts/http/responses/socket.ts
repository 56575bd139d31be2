/**
 * WebSocket mode of `/v1/responses`: the client sends `{"type":"response.create", …}`, the server sends the events of a
 * stream, one text frame each. One response at a time; responses with `store: false` can be continued on the same
 * connection.
 */

import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { randomUUID } from 'node:crypto';
import { STATUS_CODES } from 'node:http';

import type { RawData, WebSocket, WebSocketServer } from 'ws';

import { ApiError, invalidValue } from '../../protocol/errors.js';
import { isObject } from '../../protocol/fields.js';
import { parseJson } from '../../protocol/json.js';
import { parseCreateResponse } from '../../protocol/responses.js';
import { type ContextSource, resolveContext } from '../../responses/context.js';
import { type CallerStore, itemsOf, type StoredResponse } from '../../responses/store.js';
import type { AppSockets } from '../app-parts.js';
import { checkCounts } from '../body.js';
import type { Services } from '../context.js';
import { drainingError } from '../drain.js';
import { isUnexpected, toApiError } from '../errors.js';
import type { HttpLimits } from '../limits.js';
import { PendingResponse, PROMPT_PARAM } from './create.js';
import { keepEnd } from './services.js';

const PATH = '/v1/responses';

/** As at OpenAI. */
export const SOCKET_LIFETIME_MS = 60 * 60 * 1000;
/** Responses that a connection remembers for itself. */
export const MAX_REMEMBERED = 16;
export const MAX_SOCKETS = 1_000;
/** Bytes that may wait for a client that sends without reading. */
export const MAX_UNREAD_BYTES = 1024 * 1024;
/** "Going away". */
const CLOSE_GOING_AWAY = 1001;

/** @param check throws ApiError for who may not ask; returns what stands for the key, see RequestContext */
export function createResponsesSockets(
  services: Services,
  check: (req: IncomingMessage) => string | undefined,
): AppSockets {
  const connections = new Set<Connection>();
  let server: WebSocketServer | undefined;

  async function accept(req: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    // Not at start: few clients use WebSockets.
    const { WebSocketServer } = await import('ws');
    if (services.drain.draining) throw drainingError();
    const caller = check(req);
    if (pathOf(req) !== PATH) throw noSocketHere();
    if (connections.size >= MAX_SOCKETS) throw tooManySockets();
    server ??= new WebSocketServer({ noServer: true, maxPayload: services.limits.maxBodyBytes });
    server.handleUpgrade(req, socket, head, (ws) => {
      const connection = new Connection(ws, services, caller);
      connections.add(connection);
      ws.once('close', () => connections.delete(connection));
    });
  }

  return {
    upgrade(req, socket, head) {
      // Until the WebSocket has its own: a client that is gone is no failure of the server.
      const ignore = (): void => undefined;
      socket.on('error', ignore);
      accept(req, socket, head)
        .catch((error: unknown) => refuse(socket, toApiError(error, { requestId: randomUUID() })))
        .finally(() => socket.off('error', ignore));
    },
    drain() {
      for (const connection of connections) connection.drain();
    },
    end() {
      for (const connection of connections) connection.end();
    },
  };
}

class Connection {
  private readonly controller = new AbortController();
  private readonly remembered = new Map<string, StoredResponse>();
  private readonly expiry: NodeJS.Timeout;
  private readonly pings: NodeJS.Timeout;
  private readonly idle: NodeJS.Timeout;
  private answered = true;
  private busy = false;
  private draining = false;

  constructor(
    private readonly ws: WebSocket,
    private readonly services: Services,
    private readonly caller: string | undefined,
  ) {
    const { socketPingMs, socketIdleMs } = services.limits;
    this.expiry = setTimeout(() => this.expire(), SOCKET_LIFETIME_MS).unref();
    this.pings = setInterval(() => this.ping(), socketPingMs).unref();
    this.idle = setTimeout(() => this.closeIdle(), socketIdleMs).unref();
    ws.on('pong', () => (this.answered = true));
    ws.on('message', (data, isBinary) => void this.receive(data, isBinary));
    ws.once('close', () => {
      clearTimeout(this.expiry);
      clearTimeout(this.idle);
      clearInterval(this.pings);
      this.controller.abort();
    });
    // A broken connection closes next, and that is what counts.
    ws.on('error', () => undefined);
  }

  drain(): void {
    this.draining = true;
    if (!this.busy) this.ws.close(CLOSE_GOING_AWAY);
  }

  end(): void {
    this.ws.terminate();
  }

  /** A peer that is gone without a word would hold its generation and its place for ever. */
  private ping(): void {
    if (!this.answered) {
      this.ws.terminate();
      return;
    }
    this.answered = false;
    this.ws.ping();
  }

  private closeIdle(): void {
    if (this.busy) this.idle.refresh();
    else this.ws.close(CLOSE_GOING_AWAY, 'idle');
  }

  private expire(): void {
    const message = 'the connection is 60 minutes old; open another';
    void this.fail(
      new ApiError({ status: 400, type: 'invalid_request_error', code: 'websocket_connection_limit_reached', message }),
    ).finally(() => this.drain());
  }

  private async receive(data: RawData, isBinary: boolean): Promise<void> {
    this.idle.refresh();
    if (this.busy) {
      // A goodbye would only join the queue.
      if (this.ws.bufferedAmount > MAX_UNREAD_BYTES) this.ws.terminate();
      else await this.fail(oneAtATime());
      return;
    }
    this.busy = true;
    const id = randomUUID();
    try {
      if (this.services.drain.draining) throw drainingError();
      await this.answer(bodyOf(data, isBinary, this.services.limits), id);
    } catch (error) {
      if (!this.controller.signal.aborted) await this.fail(error, id);
    } finally {
      this.busy = false;
      this.idle.refresh();
      if (this.draining) this.ws.close(CLOSE_GOING_AWAY);
    }
  }

  private async answer(body: Readonly<Record<string, unknown>>, requestId: string): Promise<void> {
    const { services, controller } = this;
    const store = services.responses.kept?.storeOf(this.caller);
    const request = parseCreateResponse(body, {
      strict: services.strict,
      warn: (field) => services.warnOnce(`${PATH}: ${JSON.stringify(field.slice(0, 80))} has no effect`),
    });
    if (request.background) throw invalidValue('background', 'is not available over a WebSocket');
    const previous = request.previousResponseId;
    try {
      const pending = new PendingResponse({
        services,
        request: store === undefined ? { ...request, store: false } : request,
        context: resolveContext(request, this.source(store)),
        signal: controller.signal,
        requestId,
        caller: this.caller,
        onEnd: (stored) => {
          if (store !== undefined) keepEnd(store, request, stored);
          if (store === undefined || !request.store) this.remember(stored);
        },
      });
      for await (const event of pending.events()) await this.send(event);
    } catch (error) {
      // As the protocol has it: what could not be continued is forgotten.
      if (previous !== undefined) this.remembered.delete(previous);
      throw error;
    }
  }

  private source(store: CallerStore | undefined): ContextSource {
    const own = (itemId: string) => [...this.remembered.values()].flatMap(itemsOf).find((item) => item.id === itemId);
    return {
      get: (id) => this.remembered.get(id) ?? store?.get(id),
      findItem: (itemId) => own(itemId) ?? store?.findItem(itemId),
      conversations: store?.conversations,
    };
  }

  private remember(stored: StoredResponse): void {
    this.remembered.set(stored.response.id, stored);
    const [oldest] = this.remembered.keys();
    if (this.remembered.size > MAX_REMEMBERED && oldest !== undefined) this.remembered.delete(oldest);
  }

  private async fail(error: unknown, requestId: string = randomUUID()): Promise<void> {
    if (isUnexpected(error)) {
      const detail = error instanceof Error ? (error.stack ?? error.message) : String(error);
      this.services.logger.error(`${requestId} ${detail}`);
    }
    const apiError = toApiError(error, { requestId, promptParam: PROMPT_PARAM });
    await this.send({ type: 'error', status: apiError.status, ...apiError.toEnvelope() });
  }

  /** Resolves when the frame is handed on: a client that does not read slows its generation down. */
  private send(frame: object): Promise<void> {
    return new Promise((resolve) => {
      if (this.ws.readyState !== this.ws.OPEN) resolve();
      else this.ws.send(JSON.stringify(frame), () => resolve());
    });
  }
}

/** @throws ApiError */
function bodyOf(data: RawData, isBinary: boolean, limits: HttpLimits): Readonly<Record<string, unknown>> {
  if (isBinary) throw invalidValue('type', 'cannot be read: frames must be text');
  const bytes = Array.isArray(data) ? Buffer.concat(data) : data instanceof ArrayBuffer ? Buffer.from(data) : data;
  const frame = parseJson(bytes, limits.maxJsonDepth);
  if (!isObject(frame) || frame['type'] !== 'response.create') {
    throw invalidValue('type', "must be 'response.create'");
  }
  checkCounts(frame, limits);
  const body: Record<string, unknown> = { ...frame };
  // They mean nothing here: every answer is a stream.
  for (const name of ['type', 'stream', 'stream_options']) Reflect.deleteProperty(body, name);
  return body;
}

function pathOf(req: IncomingMessage): string {
  return (req.url ?? '').replace(/[?#].*$/s, '').replace(/\/$/, '');
}

function noSocketHere(): ApiError {
  const message = `WebSockets are served at ${PATH} only`;
  return new ApiError({ status: 404, type: 'not_found_error', code: 'unknown_url', message });
}

function tooManySockets(): ApiError {
  const message = `there are ${MAX_SOCKETS} WebSockets already`;
  return new ApiError({ status: 429, type: 'rate_limit_error', code: 'rate_limit_exceeded', message });
}

function oneAtATime(): ApiError {
  const message = 'a response is under way on this connection; wait for its end';
  return new ApiError({ status: 400, type: 'invalid_request_error', code: 'response_in_progress', message });
}

function refuse(socket: Duplex, error: ApiError): void {
  const body = JSON.stringify(error.toEnvelope());
  const head = [
    `HTTP/1.1 ${error.status} ${STATUS_CODES[error.status] ?? ''}`,
    'content-type: application/json',
    `content-length: ${Buffer.byteLength(body)}`,
    'connection: close',
    ...Object.entries(error.headers).map(([name, value]) => `${name}: ${value}`),
  ];
  socket.on('error', () => undefined);
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`);
}
