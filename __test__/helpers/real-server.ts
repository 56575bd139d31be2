import { createRegistry } from '../../ts/app/registry.js';
import { createLocalModel } from '../../ts/chat/local-model.js';
import type { ModelRegistry } from '../../ts/app/types.js';
import { createNativeEngine } from '../../ts/engine/native.js';
import type { Engine, LoadOptions } from '../../ts/engine/types.js';
import { createApp } from '../../ts/http/app.js';
import { closeServer, createHttpServer, listen } from '../../ts/http/server.js';
import { watchServer } from './schemas/watch.js';
import { realModelPath } from './real-models.js';

export interface RealServer {
  readonly url: string;
  readonly engine: Engine;
  readonly registry: ModelRegistry;
  close(): Promise<void>;
}

/** Serves real weights on a free port of the loopback interface. */
export async function startRealServer(id: string, options: Omit<LoadOptions, 'model'> = {}): Promise<RealServer> {
  return serveModel({ model: realModelPath(id), ...options });
}

/** The same of any model. */
export async function serveModel(pinned: LoadOptions): Promise<RealServer> {
  const engine = createNativeEngine();
  const registry = createRegistry({ engine, pinned, defaults: {}, createLocalModel });
  const server = createHttpServer(createApp({ registry }));
  const { port } = await listen(server, { host: '127.0.0.1', port: 0 });
  const watch = watchServer(server);
  // Loaded here, so that no test's own time limit pays for it.
  const lease = await registry.acquire(undefined);
  lease[Symbol.dispose]();
  return {
    url: `http://127.0.0.1:${String(port)}`,
    engine,
    registry,
    close: async () => {
      await closeServer(server);
      await registry.close();
      await engine.close();
      watch.verify();
    },
  };
}
