/**
 * The server while its app is still being loaded, which takes longer than all that is needed to listen: /health is
 * answered, whoever asks for anything else waits.
 */

import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';

import type { AccessCheck } from './access.js';
import { requestIdOf } from './context.js';
import { identify, sendJson } from './respond.js';
import { health, type StateServices, stateOf } from './routes/health.js';
import { createBareServer, mountApp } from './server.js';

export interface FrontDoorOptions extends StateServices {
  /** What the app checks before it answers /health; undefined where it checks nothing. */
  readonly checkAccess: AccessCheck | undefined;
}

export class FrontDoor {
  readonly server = createBareServer();
  readonly #options: FrontDoorOptions;
  /** In order of arrival. */
  readonly #waiting: (() => void)[] = [];
  /** Of upgrades that wait: the server no longer knows them, but does not close before them. */
  readonly #sockets = new Set<Duplex>();

  constructor(options: FrontDoorOptions) {
    this.#options = options;
    this.server.on('request', this.#receive).on('upgrade', this.#holdUpgrade);
  }

  /** Hands everything to the app, to begin with who waits for it. Once only. */
  open(app: RequestListener): void {
    this.server.off('request', this.#receive).off('upgrade', this.#holdUpgrade);
    mountApp(this.server, app);
    for (const enter of this.#waiting.splice(0)) enter();
  }

  /** Nobody who still waits is let in. */
  close(): void {
    this.#waiting.length = 0;
    for (const socket of this.#sockets) socket.destroy();
  }

  readonly #receive: RequestListener = (req, res) => {
    if (isProbe(req) && this.#mayAsk(req)) {
      void this.#answer(req, res);
      return;
    }
    this.#waiting.push(() => {
      // Who has gone in the meantime has no end that the app could wait for.
      if (!req.socket.destroyed) this.server.emit('request', req, res);
    });
  };

  readonly #holdUpgrade = (req: IncomingMessage, socket: Duplex, head: Buffer): void => {
    const ignore = (): void => undefined;
    const forget = (): boolean => this.#sockets.delete(socket);
    socket.on('error', ignore).once('close', forget);
    this.#sockets.add(socket);
    this.#waiting.push(() => {
      socket.off('error', ignore).off('close', forget);
      forget();
      if (!socket.destroyed) this.server.emit('upgrade', req, socket, head);
    });
  };

  /** The app says how it refuses. */
  #mayAsk(req: IncomingMessage): boolean {
    try {
      this.#options.checkAccess?.(req);
      return true;
    } catch {
      return false;
    }
  }

  /** As the app would, but that nobody logs or counts it. */
  async #answer(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const start = performance.now();
    identify(res, requestIdOf(req));
    const { status, body } = await stateOf(this.#options);
    sendJson({ res, elapsedMs: Math.round(performance.now() - start) }, status, body);
  }
}

/** The plain question of a script or a load balancer. A browser's, which has an origin, is the app's. */
function isProbe({ method, url, headers }: IncomingMessage): boolean {
  return method === health.method && url?.split('?', 1)[0] === health.path && headers.origin === undefined;
}
