/** Connections to MCP servers, kept while they are used: list and call, whatever state the connection is in. */

import { createHash } from 'node:crypto';

import type { CallToolResult, Tool } from '@modelcontextprotocol/client';

import { EngineError } from '../engine/types.js';
import type { AddressPolicy } from '../net/addresses.js';
import { type GuardedFetch, guardedFetch, type GuardedFetchOptions } from '../net/guarded-fetch.js';
import { Connection } from './connection.js';
import { connectionFailed, executionError, timedOut, toMcpError } from './errors.js';
import { DEFAULT_MCP_LIMITS, type McpLimits } from './limits.js';
import { resultText } from './result-text.js';
import { secretCleaner } from './secrets.js';
import type { McpOutcome, McpProgress, McpServer, McpToolInfo } from './tool.js';

export interface McpPoolOptions extends AddressPolicy {
  readonly limits?: Partial<McpLimits>;
  /** For tests. Default: the system's resolver. */
  readonly resolve?: GuardedFetchOptions['resolve'];
  /** Told of connections that open, close and fail: labels and reasons, never addresses or secrets. */
  readonly log?: (message: string) => void;
  /** Our version, as servers are told. */
  readonly version?: string;
}

export interface CallOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: McpProgress) => void;
}

interface Entry {
  readonly label: string;
  readonly connection: Promise<Connection>;
  /** Set once it is open. */
  opened?: Connection;
  users: number;
  idle: NodeJS.Timeout | undefined;
  lastUsed: number;
}

export class McpPool {
  readonly limits: McpLimits;
  private readonly entries = new Map<string, Entry>();
  private readonly closing = new Set<Promise<void>>();
  private readonly strangers: GuardedFetch;
  private readonly trusted: GuardedFetch;
  private readonly log: (message: string) => void;
  private readonly version: string;
  private closed = false;

  constructor(options: McpPoolOptions = {}) {
    this.limits = { ...DEFAULT_MCP_LIMITS, ...options.limits };
    const bounds: GuardedFetchOptions = {
      maxBytes: this.limits.maxMessageBytes,
      // A call's answer may begin only when the call is done: its own clocks are stricter.
      headersTimeoutMs: this.limits.callTotalMs,
      ...(options.resolve === undefined ? {} : { resolve: options.resolve }),
    };
    const { allowLoopback = false, allowPrivate = false } = options;
    this.strangers = guardedFetch({ ...bounds, allowLoopback, allowPrivate });
    this.trusted = guardedFetch({ ...bounds, allowLoopback: true, allowPrivate: true });
    this.log = options.log ?? (() => undefined);
    this.version = options.version ?? '0';
  }

  /** Connections that are open or opening. */
  get size(): number {
    return this.entries.size;
  }

  /**
   * All tools of a server, in its order. Served from the last list while that is fresh.
   * @throws McpError; EngineError `cancelled`
   */
  async listTools(server: McpServer, signal?: AbortSignal): Promise<readonly McpToolInfo[]> {
    const { listMs, maxTools } = this.limits;
    const tools = await this.use(server, signal, async ({ client }, within) => {
      // The SDK would print a line of its own.
      if (client.getServerCapabilities()?.tools === undefined) return [];
      const clock = within(listMs, `server '${server.label}' did not list its tools`);
      return (await client.listTools(undefined, { signal: clock, timeout: listMs })).tools;
    });
    if (tools.length > maxTools)
      throw connectionFailed(`server '${server.label}' lists ${tools.length} tools; at most ${maxTools} are taken`);
    return tools.flatMap((tool) => this.toolInfo(tool));
  }

  /**
   * Runs a tool. What the tool says of its own failure is an outcome, and so is a failure of the server.
   * @throws EngineError `cancelled`: the server was told to stop
   */
  async callTool(
    server: McpServer,
    name: string,
    args: Readonly<Record<string, unknown>>,
    { signal, onProgress }: CallOptions = {},
  ): Promise<McpOutcome> {
    const { callMs, callTotalMs, maxOutput } = this.limits;
    const clean = secretCleaner(server);
    let result: CallToolResult;
    try {
      result = await this.use(server, signal, ({ client }, within) =>
        client.callTool(
          { name, arguments: { ...args } },
          {
            signal: within(callTotalMs, `the call of '${name}' did not end`),
            timeout: callMs,
            resetTimeoutOnProgress: true,
            onprogress: (progress) => onProgress?.(progressOf(progress, clean)),
          },
        ),
      );
    } catch (error) {
      if (error instanceof EngineError) throw error;
      return { ok: false, error: toMcpError(error, server.label, clean).wire };
    }
    const output = clean(resultText(result, maxOutput));
    if (result.isError === true)
      return { ok: false, error: executionError(output || 'the tool failed and did not say why') };
    return { ok: true, output };
  }

  /** Ends every connection and every process. Later calls fail. */
  async close(): Promise<void> {
    this.closed = true;
    for (const key of [...this.entries.keys()]) this.drop(key);
    await Promise.all(this.closing);
  }

  /**
   * Runs something on a connection; once more on a new one if the server had forgotten the old one's session. What may
   * have been run already is not repeated.
   */
  private async use<T>(
    server: McpServer,
    signal: AbortSignal | undefined,
    run: (connection: Connection, within: (ms: number, what: string) => AbortSignal) => Promise<T>,
  ): Promise<T> {
    const key = keyOf(server);
    for (let attempt = 0; ; attempt++) {
      if (isAborted(signal)) throw cancelled();
      const entry = this.entry(key, server);
      entry.users++;
      clearTimeout(entry.idle);
      const clock = new Clock(signal);
      let connection: Connection | undefined;
      try {
        connection = await clock.race(entry.connection);
        return await run(connection, (ms, what) => clock.within(ms, what));
      } catch (error) {
        if (isAborted(signal)) throw cancelled();
        if (clock.expired !== undefined) throw timedOut(`${clock.expired} in time`);
        const lost = connection?.lostBy(error) ?? true;
        if (lost) this.drop(key, entry);
        if (attempt === 0 && connection?.sessionIsUnknown(error) === true) continue;
        throw toMcpError(error, server.label, secretCleaner(server));
      } finally {
        clock.stop();
        entry.users--;
        this.release(key, entry);
      }
    }
  }

