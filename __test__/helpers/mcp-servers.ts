/** MCP servers for tests: in this process, over Streamable HTTP on loopback or in memory, and Anthropic's test server. */

import { type ChildProcess, spawn } from 'node:child_process';
import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { createInterface } from 'node:readline';
import { Readable } from 'node:stream';

import type { McpServer as SdkServer } from '@modelcontextprotocol/server';
import { InMemoryTransport, WebStandardStreamableHTTPServerTransport } from '@modelcontextprotocol/server';

import type { McpServer, RequestedServer } from '../../ts/mcp/tool.js';

export interface Listening {
  readonly url: URL;
  /** Requests so far: method, JSON-RPC method and headers. */
  readonly requests: { method: string; rpc: string | undefined; headers: IncomingMessage['headers'] }[];
  readonly close: () => Promise<void>;
}

/** Any HTTP server on loopback. */
export async function listen(
  handler: RequestListener,
): Promise<{ url: URL; server: Server; close: () => Promise<void> }> {
  const server = createServer(handler);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`);
  const close = (): Promise<void> =>
    new Promise((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
  return { url, server, close };
}

/** Answers with a handler of web requests; its request is aborted when the client leaves. */
export async function answerWith(
  handle: (request: Request) => Promise<Response>,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  const gone = new AbortController();
  response.on('close', () => gone.abort());
  const answer = await handle(
    new Request(`http://${request.headers.host ?? ''}${request.url ?? ''}`, {
      method: request.method ?? 'GET',
      headers: request.headers as Record<string, string>,
      signal: gone.signal,
      ...(chunks.length === 0 ? {} : { body: Buffer.concat(chunks) }),
    }),
  );
  response.writeHead(answer.status, Object.fromEntries(answer.headers));
  response.flushHeaders();
  if (answer.body === null) {
    response.end();
    return;
  }
  Readable.fromWeb(answer.body)
    .on('error', () => response.destroy())
    .pipe(response);
}

export interface HttpMcp extends Listening {
  /** Sessions that are open. */
  readonly sessions: ReadonlyMap<string, unknown>;
  /** As after a restart. */
  forgetSessions(): void;
  /** Resolves once such a request is being answered. */
  until(holds: (request: Listening['requests'][number]) => boolean): Promise<void>;
  /** Cuts every connection. */
  breakOff(): void;
}

/** @param make called once per session */
export async function httpMcp(make: () => SdkServer): Promise<HttpMcp> {
  const sessions = new Map<string, WebStandardStreamableHTTPServerTransport>();
  const requests: Listening['requests'] = [];
  let waiting: { holds: (request: Listening['requests'][number]) => boolean; resolve: () => void }[] = [];

  const handle = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks).toString();
    const rpc = body === '' ? undefined : (JSON.parse(body) as { method?: string }).method;
    requests.push({ method: request.method ?? '', rpc, headers: request.headers });
    const id = request.headers['mcp-session-id'];
    let transport = typeof id === 'string' ? sessions.get(id) : undefined;
    if (transport === undefined) {
      if (rpc !== 'initialize') {
        response.writeHead(id === undefined ? 400 : 404).end();
        return;
      }
      const fresh = new WebStandardStreamableHTTPServerTransport({
        sessionIdGenerator: () => crypto.randomUUID(),
        onsessioninitialized: (session) => void sessions.set(session, fresh),
        onsessionclosed: (session) => void sessions.delete(session),
      });
      transport = fresh;
      await make().connect(transport);
    }
    const answer = await transport.handleRequest(
      new Request(`http://127.0.0.1${request.url ?? ''}`, {
        method: request.method ?? 'GET',
        headers: request.headers as Record<string, string>,
        ...(body === '' ? {} : { body }),
      }),
    );
    response.writeHead(answer.status, Object.fromEntries(answer.headers));
    response.flushHeaders();
    const due = waiting.filter(({ holds }) => requests.some(holds));
    waiting = waiting.filter((waiter) => !due.includes(waiter));
    for (const { resolve } of due) resolve();
    if (answer.body === null) response.end();
    else {
      Readable.fromWeb(answer.body)
        .on('error', () => response.destroy())
        .pipe(response);
    }
  };

  const { url, server, close } = await listen((request, response) => {
    handle(request, response).catch((error: unknown) => response.destroy(error as Error));
  });
  return {
    url,
    requests,
    sessions,
    close,
    forgetSessions: () => sessions.clear(),
    until: (holds) => new Promise((resolve) => waiting.push({ holds, resolve })),
    breakOff: () => server.closeAllConnections(),
  };
}

/** A server in this process; each connection gets a new one. */
export function inMemory(label: string, make: () => SdkServer): McpServer {
  return {
    label,
    trusted: true,
    reach: {
      type: 'custom',
      key: label,
      open: async () => {
        const [client, server] = InMemoryTransport.createLinkedPair();
        await make().connect(server);
        return client;
      },
    },
  };
}

export function overHttp(label: string, url: URL, extra: Record<string, unknown> = {}): McpServer {
  return { label, trusted: false, reach: { type: 'http', url, ...extra } };
}

/** As a request that lets everything run. */
export function never(server: McpServer): RequestedServer {
  return { server, requireApproval: 'never' };
}

export const EVERYTHING = createRequire(import.meta.url).resolve(
  '@modelcontextprotocol/server-everything/dist/index.js',
);

/** The test server of MCP's authors, as a process that speaks HTTP. */
export async function spawnEverything(
  mode: 'streamableHttp' | 'sse',
): Promise<{ url: URL; close: () => Promise<void> }> {
  const { url: free, close: release } = await listen(() => undefined);
  await release();
  const child: ChildProcess = spawn(process.execPath, [EVERYTHING, mode], {
    env: { ...process.env, PORT: free.port },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  await new Promise<void>((resolve, reject) => {
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream! }).on('line', (line) => {
        if (/listening|running on/i.test(line)) resolve();
      });
    }
    child.once('exit', (code) => reject(new Error(`the server ended with ${code}`)));
  });
  return {
    url: new URL(mode === 'sse' ? '/sse' : '/mcp', free),
    close: () =>
      new Promise((resolve) => {
        child.once('exit', () => resolve());
        child.kill('SIGKILL');
      }),
  };
}
