/** Numerics as a user can check them: log-probabilities of real weights through POST /v1/completions. */

import { expect } from 'chai';

import { gplIds, realReference } from './helpers/real-models.js';
import { startRealServer, type RealServer } from './helpers/real-server.js';

/** Largest difference of a log-probability (fixtures/real/README.md). */
const TOLERANCE = 2e-3;
/** Below this gap between the two best, either may win. */
const TIE_GAP = 5e-3;
const PERPLEXITY_TOLERANCE = 1e-3;

/** The same for packed weights and quantised activations: the mean over the five best of an answer's steps. */
const PACKED_MEAN = 0.012;
const PACKED_TIE_GAP = 0.25;

interface Completion {
  readonly choices: readonly {
    readonly text: string;
    readonly finish_reason: string;
    readonly logprobs: {
      readonly tokens: readonly string[];
      readonly token_logprobs: readonly (number | null)[];
      readonly top_logprobs: readonly (Readonly<Record<string, number>> | null)[];
    };
  }[];
  readonly usage: { readonly prompt_tokens: number; readonly completion_tokens: number };
}

async function completeAt({ url }: RealServer, body: Record<string, unknown>): Promise<Completion> {
  const response = await fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  const json: unknown = await response.json();
  expect(response.status, JSON.stringify(json)).to.equal(200);
  return json as Completion;
}

const models = ['smollm2-135m-instruct-q4_1', 'qwen2.5-coder-0.5b-instruct-q4_k_m', 'gemma-3-270m-q4_k_m'] as const;

for (const id of models) {
  describe(`real weights over HTTP, in f32: ${id}`, function () {
    this.timeout(600_000);
    const reference = realReference(id);
    let server: RealServer;
    let handle: number;

    before(async () => {
      server = await startRealServer(id, { maxModelLen: 2048, dtype: 'f32' });
      using lease = await server.registry.acquire(undefined);
      handle = lease.model.info.handle;
    });
    after(() => server.close());

    const complete = (body: Record<string, unknown>): Promise<Completion> => completeAt(server, body);

    it('turns prompts into the same ids', async () => {
      for (const { kind, prompt, prompt_ids } of reference.cases) {
        const ids = await server.engine.tokenize(handle, prompt, kind === 'completion');
        expect(ids, prompt).to.deep.equal(prompt_ids);
      }
    });

    it('renders chat prompts that have the same ids', async function () {
      const chats = reference.cases.filter(({ kind }) => kind === 'chat');
      // The Gemma weights are a base model without a chat template.
      if (chats.length === 0) return;
      using lease = await server.registry.acquire(undefined);
      for (const { text, prompt, prompt_ids } of chats) {
        const rendered = await lease.model.applyChatTemplate({ messages: [{ role: 'user', content: text }] });
        expect(rendered).to.equal(prompt);
        expect(await server.engine.tokenize(handle, rendered, false)).to.deep.equal(prompt_ids);
      }
    });

    for (const [index, { kind, text, prompt_ids, new_ids, steps }] of reference.cases.entries()) {
      it(`case ${String(index)} (${kind}): ${JSON.stringify(text.slice(0, 50))}`, async () => {
        // Teacher forcing: prompt and answer in one pass, each answer token's alternatives from the echo.
        const ids = [...prompt_ids, ...new_ids];
        const { choices } = await complete({ prompt: ids, max_tokens: 0, echo: true, logprobs: 10 });
        const logprobs = choices[0]?.logprobs;
        expect(logprobs?.token_logprobs).to.have.length(ids.length);
        for (const [step, { top }] of steps.entries()) {
          const found = Object.values(logprobs?.top_logprobs[prompt_ids.length + step] ?? {}).sort((a, b) => b - a);
          for (const [rank, [, expected]] of top.entries()) {
            // Tokens with equal text share a key of the object, so a rank may be missing at the end only.
            const value = found[rank];
            if (value === undefined) expect(rank).to.be.greaterThan(7);
            else expect(value, `step ${String(step)}, rank ${String(rank)}`).to.be.closeTo(expected, TOLERANCE);
          }
        }
        // Greedy: the same tokens up to the first near tie.
        const tie = steps.findIndex(({ gap }) => gap <= TIE_GAP);
        const certain = tie === -1 ? new_ids.length : tie;
        const greedy = await complete({ prompt: prompt_ids, max_tokens: new_ids.length, temperature: 0 });
        const expected = await server.engine.detokenize(handle, new_ids.slice(0, certain), true);
        expect(greedy.choices[0]?.text.startsWith(expected), `${greedy.choices[0]?.text ?? ''} / ${expected}`).to.equal(
          true,
        );
      });
    }

    for (const length of ['512', '1536'] as const) {
      it(`mean negative log-likelihood of ${length} tokens of the GPL`, async () => {
        const { n_tokens, mean_nll } = reference.perplexity[length];
        const ids = gplIds(id).slice(0, n_tokens);
        expect(ids).to.have.length(n_tokens);
        const { choices } = await complete({ prompt: ids, max_tokens: 0, echo: true, logprobs: 0 });
        const logprobs = choices[0]?.logprobs.token_logprobs ?? [];
        expect(logprobs[0]).to.equal(null);
        const values = logprobs.slice(1).map((value) => value ?? Number.NaN);
        const mean = -values.reduce((a, b) => a + b, 0) / values.length;
        expect(mean).to.be.closeTo(mean_nll, PERPLEXITY_TOLERANCE);
      });
    }
  });
}

for (const id of models) {
  describe(`real weights over HTTP, packed: ${id}`, function () {
    this.timeout(600_000);
    const reference = realReference(id);
    let server: RealServer;

    before(async () => {
      server = await startRealServer(id, { maxModelLen: 2048 });
    });
    after(() => server.close());

    it('is near to f32 in its answers, and chooses the same tokens wherever the choice is clear', async () => {
      const differences: number[] = [];
      for (const { text, prompt_ids, new_ids, steps } of reference.cases) {
        const body = { prompt: prompt_ids, max_tokens: new_ids.length, temperature: 0, logprobs: 5 };
        const { choices } = await completeAt(server, body);
        const logprobs = choices[0]?.logprobs;
        for (const [step, { top, gap }] of steps.entries()) {
          const found = Object.values(logprobs?.top_logprobs[step] ?? {}).sort((a, b) => b - a);
          if (found.length === 0) break;
          for (const [rank, [, expected]] of top.slice(0, found.length).slice(0, 5).entries()) {
            differences.push(Math.abs((found[rank] ?? Number.NaN) - expected));
          }
          // Behind a close choice the answer may go another way, and is not compared any further.
          if (gap <= PACKED_TIE_GAP) break;
          const chosen = logprobs?.token_logprobs[step] ?? Number.NaN;
          expect(chosen, `${text}, step ${String(step)}`).to.be.closeTo(top[0]?.[1] ?? Number.NaN, PACKED_TIE_GAP);
        }
      }
      expect(differences.length).to.be.greaterThan(100);
      const mean = differences.reduce((a, b) => a + b, 0) / differences.length;
      expect(mean).to.be.lessThan(PACKED_MEAN);
    });
  });
}
