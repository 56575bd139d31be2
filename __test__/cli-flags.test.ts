import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect } from 'chai';

import { printable, formatBytes, formatCount } from '../ts/cli/format.js';
import { ProgressLine } from '../ts/cli/progress.js';
import { curlLine, describeModel, serverUrl } from '../ts/cli/serve-report.js';
import { byteSize, collectList, collectOrigins, decimal, wholeNumber } from '../ts/cli/values.js';
import type { LoadedModel } from '../ts/engine/types.js';
import { runCli } from './helpers/cli.js';

const model: LoadedModel = {
  handle: 1,
  id: 'tiny',
  kind: 'text',
  family: 'llama',
  weightFormat: 'Q4_1 + Q8_0 (GGUF)',
  parameters: 134_515_008,
  weightBytes: 98_362_432,
  bytesPerToken: 98_270_000,
  vocabSize: 49_152,
  contextLength: 8192,
  maxModelLen: 4096,
  maxNumSeqs: 16,
  maxBatchTokens: 512,
  kvBytes: 1_509_949_440,
  kvCacheType: 'q8_0',
  kvBlocks: 4096,
  blockSize: 16,
  device: 'cpu',
  dtype: 'packed',
  cpuLevel: 'vnni',
  threads: 2,
  loadSeconds: 0.42,
  warnings: ['context cut from 8192 to 4096'],
  specialTokens: {},
  endTokenIds: [],
};

describe('command line', () => {
  it('refuses a wrong flag, value or command in one sentence and with exit code 2', async () => {
    const cases: readonly (readonly [readonly string[], RegExp])[] = [
      [['serve', '--prot', '1'], /^tsserve: unknown option '--prot' \(Did you mean --port\?\)\n$/],
      [
        ['serve', '--port', 'x'],
        /^tsserve: option '--port <n>' argument 'x' is invalid\. It must be a whole number from 0 to 65535\.\n$/,
      ],
      [['serve', '--device', 'tpu'], /^tsserve: .*Allowed choices are auto, cpu, cuda, metal\.\n$/],
      [['serve', '--quantization', 'q5'], /^tsserve: .*Allowed choices are q8_0, q4_0, q4_k\.\n$/],
      [['serve', '--kv-cache-type', 'q4_0'], /^tsserve: .*Allowed choices are f16, q8_0\.\n$/],
      [['serve', '--kv-cache-memory', 'lots'], /^tsserve: .*a size like 512M or 2G\.\n$/],
      [['serve', '--reasoning', 'yes'], /^tsserve: .*Allowed choices are auto, on, off\.\n$/],
      [['serve', '--chat-template-kwargs', '[]'], /^tsserve: .*It must be a JSON object like .*\n$/],
      [['serve', '--api-key', ' '], /^tsserve: .*It must not be empty\.\n$/],
      [['serve', '--allowed-origins', 'https://a.example/x'], /^tsserve: .*origins like https:\/\/app\.example, .*\n$/],
      [['serve', 'a', 'b'], /^tsserve: too many arguments .*\n$/],
      [['serve', '--served-model-name', 'x'], /^tsserve: --served-model-name names a MODEL.*\n$/],
      [['sreve'], /^tsserve: unknown command 'sreve' \(Did you mean serve\?\)\n$/],
      [['doctor', 'a', 'b'], /^tsserve: too many arguments .*\n$/],
      [['chat', 'ftp://host'], /^tsserve: 'ftp:\/\/host' is not an http or https URL\n$/],
    ];
    for (const [args, message] of cases) {
      const { code, stdout, stderr } = await runCli(args);
      expect(stderr, args.join(' ')).to.match(message);
      expect(code, args.join(' ')).to.equal(2);
      expect(stdout, args.join(' ')).to.equal('');
    }
  }).timeout(60_000);

  it('helps', async () => {
    const { code, stdout } = await runCli(['serve', '--help']);
    expect(code).to.equal(0);
    const flags =
      '--host --port --device --dtype --quantization --max-model-len --max-num-seqs --max-batch-tokens --kv-cache-memory --kv-cache-type --threads ' +
      '--speculation --served-model-name --api-key --enable-cors --log-level --default-seed --model-timeout --no-download';
    for (const flag of flags.split(' ')) expect(stdout).to.include(flag);
    expect((await runCli(['doctor', '--help'])).stdout).to.match(
      /doctor \[options\] \[model\][\s\S]*--json[\s\S]*--no-download/,
    );
    expect((await runCli(['--version'])).stdout).to.match(/^\d+\.\d+\.\d+\n$/);
  });

  it('says in one sentence why it cannot listen', async () => {
    const holder = createServer();
    await new Promise<void>((resolve) => holder.listen(0, '127.0.0.1', resolve));
    const folder = await mkdtemp(join(tmpdir(), 'tsserve-flags-'));
    try {
      const port = String((holder.address() as AddressInfo).port);
      const taken = await runCli(['serve', '--port', port]);
      expect(taken.stderr).to.equal(
        `tsserve: port ${port} on 127.0.0.1 is taken: stop what runs there, or choose another one with --port\n`,
      );
      const open = await runCli(['serve', '--host', '0.0.0.0']);
      expect(open.stderr).to.match(
        /^tsserve: 0\.0\.0\.0 can be reached from other machines: .*--allow-unauthenticated\n$/,
      );
      const elsewhere = await runCli(['serve', '--host', '203.0.113.1', '--allow-unauthenticated']);
      expect(elsewhere.stderr).to.match(/^tsserve: 203\.0\.113\.1 is not an address of this machine.*\n$/);
      const noFile = await runCli(['serve', '--api-key-file', join(folder, 'none')]);
      expect(noFile.stderr).to.match(/^tsserve: the key file .* cannot be read \(ENOENT\)\n$/);
      await writeFile(join(folder, 'empty'), '# nothing\n\n');
      const noKey = await runCli(['serve', '--api-key-file', join(folder, 'empty')]);
      expect(noKey.stderr).to.match(/^tsserve: the key file .* holds no key\n$/);
      const blank = await runCli(['serve', '--port', '0'], '', { TSSERVE_API_KEY: ' ' });
      expect(blank.stderr).to.equal('tsserve: TSSERVE_API_KEY holds a blank key\n');
      const noServers = await runCli(['serve', '--mcp-config', join(folder, 'none')]);
      expect(noServers.stderr).to.match(/^tsserve: the MCP file .* cannot be read \(ENOENT\)\n$/);
      const badServers = await runCli(['serve', '--mcp-config', join(folder, 'empty')]);
      expect(badServers.stderr).to.match(/^tsserve: the MCP file .*: it is not valid JSON.*\n$/);
      const noStore = await runCli(['serve', '--responses-store', folder]);
      expect(noStore.stderr).to.match(/^tsserve: responses cannot be kept in .*\n$/);
      expect([noServers, badServers, noStore].map(({ code }) => code)).to.deep.equal([1, 1, 1]);
      expect([taken, open, elsewhere, noFile, noKey].map(({ code }) => code)).to.deep.equal([1, 1, 1, 1, 1]);
    } finally {
      holder.close();
      await rm(folder, { recursive: true });
    }
  }).timeout(60_000);
});

