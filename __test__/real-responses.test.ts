/** Responses of real weights: two that follow each other, streamed, over a store in a file. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { expect } from 'chai';
import OpenAI from 'openai';

import { createApp } from '../ts/http/app.js';
import { closeServer, createHttpServer, listen } from '../ts/http/server.js';
import type { ResponseEvent } from '../ts/protocol/response-events.js';
import { openSqliteStore } from '../ts/responses/sqlite-store.js';
import { checkLegal } from './helpers/response-events.js';
import { startRealServer } from './helpers/real-server.js';
import { watchServer } from './helpers/schemas/watch.js';

describe('responses of real weights', function () {
  this.timeout(300_000);

  it('follow each other over a restart of the server', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'tsserve-real-'));
    const real = await startRealServer('smollm2-135m-instruct-q4_1', { maxModelLen: 1024 });
    const [listed] = await real.registry.list();
    const model = listed!.id;
    const ask = async (body: object) => {
      const responses = openSqliteStore(path.join(folder, 'responses.db'));
      const server = createHttpServer(createApp({ registry: real.registry, responses }));
      const watch = watchServer(server);
      const { port } = await listen(server, { host: '127.0.0.1', port: 0 });
      try {
        const client = new OpenAI({ baseURL: `http://127.0.0.1:${port}/v1`, apiKey: 'k', maxRetries: 0 });
        const events: ResponseEvent[] = [];
        const stream = client.responses.stream({ model: model, ...body } as any);
        for await (const event of stream) events.push(event as unknown as ResponseEvent);
        const counted = await client.responses.inputTokens.count({ model: model, ...body });
        watch.verify();
        return { events, final: await stream.finalResponse(), counted: counted.input_tokens };
      } finally {
        await closeServer(server);
        responses.close();
      }
    };
    try {
      const first = await ask({ input: 'My name is Ada. What is the capital of France?', max_output_tokens: 40 });
      expect(first.final.output_text).to.match(/Paris/);
      const wire = first.events.map(({ ...event }) => event);
      const one = checkLegal(wire);
      expect(one.usage!.input_tokens).to.equal(first.counted);

      const second = await ask({ input: 'Say it again.', previous_response_id: one.id, max_output_tokens: 24 });
      const two = checkLegal(second.events);
      expect(two.usage!.input_tokens).to.equal(second.counted);
      expect(two.usage!.input_tokens).to.be.greaterThan(one.usage!.total_tokens);
      // The first answer is in the prefix cache.
      expect(two.usage!.input_tokens_details.cached_tokens).to.be.greaterThan(0);
      expect(second.final.output_text).not.to.equal('');
    } finally {
      await real.close();
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
