/** One connection to one server: how it is opened, and how one sees that it is gone. */

import type { Client, jsonSchemaValidator, Transport } from '@modelcontextprotocol/client';

import type { GuardedFetch } from '../net/guarded-fetch.js';
import { endedAnswers } from './ended-answers.js';
import { httpStatus } from './errors.js';
import type { McpLimits } from './limits.js';
import { loadSdk, type Sdk } from './sdk.js';
import type { HttpServer, McpServer, StdioServer } from './tool.js';

export interface ConnectOptions {
  readonly limits: McpLimits;
  readonly fetch: GuardedFetch;
  readonly version: string;
}

/** Statuses by which a server says that it does not know Streamable HTTP. */
const NO_SUCH_TRANSPORT = [400, 404, 405];
/** Statuses by which a server says that it does not know the session; the call was not run. MCP says 404, many say 400. */
const NO_SUCH_SESSION = [400, 404];
/** Milliseconds for a polite goodbye. */
const GOODBYE_MS = 2000;

/**
 * A server's `outputSchema` is not compiled: the SDK's validator makes code and regular expressions of it, and a
 * stranger's schema could stop the process. The model reads structured content as text, so nothing depends on its form.
 */
const noValidation: jsonSchemaValidator = {
  getValidator: () => (input) => ({ valid: true, data: input as never, errorMessage: undefined }),
};

export class Connection {
  /** The server or the transport ended it: a new one is needed. */
  lost = false;

  private constructor(
    private readonly sdk: Sdk,
    readonly client: Client,
    private readonly transport: Transport,
  ) {
    client.onclose = () => {
      this.lost = true;
    };
    client.onerror = (error) => {
      // The old transport reconnects by itself, to a server that has forgotten the session.
      if (transport instanceof oldTransport(sdk) && httpStatus(error) !== undefined) this.lost = true;
    };
  }

  static async open({ reach }: McpServer, options: ConnectOptions): Promise<Connection> {
    const sdk = await loadSdk();
    switch (reach.type) {
      case 'custom':
        return connect(sdk, () => reach.open(), options, 'legacy');
      case 'stdio':
        return openStdio(sdk, reach, options);
      case 'sse':
        return connect(sdk, () => sseTransport(sdk, reach, options.fetch), options, 'legacy');
      case 'http':
        return openHttp(sdk, reach, options);
    }
  }

  static of(sdk: Sdk, client: Client, transport: Transport): Connection {
    return new Connection(sdk, client, transport);
  }

  /** Whether a failure means that the connection is of no more use. Notes it. */
  lostBy(error: unknown): boolean {
    const { SdkError, SdkErrorCode } = this.sdk;
    const ended =
      error instanceof SdkError &&
      [SdkErrorCode.ConnectionClosed, SdkErrorCode.NotConnected, SdkErrorCode.SendFailed].includes(error.code);
    if (ended || this.sessionIsUnknown(error)) this.lost = true;
    return this.lost;
  }

  /** Whether the server certainly did not run what was asked: only then may it be asked again. */
  sessionIsUnknown(error: unknown): boolean {
    const hasSession =
      this.transport instanceof this.sdk.StreamableHTTPClientTransport && this.transport.sessionId !== undefined;
    return hasSession && NO_SUCH_SESSION.includes(httpStatus(error) ?? 0);
  }

  async close(): Promise<void> {
    if (this.transport instanceof this.sdk.StreamableHTTPClientTransport && !this.lost) {
      await within(GOODBYE_MS, this.transport.terminateSession());
    }
    await within(GOODBYE_MS, this.client.close());
  }
}

async function openHttp(sdk: Sdk, server: HttpServer, options: ConnectOptions): Promise<Connection> {
  try {
    return await connect(sdk, () => httpTransport(sdk, server, options.fetch), options, 'auto');
  } catch (error) {
    if (!NO_SUCH_TRANSPORT.includes(httpStatus(error) ?? 0)) throw error;
    try {
      return await connect(sdk, () => sseTransport(sdk, server, options.fetch), options, 'legacy');
    } catch {
      // The newer transport's answer is the one that a server of today means.
      throw error;
    }
  }
}

/** Nearly every server speaks a revision with a handshake; asking first would start each of them twice. */
async function openStdio(sdk: Sdk, server: StdioServer, options: ConnectOptions): Promise<Connection> {
  const transport = (): Transport =>
    new sdk.StdioClientTransport({
      command: server.command,
      args: [...server.args],
      env: { ...sdk.getDefaultEnvironment(), ...server.env },
      // What a server writes there may hold anything; it is not our log.
      stderr: 'ignore',
      maxBufferSize: options.limits.maxMessageBytes,
      ...(server.cwd === undefined ? {} : { cwd: server.cwd }),
    });
  try {
    return await connect(sdk, transport, options, 'legacy');
  } catch (error) {
    if (!(error instanceof sdk.ProtocolError)) throw error;
    return connect(sdk, transport, options, 'auto');
  }
}

async function connect(
  sdk: Sdk,
  open: () => Transport | Promise<Transport>,
  { limits, version }: ConnectOptions,
  mode: 'auto' | 'legacy',
): Promise<Connection> {
  const client = new sdk.Client(
    { name: 'tsserve', version },
    {
      // None: nobody is here to be asked, and a server must not use our model.
      capabilities: {},
      versionNegotiation: { mode },
      inputRequired: { autoFulfill: false },
      listMaxPages: limits.maxPages,
      defaultCacheTtlMs: limits.listTtlMs,
      jsonSchemaValidator: noValidation,
    },
  );
  const transport = await open();
  try {
    await client.connect(transport, { timeout: limits.connectMs, signal: AbortSignal.timeout(limits.connectMs) });
  } catch (error) {
    await within(GOODBYE_MS, client.close());
    await within(GOODBYE_MS, transport.close());
    throw error;
  }
  return Connection.of(sdk, client, transport);
}

function httpTransport(sdk: Sdk, server: HttpServer, fetch: GuardedFetch): Transport {
  return new sdk.StreamableHTTPClientTransport(server.url, {
    fetch: endedAnswers(withCredentials(server, fetch)),
    reconnectionOptions: {
      initialReconnectionDelay: 1000,
      maxReconnectionDelay: 30_000,
      reconnectionDelayGrowFactor: 2,
      maxRetries: 3,
    },
  });
}

function sseTransport(sdk: Sdk, server: HttpServer, fetch: GuardedFetch): Transport {
  return new (oldTransport(sdk))(server.url, { fetch: withCredentials(server, fetch) });
}

function oldTransport(sdk: Sdk): Sdk['SSEClientTransport'] {
  // eslint-disable-next-line @typescript-eslint/no-deprecated -- servers that know nothing newer are still about
  return sdk.SSEClientTransport;
}

/** The server's headers go to its own origin only, whatever the transport may be talked into fetching. */
function withCredentials({ url, headers, authorization }: HttpServer, fetch: GuardedFetch): GuardedFetch {
  return (input, init) => {
    const sent = new Headers(init?.headers);
    if (new URL(input).origin === url.origin) {
      for (const [name, value] of Object.entries(headers ?? {})) sent.set(name, value);
      if (authorization !== undefined) sent.set('authorization', `Bearer ${authorization}`);
    }
    return fetch(input, { ...init, headers: sent });
  };
}

/** Waits for an ending, but not for long, and whatever it comes to. */
async function within(ms: number, ending: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const enough = new Promise((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  await Promise.race([ending.catch(() => undefined), enough]);
  clearTimeout(timer);
}
