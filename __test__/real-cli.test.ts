import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect } from 'chai';

import { finished, runCli, spawnCli } from './helpers/cli.js';
import { realModelPath } from './helpers/real-models.js';

/** A running `tsserve serve` on a free port. */
class Served {
  readonly #child: ReturnType<typeof spawnCli>;
  readonly ended: ReturnType<typeof finished>;
  #output = '';

  constructor(args: readonly string[], env?: NodeJS.ProcessEnv) {
    this.#child = spawnCli(['serve', '--port', '0', ...args], env);
    this.ended = finished(this.#child);
    this.#child.stdout.on('data', (text) => (this.#output += String(text)));
  }

  /** Waits until standard output has what `pattern` matches. */
  async prints(pattern: RegExp): Promise<RegExpExecArray> {
    for (;;) {
      const match = pattern.exec(this.#output);
      if (match !== null) return match;
      const over = await Promise.race([
        once(this.#child.stdout, 'data').then(() => false),
        this.ended.then(() => true),
      ]);
      if (over) throw new Error(`serve ended: ${JSON.stringify(await this.ended)}`);
    }
  }

  async url(): Promise<string> {
    return (await this.prints(/listens on (\S+)\n/))[1]!;
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }
}

function ask(url: string, body: object, headers: Record<string, string> = {}): Promise<Response> {
  return fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  });
}

const question = [{ role: 'user', content: 'What is the capital of France?' }];

describe('tsserve serve with real weights', function () {
  this.timeout(120_000);

  it('finishes answers on TERM, while it refuses new ones', async () => {
    const served = new Served([
      realModelPath('smollm2-135m-instruct-q4_1'),
      '--max-model-len',
      '1024',
      '--drain-timeout',
      '60',
    ]);
    try {
      const url = await served.url();
      await served.prints(/loaded /);
      const stream = await ask(url, { messages: question, stream: true, ignore_eos: true, max_tokens: 60 });
      const reader = stream.body!.pipeThrough(new TextDecoderStream()).getReader();
      let text = (await reader.read()).value ?? '';
      served.kill('SIGTERM');
      await served.prints(/finishing 1 request, for at most 60 s/);
      const refused = await ask(url, { messages: question });
      expect(refused.status).to.equal(503);
      expect(refused.headers.get('retry-after')).to.equal('5');
      expect(((await (await fetch(`${url}/health`)).json()) as any).status).to.equal('draining');
      for (let part = await reader.read(); !part.done; part = await reader.read()) text += part.value;
      expect(text).to.match(/"finish_reason":"length"[\s\S]*\[DONE\]\n\n$/);
      expect((await served.ended).code).to.equal(0);
    } finally {
      served.kill('SIGKILL');
    }
  });

  it('listens, loads, says what it loaded, answers, and ends at once on Ctrl-C in the middle of an answer', async () => {
    const served = new Served([realModelPath('smollm2-135m-instruct-q4_1'), '--max-model-len', '1024']);
    try {
      const url = await served.url();
      expect((await fetch(`${url}/health`)).status).to.equal(200);
      const [report] = await served.prints(/loaded [\s\S]*curl [^\n]*\n/);
      for (const row of [
        /architecture +llama, 134\.5 M/,
        /weights +.*Q4_1.*98 MB/,
        /context +1024 tokens/,
        /KV memory +\d/,
        /device +cpu/,
      ]) {
        expect(report).to.match(row);
      }
      expect(report).to.include(`curl ${url}/v1/chat/completions`);

      const answer = (await (await ask(url, { messages: question, max_tokens: 16, temperature: 0 })).json()) as any;
      expect(answer.choices[0].message.content).to.include('Paris');
      const chat = await runCli(
        ['chat', url, '--max-tokens', '16', '--temperature', '0'],
        'What is the capital of France?\n',
      );
      expect(chat.stdout).to.include('Paris');
      expect(chat.stderr).to.match(/\d+ tokens · [\d.]+ tok\/s/);

      const stream = await ask(url, { messages: question, stream: true, ignore_eos: true });
      const reader = stream.body!.getReader();
      await reader.read();
      const before = performance.now();
      served.kill('SIGINT');
      const end = await served.ended;
      expect(performance.now() - before).to.be.lessThan(2000);
      expect(end).to.include({ code: 0, signal: null });
      await reader.cancel().catch(() => undefined);
    } finally {
      served.kill('SIGKILL');
    }
  });

  it('wants the key that was set, whatever the Host', async () => {
    const served = new Served([realModelPath('smollm2-135m-instruct-q4_1'), '--served-model-name', 'mine'], {
      TSSERVE_API_KEY: 'secret',
    });
    try {
      const url = await served.url();
      const [line] = await served.prints(/curl [^\n]*\n/);
      expect(line).to.include('authorization: Bearer $TSSERVE_API_KEY').and.include('"model":"mine"');
      expect((await ask(url, { messages: question, max_tokens: 1 })).status).to.equal(401);
      const allowed = await ask(
        url,
        { model: 'mine', messages: question, max_tokens: 1 },
        { authorization: 'Bearer secret' },
      );
      expect(allowed.status).to.equal(200);
      served.kill('SIGTERM');
      expect((await served.ended).code).to.equal(0);
    } finally {
      served.kill('SIGKILL');
    }
  });

  it('says in one sentence what is wrong with a model', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'tsserve-models-'));
    try {
      const broken = join(folder, 'broken.gguf');
      await writeFile(broken, 'GGUF and then nothing of use');
      const cases: readonly (readonly string[])[] = [
        [join(folder, 'none.gguf')],
        [broken],
        [folder],
        [realModelPath('smollm2-135m-instruct-q4_1'), '--device', 'cuda'],
        [realModelPath('smollm2-135m-instruct-q4_1'), '--kv-cache-memory', '1K'],
        [realModelPath('smollm2-135m-instruct-q4_1'), '--kv-cache-type', 'q8_0', '--dtype', 'f32'],
      ];
      for (const args of cases) {
        const { code, stderr } = await new Served(args).ended;
        expect(stderr.replace(/^reading the weights: .*\n/gm, ''), args.join(' ')).to.match(/^tsserve: [^\n]+\n$/);
        expect(stderr, args.join(' ')).not.to.match(/\n\s+at /);
        expect(code, args.join(' ')).to.equal(1);
      }
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

describe('tsserve doctor with real weights', function () {
  this.timeout(120_000);

  it('says what the machine, and a model on it, can do', async () => {
    const { code, stdout } = await runCli(['doctor', realModelPath('smollm2-135m-instruct-q4_1')]);
    expect(code).to.equal(0);
    const number = (pattern: RegExp): number => Number(pattern.exec(stdout)?.[1]);
    const bandwidth = number(/^bandwidth +([\d.]+) GB\/s, read by \d+ threads?$/m);
    expect(bandwidth).to.be.within(0.1, 10_000);
    expect(stdout).to.match(/^integer peak +[\d.]+ [GT] 8-bit operations\/s/m);
    // 106 M weights of layers, of which those of q, k, v and down count twice, and a head of 28 M: 96 MB in all.
    expect(stdout).to.match(/^weights +.*Q4_1.*, packed, \d+ threads?$/m);
    const answers = /^answers +(\d+) MB per token: at most ([\d.]+) tokens\/s, measured ([\d.]+) \(\d+ %\)$/m.exec(
      stdout,
    );
    const [bytes, limit, measured] = (answers ?? []).slice(1).map(Number) as [number, number, number];
    expect(bytes).to.be.within(94, 100);
    expect(limit / ((bandwidth * 1e3) / bytes)).to.be.closeTo(1, 0.02);
    expect(measured).to.be.within(0.1, 100_000);
    const operations = number(/^prompts +([\d.]+) G operations per token: at most [\d.]+ tokens\/s, measured [\d.]+ /m);
    expect(operations).to.be.within(0.212, 0.424);
  });
});
