/** Decode, prefill and batch speeds through the engine's own interface, and what a token costs Node's thread. */

import type { Engine, GenerateRequest, LoadedModel } from '../ts/engine/types.js';

/** Token ids that no earlier prompt began with, so that nothing is reused; the same in every run of the bench. */
export class Prompts {
  readonly #vocabSize: number;
  #state = 0x2545f491;

  constructor(vocabSize: number) {
    this.#vocabSize = vocabSize;
  }

  ids(length: number): number[] {
    return Array.from({ length }, () => {
      this.#state ^= this.#state << 13;
      this.#state ^= this.#state >>> 17;
      this.#state ^= this.#state << 5;
      // The lowest ids are special tokens in most vocabularies.
      return 100 + ((this.#state >>> 0) % (this.#vocabSize - 200));
    });
  }
}

/** When each delta of one generation came (ms), with the tokens it carried. */
type Trace = readonly { readonly at: number; readonly tokens: number }[];

export class GenerationBench {
  readonly #engine: Engine;
  readonly #model: LoadedModel;
  readonly #prompts: Prompts;

  constructor(engine: Engine, model: LoadedModel) {
    this.#engine = engine;
    this.#model = model;
    this.#prompts = new Prompts(model.vocabSize);
  }

  /** Tokens per second of one sequence that has `depth` tokens before it. */
  async decode(depth: number, tokens: number): Promise<number> {
    return rateAfter(await this.#generate(depth, tokens));
  }

  /** Prompt tokens per second, from the call to the first token. */
  async prefill(length: number): Promise<number> {
    const start = performance.now();
    const [first] = await this.#generate(length, 1);
    return length / (((first?.at ?? NaN) - start) / 1000);
  }

  /** Tokens per second of `size` sequences together, counted while all of them decode. */
  async batch(size: number, tokens: number): Promise<number> {
    const traces = await Promise.all(Array.from({ length: size }, () => this.#generate(32, tokens)));
    const allRun = Math.max(...traces.map((trace) => trace[0]?.at ?? NaN));
    const firstEnd = Math.min(...traces.map((trace) => trace.at(-1)?.at ?? NaN));
    const counted = traces.flat().filter(({ at }) => at > allRun && at <= firstEnd);
    return counted.reduce((sum, delta) => sum + delta.tokens, 0) / ((firstEnd - allRun) / 1000);
  }

  /** Time of Node's thread per token, in microseconds, with `size` sequences running: the border and its iterators. */
  async borderCost(size: number, tokens: number): Promise<number> {
    const before = performance.eventLoopUtilization();
    const traces = await Promise.all(Array.from({ length: size }, () => this.#generate(32, tokens)));
    const { active } = performance.eventLoopUtilization(before);
    const total = traces.flat().reduce((sum, delta) => sum + delta.tokens, 0);
    return (active * 1000) / total;
  }

  async #generate(promptLength: number, maxTokens: number): Promise<Trace> {
    const request: GenerateRequest = {
      model: this.#model.handle,
      prompt: { ids: this.#prompts.ids(promptLength) },
      maxTokens,
      ignoreEos: true,
      sampling: { temperature: 0 },
    };
    const trace: { at: number; tokens: number }[] = [];
    for await (const event of this.#engine.generate(request)) {
      if (event.type === 'delta') trace.push({ at: performance.now(), tokens: event.nTokens });
    }
    return trace;
  }
}

/** Tokens per second after the first delta. */
function rateAfter(trace: Trace): number {
  const first = trace[0];
  const last = trace.at(-1);
  if (first === undefined || last === undefined || last === first) return NaN;
  const tokens = trace.slice(1).reduce((sum, delta) => sum + delta.tokens, 0);
  return tokens / ((last.at - first.at) / 1000);
}