describe('values and figures', () => {
  it('reads sizes, numbers and lists', () => {
    expect(['1024', '512M', '2G', '1.5GiB', '3kb', '1T'].map(byteSize)).to.deep.equal([
      1024,
      512 * 2 ** 20,
      2 * 2 ** 30,
      1.5 * 2 ** 30,
      3 * 1024,
      2 ** 40,
    ]);
    for (const wrong of ['', '0', '-1', 'G', '1X', '1e3', '99999999T']) expect(() => byteSize(wrong), wrong).to.throw();
    expect(wholeNumber(0, 9)('7')).to.equal(7);
    for (const wrong of ['', '1.5', '10', '-1', '0x1', '1e1']) expect(() => wholeNumber(0, 9)(wrong), wrong).to.throw();
    expect(decimal(0, 2)('0.7')).to.equal(0.7);
    for (const wrong of ['', ' ', 'x', '2.1', 'Infinity']) expect(() => decimal(0, 2)(wrong), wrong).to.throw();
    expect(collectList('a, b', ['c'])).to.deep.equal(['c', 'a', 'b']);
    expect(() => collectList('a,,b', undefined)).to.throw();
    const origins = ['https://a.example', 'http://b:3000', 'app://.', 'null', '*'];
    expect(collectOrigins(origins.join(','), undefined)).to.deep.equal(origins);
    for (const wrong of ['a.example', 'https://a.example/', 'https://', 'https://a b']) {
      expect(() => collectOrigins(wrong, undefined), wrong).to.throw();
    }
  });

  it('writes figures for people', () => {
    expect([999, 1500, 98_362_432, 1_509_949_440].map(formatBytes)).to.deep.equal([
      '999 B',
      '2 kB',
      '98 MB',
      '1.51 GB',
    ]);
    expect([12, 134_515_008, 7e9].map(formatCount)).to.deep.equal(['12', '134.5 M', '7.00 B']);
    expect(printable('a\u001b]0;x\u0007\r\nb\u009b')).to.equal('a]0;x\nb');
  });

  it('describes a loaded model', () => {
    expect(describeModel(model)).to.equal(
      `loaded tiny in 0.4 s
  architecture  llama, 134.5 M parameters, vocabulary 49152
  weights       Q4_1 + Q8_0 (GGUF), 98 MB
  context       4096 tokens (the model was made for 8192)
  KV memory     1.51 GB: 4096 blocks of 16 tokens (q8_0)
  batch         16 sequences, 512 tokens per step
  device        cpu, vnni, packed, 2 threads
  warning: context cut from 8192 to 4096`,
    );
  });

  it('gives an address and a curl line that work', () => {
    expect(serverUrl({ host: '0.0.0.0', port: 8000 })).to.equal('http://localhost:8000');
    expect(serverUrl({ host: '::1', port: 1 })).to.equal('http://[::1]:1');
    expect(curlLine('http://h:1', "it's", false, true)).to.equal(
      `curl http://h:1/v1/completions -H 'content-type: application/json' -H "authorization: Bearer $TSSERVE_API_KEY" ` +
        `-d '{"model":"it'\\''s","prompt":"The sky is blue because","max_tokens":60}'`,
    );
  });

  it('shows progress as one line on a terminal and now and then a line elsewhere', () => {
    let plain = '';
    let clock = 0;
    const lines = new ProgressLine({ write: (text) => (plain += text) }, () => clock);
    for (let done = 0; done <= 100; done += 1) {
      lines.update({ stage: 'download', file: 'model.gguf', done: done * 1e6, total: 1e8 });
      clock += 50;
    }
    lines.end();
    expect(plain).to.equal(
      'downloading model.gguf: 40 %  40 MB of 100 MB\ndownloading model.gguf: 80 %  80 MB of 100 MB\n',
    );

    let drawn = '';
    const bar = new ProgressLine({ isTTY: true, columns: 60, write: (text) => (drawn += text) });
    bar.update({ stage: 'weights', done: 1, total: 1 });
    bar.end();
    expect(drawn).to.equal(`\r\u001b[2Kreading the weights ${'█'.repeat(24)} 100 %\r\u001b[2K`);
  });
});
