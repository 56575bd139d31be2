/** Reads a buffer over and over: a search for a byte that is not there is memchr, which reads as fast as memory gives. */

import { parentPort, workerData } from 'node:worker_threads';

const { bytes, rounds } = workerData;
const buffer = Buffer.allocUnsafeSlow(bytes).fill(0x55);
buffer.indexOf(0xaa);
parentPort.postMessage('warm');
parentPort.once('message', () => {
  const start = performance.timeOrigin + performance.now();
  for (let i = 0; i < rounds; i += 1) if (buffer.indexOf(0xaa) !== -1) throw new Error('unexpected byte');
  parentPort.postMessage({ start, end: performance.timeOrigin + performance.now() });
});
