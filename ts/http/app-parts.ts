/** What an app has besides its request handler, for the server that it is mounted in. */

import type { IncomingMessage, RequestListener } from 'node:http';
import type { Duplex } from 'node:stream';

/** The WebSockets of one app: an upgraded connection is no longer the server's. */
export interface AppSockets {
  upgrade(req: IncomingMessage, socket: Duplex, head: Buffer): void;
  /** Idle connections are closed, the others when their response is out. */
  drain(): void;
  /** Ends all, and their generations. */
  end(): void;
}

export interface AppParts {
  readonly sockets: AppSockets;
  /** Ends what runs without a connection; resolves when the ends are stored. */
  endRuns(): Promise<void>;
}

const partsOfApps = new WeakMap<RequestListener, AppParts>();

export function setAppParts(app: RequestListener, parts: AppParts): void {
  partsOfApps.set(app, parts);
}

/** Undefined for a handler that createApp has not made. */
export function appPartsOf(app: RequestListener): AppParts | undefined {
  return partsOfApps.get(app);
}
