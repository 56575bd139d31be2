/** `npm run bench -- --server [--runs N] [--json]`: what HTTP, templates, parsing and events cost, with no model at all. */

import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { Agent, request as httpRequest } from 'node:http';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { repeat, type Figure } from './statistics.js';

const { values: flags } = parseArgs({
  options: {
    server: { type: 'boolean' },
    runs: { type: 'string', default: '5' },
    quick: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
});
const runs = flags.quick ? 1 : Number(flags.runs);
const scale = flags.quick ? 0.1 : 1;

class Client {
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 64 });

  constructor(
    private readonly server: ChildProcess,
    private readonly port: number,
  ) {}

  /** One chat completion. Resolves to milliseconds until the first text of a stream, else until the whole answer. */
  chat(stream: boolean, maxTokens: number): Promise<number> {
    const body = JSON.stringify({ messages: [{ role: 'user', content: 'Hello' }], stream, max_tokens: maxTokens });
    const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) };
    const start = performance.now();
    return new Promise((resolve, reject) => {
      const path = '/v1/chat/completions';
      const options = { host: '127.0.0.1', port: this.port, method: 'POST', path, headers, agent: this.#agent };
      const req = httpRequest(options, (res) => {
        let first: number | undefined;
        if (res.statusCode !== 200) reject(new Error(`status ${res.statusCode ?? 0}`));
        res.on('data', (chunk: Buffer) => {
          if (stream && first === undefined && chunk.includes('word')) first = performance.now() - start;
        });
        res.on('end', () => resolve(first ?? performance.now() - start));
      });
      req.on('error', reject);
      req.end(body);
    });
  }

  /** Requests per second with so many at once. */
  async rate(concurrency: number, requests: number): Promise<number> {
    const start = performance.now();
    await this.#many(concurrency, requests, () => this.chat(false, 1));
    return requests / ((performance.now() - start) / 1000);
  }

  /** Median milliseconds to the first text, one stream after the other. */
  async firstText(requests: number): Promise<number> {
    const times: number[] = [];
    for (let i = 0; i < requests; i++) times.push(await this.chat(true, 4));
    return times.sort((a, b) => a - b)[requests >> 1] ?? NaN;
  }

  /** Microseconds of the server's CPU per streamed token, the scripted engine's share included. */
  async tokenCost(streams: number, tokens: number): Promise<number> {
    const before = await this.ask<NodeJS.CpuUsage>('cpu');
    await Promise.all(Array.from({ length: streams }, () => this.chat(true, tokens)));
    const after = await this.ask<NodeJS.CpuUsage>('cpu');
    return (after.user + after.system - before.user - before.system) / (streams * tokens);
  }

  async ask<T>(question: string): Promise<T> {
    const answer = once(this.server, 'message');
    this.server.send(question);
    return (await answer)[0] as T;
  }

  async #many(concurrency: number, total: number, one: () => Promise<unknown>): Promise<void> {
    let left = total;
    const worker = async (): Promise<void> => {
      while (left-- > 0) await one();
    };
    await Promise.all(Array.from({ length: concurrency }, worker));
  }
}

const server = fork(fileURLToPath(new URL('./scripted-server.ts', import.meta.url)), {
  execArgv: ['--import=tsx'],
});
try {
  const [port] = (await once(server, 'message')) as [number];
  const client = new Client(server, port);
  const figures: Record<string, { readonly unit: string; readonly figure: Figure }> = {};
  const add = async (name: string, unit: string, measure: () => Promise<number>): Promise<void> => {
    process.stderr.write(`measuring ${name} …\n`);
    figures[name] = { unit, figure: await repeat(runs, measure) };
  };
  await add('requests, one at a time', 'per s', () => client.rate(1, 1000 * scale));
  await add('requests, 32 at once', 'per s', () => client.rate(32, 4000 * scale));
  await add('time to first text', 'ms', () => client.firstText(300 * scale));
  await add('streamed token, 1 stream', 'µs CPU', () => client.tokenCost(1, 4000));
  await add('streamed token, 16 streams', 'µs CPU', () => client.tokenCost(16, 2000 * scale));
  await add('of it the scripted engine', 'µs CPU', () => client.ask<number>('engine'));
  process.stdout.write(flags.json ? `${JSON.stringify(figures, undefined, 2)}\n` : table(figures));
} finally {
  server.kill();
}

function table(figures: Readonly<Record<string, { readonly unit: string; readonly figure: Figure }>>): string {
  const lines = Object.entries(figures).map(([name, { unit, figure }]) => {
    const { median, min, max } = figure;
    return `${name.padEnd(28)} ${digits(median).padStart(9)} ${unit.padEnd(7)} (${digits(min)} to ${digits(max)})`;
  });
  const [cpu] = cpus();
  return [`${cpu?.model ?? 'unknown'}, ${cpus().length} cores, Node ${process.version}`, '', ...lines, ''].join('\n');
}

function digits(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toFixed(2);
}
