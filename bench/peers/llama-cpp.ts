/** llama.cpp through its own benches: a process for each sample, so that nothing of it runs while others are measured. */

import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';

import type { Conditions, Contender } from './contenders.js';
import { batchPrompt, type Workload } from './roofline.js';

const run = promisify(execFile);

/** A sample on a busy machine; past that something hangs. */
const timeout = 300_000;

export class LlamaCpp implements Contender {
  readonly name = 'llama.cpp';
  #flashAttention: 'on' | 'off' = 'on';

  private constructor(
    private readonly programs: string,
    private readonly conditions: Conditions,
    /** Measure both ways of attention first and go on with the faster one. */
    private readonly chooses: boolean,
    private readonly version: string,
  ) {}

  static async open(programs: string, conditions: Conditions, chooses: boolean): Promise<LlamaCpp> {
    return new LlamaCpp(programs, conditions, chooses, await llamaCppVersion(programs));
  }

  get about(): string {
    return `${this.version}, ${this.conditions.kvCacheType} KV`;
  }

  /** Both ways of attention are tried once: which one is faster depends on depth and model. */
  async prepare(work: Workload): Promise<void> {
    // It keeps values in 8 bits for its fused attention only.
    if (!this.chooses || this.conditions.kvCacheType !== 'f16') return;
    this.#flashAttention = 'on';
    const on = await this.measure(work);
    this.#flashAttention = 'off';
    if ((await this.measure(work)) < on) this.#flashAttention = 'on';
  }

  async measure(work: Workload): Promise<number> {
    const { generated } = this.conditions;
    switch (work.kind) {
      case 'decode':
        return this.#bench(['-p', '0', '-n', String(generated), '-d', String(work.depth)]);
      case 'prefill':
        return this.#bench(['-p', String(work.length), '-n', '0']);
      case 'batch':
        return this.#batchedBench(work.size);
    }
  }

  async close(): Promise<void> {
    // Nothing stays between samples.
  }

  /** It warms up by a run of its own before the one that it reports. */
  async #bench(args: readonly string[]): Promise<number> {
    const output = await this.#run('llama-bench', ['-r', '1', '-o', 'jsonl', ...args]);
    return (JSON.parse(output) as { readonly avg_ts: number }).avg_ts;
  }

  async #batchedBench(size: number): Promise<number> {
    const { generated } = this.conditions;
    // Room for what the sequences need: more would be attended over as masked positions.
    const context = size * (batchPrompt + generated);
    const output = await this.#run('llama-batched-bench', [
      ...['-c', String(context), '-npp', String(batchPrompt), '-ntg', String(generated), '-npl', String(size)],
      ...['--output-format', 'jsonl'],
    ]);
    return (JSON.parse(output) as { readonly speed_tg: number }).speed_tg;
  }

  /** Resolves to the line of JSON among what the program prints. */
  async #run(program: string, args: readonly string[]): Promise<string> {
    const { model, threads, kvCacheType } = this.conditions;
    const cache = ['-ctk', kvCacheType, '-ctv', kvCacheType];
    const common = ['-m', model, '-t', String(threads), '-fa', this.#flashAttention, ...cache];
    const { stdout } = await run(join(this.programs, program), [...common, ...args], { timeout });
    const line = stdout.split('\n').findLast((text) => text.startsWith('{'));
    if (line === undefined) throw new Error(`${program} gave no figures`);
    return line;
  }
}

export async function llamaCppVersion(programs: string): Promise<string> {
  const { stdout, stderr } = await run(join(programs, 'llama-server'), ['--version']);
  return /version: (.*)/.exec(stdout + stderr)?.[1] ?? 'unknown version';
}
