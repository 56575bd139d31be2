import { readdir, readFile } from 'node:fs/promises';

import { expect } from 'chai';

import type { ChatRequest } from '../ts/chat/types.js';
import { content, finished, started } from './helpers/scripted-events.js';
import { dataOf, parseEvents, ScriptedApp } from './helpers/scripted-app.js';

/** One file of clients/: what a client sends, and to what kind of server. A new case is a new file. */
interface ClientCase {
  readonly client: string;
  /** Captured from the client itself, read from its source, or written from its description. */
  readonly origin: string;
  readonly server: {
    /** It wants 'test-key'. */
    readonly key?: boolean;
    readonly cors?: boolean;
    /** It serves one model. */
    readonly pinned?: boolean;
    readonly allowedHosts?: readonly string[];
    readonly allowedOrigins?: readonly string[];
  };
  readonly requests: readonly {
    readonly note?: string;
    readonly method: string;
    readonly path: string;
    readonly headers: Readonly<Record<string, string>>;
    readonly body?: object;
    readonly expect: {
      readonly status: number;
      readonly stream?: boolean;
      /** The stream's last chunk has the usage. */
      readonly usage?: boolean;
      /** The answer is held to a JSON schema. */
      readonly schema?: boolean;
      /** Fields of the message that must not be null. */
      readonly noNulls?: readonly string[];
      readonly headers?: Readonly<Record<string, string>>;
    };
  }[];
}

const folder = new URL('./clients/', import.meta.url);
const asked: ChatRequest[] = [];
const MODELS = [
  {
    id: 'org/model',
    chat: (request: ChatRequest) => {
      asked.push(request);
      return [started, content('Hi'), content(' there'), finished()];
    },
  },
];
const cases: ClientCase[] = await Promise.all(
  (await readdir(folder))
    .sort()
    .map(async (name) => JSON.parse(await readFile(new URL(name, folder), 'utf8')) as ClientCase),
);

describe('requests as clients send them', () => {
  for (const { client, server, requests } of cases) {
    describe(client, () => {
      for (const { note, method, path, headers, body, expect: expected } of requests) {
        it(`${method} ${path}${note === undefined ? '' : `: ${note}`}`, async () => {
          await using app = await ScriptedApp.start(MODELS, {
            ...(server.key === true ? { apiKeys: ['test-key'] } : {}),
            ...(server.pinned === true ? { pinned: 'org/model' } : {}),
            ...(server.allowedHosts === undefined ? {} : { allowedHosts: server.allowedHosts }),
            ...(server.allowedOrigins === undefined ? {} : { allowedOrigins: server.allowedOrigins }),
            cors: server.cors ?? false,
          });
          const answer = await app.call({
            method,
            path,
            headers,
            ...(body === undefined ? {} : { body: JSON.stringify(body) }),
          });
          expect(answer.status, answer.text).to.equal(expected.status);
          if (expected.headers !== undefined) expect(answer.headers).to.include(expected.headers);
          // No client's headers make an answer that its bytes are not: none is compressed.
          expect(answer.headers).not.to.have.property('content-encoding');
          if (expected.status !== 200 || method !== 'POST') return;
          expect(asked.pop()?.responseFormat?.type).to.equal(expected.schema === true ? 'json_schema' : undefined);
          if (expected.stream !== true) {
            const [{ message }] = answer.json.choices;
            expect(message.content).to.equal('Hi there');
            for (const name of expected.noNulls ?? []) expect(message[name]).not.to.equal(null);
            return;
          }
          expect(answer.headers['content-type']).to.match(/^text\/event-stream/);
          const events = dataOf(parseEvents([Buffer.from(answer.text)])) as any[];
          expect(events.pop()).to.equal('[DONE]');
          if (path === '/v1/responses') {
            const { type, response } = events.at(-1);
            expect([type, response.output.at(-1).content[0].text]).to.deep.equal(['response.completed', 'Hi there']);
            return;
          }
          // Who did not ask for the usage reads choices[0] of every chunk without looking.
          if (expected.usage !== true) for (const event of events) expect(event.choices).to.have.length(1);
          const text = events.map((event) => event.choices[0]?.delta.content ?? '').join('');
          expect(text).to.equal('Hi there');
          expect(events.at(-1).usage !== undefined, 'usage').to.equal(expected.usage === true);
        });
      }
    });
  }

  it('are there for every client of the guides', async () => {
    const names = (await readdir(folder)).join(' ');
    for (const guide of await readdir(new URL('../docs/clients/', import.meta.url))) {
      if (guide !== 'README.md') expect(names, guide).to.include(guide.replace('.md', ''));
    }
  });
});
