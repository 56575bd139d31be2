/** Mixed clients with random aborts on real weights: the small sister of scripts/leak.mjs, which also watches the memory. */

import { expect } from 'chai';

import { startRealServer, type RealServer } from './helpers/real-server.js';

interface MixedClients {
  runMixedClients(
    url: string,
    options: {
      readonly clients: number;
      readonly seed?: number;
      readonly model?: string;
      readonly onAnswer?: (status: number, text: string) => void;
    },
  ): Promise<Record<'whole' | 'refused' | 'aborted' | 'sockets', number>>;
}

describe('clients of every kind on real weights', function () {
  this.timeout(300_000);
  let server: RealServer;

  before(async () => {
    server = await startRealServer('smollm2-135m-instruct-q4_1', { maxModelLen: 1024, kvCacheMemory: 64 << 20 });
  });
  after(() => server.close());

  it('leave nothing behind, and never see a 5xx', async () => {
    const mixed = (await import(new URL('../scripts/lib/mixed-clients.mjs', import.meta.url).href)) as MixedClients;
    const failures: string[] = [];
    const ends = await mixed.runMixedClients(server.url, {
      clients: 80,
      onAnswer: (status, text) => {
        if (status >= 500) failures.push(`${status} ${text}`);
      },
    });
    expect(failures).to.deep.equal([]);
    expect(Math.min(...Object.values(ends)), JSON.stringify(ends)).to.be.greaterThan(0);
    // Responses in the background outlive their requests.
    for (;;) {
      const [{ stats, leases } = { stats: undefined, leases: 0 }] = server.registry.loaded();
      const { running = 0, waiting = 0, freeBlocks, totalBlocks } = stats ?? {};
      if (running + waiting + leases === 0) {
        expect(freeBlocks).to.equal(totalBlocks);
        return;
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
  });
});
