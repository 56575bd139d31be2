/** Many clients at once on real weights: each gets the answer it would get alone, and who leaves leaves nothing. */

import { expect } from 'chai';
import OpenAI from 'openai';

import { KV_CACHE_TYPES } from '../ts/engine/types.js';
import { startRealServer, type RealServer } from './helpers/real-server.js';

const CLIENTS = 16;

const prompts = Array.from(
  { length: CLIENTS },
  (_, i) => `${'Think about it. '.repeat(i * 3)}Tell me a fact about the number ${String(i + 2)}.`,
);

for (const kvCacheType of KV_CACHE_TYPES)
  describe(`concurrency on real weights, ${kvCacheType} cache`, function () {
    this.timeout(300_000);
    let server: RealServer;
    let client: OpenAI;
    let model: string;

    before(async () => {
      server = await startRealServer('smollm2-135m-instruct-q4_1', { maxModelLen: 1024, kvCacheType });
      client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none', maxRetries: 0 });
      model = (await client.models.list()).data[0]?.id ?? '';
    });
    after(() => server.close());

    const ask = async (prompt: string): Promise<string> => {
      const answer = await client.chat.completions.create({
        model,
        messages: [{ role: 'user', content: prompt }],
        max_tokens: 24,
        temperature: 0,
      });
      return answer.choices[0]?.message.content ?? '';
    };

    const freeBlocks = async (): Promise<{ free: number; running: number }> => {
      using lease = await server.registry.acquire(undefined);
      const { freeBlocks: free, running, waiting } = server.engine.stats(lease.model.info.handle);
      return { free, running: running + waiting };
    };

    const settled = async (): Promise<number> => {
      for (;;) {
        const { free, running } = await freeBlocks();
        if (running === 0) return free;
        await new Promise((resolve) => setImmediate(resolve));
      }
    };

    it('answers 16 clients as it answers each alone', async () => {
      const alone: string[] = [];
      for (const prompt of prompts) alone.push(await ask(prompt));
      const together = await Promise.all(prompts.map(ask));
      expect(together).to.deep.equal(alone);
      expect(new Set(alone).size).to.be.greaterThan(1);
    });

    it('forgets a request that is cancelled while its prompt is tokenised', async () => {
      const free = await settled();
      using lease = await server.registry.acquire(undefined);
      for (let i = 0; i < 20; i++) {
        const generation = server.engine.generate({
          model: lease.model.info.handle,
          prompt: { text: 'word '.repeat(900), addSpecialTokens: false },
          ignoreEos: true,
        });
        generation.cancel();
      }
      // Whatever of it reached the engine must be gone soon, not when its credit is used up.
      await server.engine.tokenize(lease.model.info.handle, 'after them in the same queue', false);
      expect(await settled()).to.equal(free);
    });

    it('frees the blocks of clients that leave in the middle, and the others stay right', async () => {
      const before = await settled();
      const alone = await Promise.all(prompts.map(ask));
      const results = await Promise.all(
        prompts.map(async (prompt, i) => {
          const stream = await client.chat.completions.create({
            model,
            messages: [{ role: 'user', content: prompt }],
            max_tokens: i % 2 === 0 ? 24 : 600,
            temperature: 0,
            stream: true,
            ...(i % 2 === 0 ? {} : { ignore_eos: true }),
          });
          let text = '';
          let parts = 0;
          for await (const chunk of stream) {
            text += chunk.choices[0]?.delta.content ?? '';
            parts += 1;
            if (i % 2 === 1 && parts === 4) {
              stream.controller.abort();
              return undefined;
            }
          }
          return text;
        }),
      );
      expect(results.filter((_, i) => i % 2 === 0)).to.deep.equal(alone.filter((_, i) => i % 2 === 0));
      expect(results.filter((_, i) => i % 2 === 1).every((text) => text === undefined)).to.equal(true);
      expect(await settled()).to.equal(before);
    });
  });
