/** The probe of crates/kernels as a process of its own: asleep until it is asked. */

import { spawn, type ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';

import type { Peaks } from './roofline.js';

export class Probe {
  readonly #process: ChildProcess;
  readonly #answers: AsyncIterator<string>;

  constructor(program: string, threads: number) {
    const child = spawn(program, [String(threads)], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#process = child;
    this.#answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  }

  /** Measures for some tens of milliseconds, reading `bytes` bytes. */
  async measure(bytes: number): Promise<Peaks> {
    this.#process.stdin?.write(`${bytes}\n`);
    const answer = await this.#answers.next();
    if (answer.done === true) throw new Error('the probe ended');
    const { bandwidth, integerPeak } = JSON.parse(answer.value) as Peaks;
    return { bandwidth, integerPeak };
  }

  close(): void {
    this.#process.kill();
  }
}
