/** What this machine's memory gives to so many reading threads, in bytes per second. */

import { once } from 'node:events';
import { Worker } from 'node:worker_threads';

/** Far larger than any cache. */
const bytesPerThread = 256 << 20;
const rounds = 8;

export async function readBandwidth(threads: number): Promise<number> {
  const workerData = { bytes: bytesPerThread, rounds };
  const workers = Array.from(
    { length: threads },
    () => new Worker(new URL('./bandwidth-worker.mjs', import.meta.url), { workerData, execArgv: [] }),
  );
  try {
    await Promise.all(workers.map((worker) => once(worker, 'message')));
    const spans = workers.map(async (worker) => {
      const [span] = (await once(worker, 'message')) as [{ start: number; end: number }];
      return span;
    });
    for (const worker of workers) worker.postMessage('go');
    const measured = await Promise.all(spans);
    const start = Math.min(...measured.map((span) => span.start));
    const end = Math.max(...measured.map((span) => span.end));
    return (threads * bytesPerThread * rounds) / ((end - start) / 1000);
  } finally {
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
}
