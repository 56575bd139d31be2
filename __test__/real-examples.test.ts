import { expect } from 'chai';
import { execFile } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { realModelPath } from './helpers/real-models.js';

const folder = new URL('../examples/', import.meta.url);
const examples = readdirSync(folder).filter((file) => file.endsWith('.mjs') && file !== 'model.mjs');

/** What the output must show; every example has a line here. */
const SHOWS: Readonly<Record<string, RegExp>> = {
  'abort.mjs': /\nstopped\n$/,
  'chat.mjs': /\S.*\n\d+ tokens, ended by (stop|length)\n$/s,
  'complete.mjs': /^5 tokens: [\d ]+\nThe capital of France is Paris/,
  'express-mount.mjs': /\S\n$/,
  'stream.mjs': /\S.*\n\d+ tokens, [\d.]+ tok\/s\n$/s,
};

describe('real: examples', () => {
  before(() => {
    const entry = fileURLToPath(new URL('../dist/index.js', import.meta.url));
    if (!existsSync(entry)) throw new Error('dist/ is missing: run npm run build:ts');
  });

  for (const example of examples) {
    it(`${example} runs and ends by itself`, async () => {
      const { stdout } = await promisify(execFile)(
        process.execPath,
        [fileURLToPath(new URL(example, folder)), realModelPath('smollm2-135m-instruct-q4_1')],
        { timeout: 60_000, env: { ...process.env, PORT: '0' } },
      );
      expect(stdout).to.match(SHOWS[example] ?? /^no line in SHOWS$/);
    }).timeout(70_000);
  }
});
