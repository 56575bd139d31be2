/** node-llama-cpp's prebuilt binary through its JavaScript interface, as its users have it. */

import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { maxContext, maxSequences, type Conditions, type Contender } from './contenders.js';
import { batchPrompt, type Workload } from './roofline.js';

const worker = fileURLToPath(new URL('./node-llama-cpp-worker.mjs', import.meta.url));

export class NodeLlamaCpp implements Contender {
  readonly name = 'node-llama-cpp';

  private constructor(
    private readonly process: ChildProcess,
    private readonly generated: number,
    readonly about: string,
  ) {}

  static async open(home: string, { model, threads, generated }: Conditions): Promise<NodeLlamaCpp> {
    const manifest = await readFile(join(home, 'node_modules/node-llama-cpp/package.json'), 'utf8');
    const { version } = JSON.parse(manifest) as { readonly version: string };
    const args = [home, model, String(threads), String(maxContext), String(maxSequences)];
    const child = fork(worker, args, { execArgv: [], stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
    await answer(child);
    return new NodeLlamaCpp(child, generated, `${version}, its prebuilt binary, f16 KV`);
  }

  async prepare(work: Workload): Promise<void> {
    await this.measure(work);
  }

  async measure(work: Workload): Promise<number> {
    this.process.send({ ...work, batchPrompt, generated: this.generated });
    const { value, error } = await answer(this.process);
    if (value === undefined) throw new Error(`node-llama-cpp: ${error ?? 'no figure'}`);
    return value;
  }

  async close(): Promise<void> {
    const ended = once(this.process, 'exit');
    this.process.kill();
    await ended;
  }
}

interface Answer {
  readonly value?: number;
  readonly error?: string;
}

function answer(child: ChildProcess): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const ended = (): void => reject(new Error('node-llama-cpp ended'));
    child.once('exit', ended);
    child.once('message', (message) => {
      child.off('exit', ended);
      resolve(message as Answer);
    });
  });
}