  private entry(key: string, server: McpServer): Entry {
    if (this.closed) throw connectionFailed('the server is shutting down');
    const found = this.entries.get(key);
    if (found !== undefined && found.opened?.lost !== true) return found;
    if (found !== undefined) this.drop(key, found);
    this.makeRoom();
    const connection = Connection.open(server, {
      limits: this.limits,
      fetch: server.trusted ? this.trusted : this.strangers,
      version: this.version,
    });
    const entry: Entry = { label: server.label, connection, users: 0, idle: undefined, lastUsed: Date.now() };
    connection.then(
      (opened) => {
        entry.opened = opened;
        this.log(`mcp: connected to '${server.label}'`);
      },
      (error: unknown) => {
        this.log(`mcp: ${toMcpError(error, server.label, secretCleaner(server)).message}`);
        this.drop(key, entry);
      },
    );
    this.entries.set(key, entry);
    return entry;
  }

  private makeRoom(): void {
    const { maxConnections } = this.limits;
    if (this.entries.size < maxConnections) return;
    const unused = [...this.entries].filter(([, { users }]) => users === 0);
    const oldest = unused.sort(([, a], [, b]) => a.lastUsed - b.lastUsed)[0];
    if (oldest === undefined) throw connectionFailed(`all ${maxConnections} connections to MCP servers are in use`);
    this.drop(...oldest);
  }

  private release(key: string, entry: Entry): void {
    entry.lastUsed = Date.now();
    if (entry.users > 0 || this.entries.get(key) !== entry) return;
    entry.idle = setTimeout(() => this.drop(key, entry), this.limits.idleMs);
    entry.idle.unref();
  }

  /** Forgets an entry and closes its connection, unless a newer one has its place. */
  private drop(key: string, entry = this.entries.get(key)): void {
    if (entry === undefined || this.entries.get(key) !== entry) return;
    this.entries.delete(key);
    clearTimeout(entry.idle);
    const closing = entry.connection.then(
      async (connection) => {
        await connection.close();
        this.log(`mcp: closed the connection to '${entry.label}'`);
      },
      () => undefined,
    );
    this.closing.add(closing);
    void closing.finally(() => this.closing.delete(closing));
  }

  private toolInfo(tool: Tool): McpToolInfo[] {
    const { maxDescription, maxSchema } = this.limits;
    if (tool.name === '' || tool.name.length > 128 || JSON.stringify(tool.inputSchema).length > maxSchema) return [];
    return [
      {
        name: tool.name,
        ...(tool.title === undefined ? {} : { title: tool.title.slice(0, 128) }),
        ...(tool.description === undefined ? {} : { description: tool.description.slice(0, maxDescription) }),
        inputSchema: tool.inputSchema,
        ...(tool.annotations === undefined ? {} : { annotations: tool.annotations }),
      },
    ];
  }
}

function isAborted(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true;
}

function cancelled(): EngineError {
  return new EngineError('cancelled', 'the request was cancelled');
}

/** A hash: secrets are part of what makes two connections different, and must not lie about as a key. */
function keyOf({ reach, trusted, partition }: McpServer): string {
  const what =
    reach.type === 'custom'
      ? [reach.type, reach.key]
      : reach.type === 'stdio'
        ? [reach.type, reach.command, reach.args, Object.entries(reach.env).sort(), reach.cwd]
        : [reach.type, reach.url.href, Object.entries(reach.headers ?? {}).sort(), reach.authorization];
  return createHash('sha256')
    .update(JSON.stringify([what, trusted, partition]))
    .digest('hex');
}

function progressOf(
  { progress, total, message }: { progress: number; total?: number | undefined; message?: string | undefined },
  clean: (text: string) => string,
): McpProgress {
  return {
    progress,
    ...(total === undefined ? {} : { total }),
    ...(message === undefined ? {} : { message: clean(message.slice(0, 200)) }),
  };
}

/** The caller's signal, and bounds on what is done meanwhile. */
class Clock {
  /** What took too long. */
  expired: string | undefined;
  private readonly controller = new AbortController();
  private readonly timers: NodeJS.Timeout[] = [];
  private readonly abort = (): void => this.controller.abort(cancelled());

  constructor(private readonly outer: AbortSignal | undefined) {
    outer?.addEventListener('abort', this.abort, { once: true });
  }

  /** Aborts with the caller, or after `ms`. */
  within(ms: number, what: string): AbortSignal {
    const timer = setTimeout(() => {
      this.expired = what;
      this.controller.abort(timedOut(what));
    }, ms);
    this.timers.push(timer);
    return this.controller.signal;
  }

  /** Waits for something that others wait for too: the caller's leaving ends only the waiting. */
  race<T>(shared: Promise<T>): Promise<T> {
    const { signal } = this.controller;
    return new Promise((resolve, reject) => {
      const leave = (): void => reject(cancelled());
      signal.addEventListener('abort', leave, { once: true });
      shared.then(resolve, reject).finally(() => signal.removeEventListener('abort', leave));
    });
  }

  stop(): void {
    for (const timer of this.timers) clearTimeout(timer);
    this.outer?.removeEventListener('abort', this.abort);
  }
}
