/** The package as a library: scripts that end by themselves, and several threads of one process. */

import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';

import { expect } from 'chai';

import { realModelPath } from './helpers/real-models.js';

const script = fileURLToPath(new URL('helpers/load-and-end.mjs', import.meta.url));
const model = realModelPath('smollm2-135m-instruct-q4_1');

describe('the built package, embedded', function () {
  this.timeout(120_000);

  it('lets a script end that closes nothing', async () => {
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [script, model]);
    expect(stderr).to.equal('');
    expect(stdout).to.equal('The capital of France is Paris.\n');
  });

  it('runs in two worker threads at once', async () => {
    const answers = await Promise.all([answerOfWorker(), answerOfWorker()]);
    expect(answers).to.deep.equal(['The capital of France is Paris.\n', 'The capital of France is Paris.\n']);
  });

  it('survives a worker thread that is terminated in the middle', async () => {
    const worker = new Worker(script, { workerData: { model }, stdout: true });
    await new Promise((resolve) => worker.once('online', resolve));
    await worker.terminate();
    expect(await answerOfWorker()).to.equal('The capital of France is Paris.\n');
  });
});

/** What the script prints in a thread of its own, which ends by itself. */
async function answerOfWorker(): Promise<string> {
  const worker = new Worker(script, { workerData: { model }, stdout: true });
  let text = '';
  worker.stdout.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
  const code = await new Promise<number>((resolve, reject) => {
    worker.once('error', reject);
    worker.once('exit', resolve);
  });
  expect(code).to.equal(0);
  return text;
}
