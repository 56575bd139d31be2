/** node-llama-cpp's prebuilt binary through its JavaScript interface, as its users have it. */

import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { maxContext, maxSequences, type Conditions, type Contender } from './contenders.js';
import { batchPrompt, type Workload } from './roofline.js';

const worker = fileURLToPath(new URL('./node-llama-cpp-worker.mjs', import.meta.url));

/** Milliseconds for one figure: many times what the slowest takes. Beyond it the worker hangs, and is begun anew. */
const answerTimeout = 120_000;

export class NodeLlamaCpp implements Contender {
  readonly name = 'node-llama-cpp';
  private process: ChildProcess | undefined;

  private constructor(
    private readonly args: readonly string[],
    private readonly generated: number,
    readonly about: string,
  ) {}

  static async open(home: string, { model, threads, generated }: Conditions): Promise<NodeLlamaCpp> {
    const manifest = await readFile(join(home, 'node_modules/node-llama-cpp/package.json'), 'utf8');
    const { version } = JSON.parse(manifest) as { readonly version: string };
    const args = [home, model, String(threads), String(maxContext), String(maxSequences)];
    const opened = new NodeLlamaCpp(args, generated, `${version}, its prebuilt binary, f16 KV`);
    await opened.worker();
    return opened;
  }

  async prepare(work: Workload): Promise<void> {
    await this.measure(work);
  }

  async measure(work: Workload): Promise<number> {
    const child = await this.worker();
    child.send({ ...work, batchPrompt, generated: this.generated });
    try {
      const { value, error } = await answer(child);
      if (value === undefined) throw new Error(`node-llama-cpp: ${error ?? 'no figure'}`);
      return value;
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    const child = this.process;
    this.process = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  }

  private async worker(): Promise<ChildProcess> {
    if (this.process === undefined) {
      this.process = fork(worker, this.args, { execArgv: [], stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
      await answer(this.process);
    }
    return this.process;
  }
}

interface Answer {
  readonly value?: number;
  readonly error?: string;
}

function answer(child: ChildProcess): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const done = (then: () => void): void => {
      clearTimeout(timer);
      child.off('exit', ended).off('message', answered);
      then();
    };
    const ended = (): void => done(() => reject(new Error('node-llama-cpp ended')));
    const answered = (message: unknown): void => done(() => resolve(message as Answer));
    const late = (): void => done(() => reject(new Error(`node-llama-cpp said nothing for ${answerTimeout / 1000} s`)));
    const timer = setTimeout(late, answerTimeout);
    child.on('exit', ended).on('message', answered);
  });
}
