/**
 * Grammars, penalties and seeds on real weights. `TSSERVE_SCHEMAS=200` fills that many random schemas instead of a few.
 */

import { Ajv2020 } from 'ajv/dist/2020.js';
import { expect } from 'chai';

import { createNativeEngine } from '../ts/engine/native.js';
import { EngineError, type Engine, type GenerateRequest, type LoadedModel } from '../ts/engine/types.js';
import { BARE_CALLS, FORMATS, plain } from '../ts/chat/formats/index.js';
import { compileFormat, OutputParser } from '../ts/chat/output-parser.js';
import { toolGrammar, triggeredToolGrammar } from '../ts/chat/tool-grammar.js';
import { foldEvents } from './helpers/fold-events.js';
import { randomSchema } from './helpers/random-schema.js';
import { realModelPath } from './helpers/real-models.js';

const SCHEMAS = Number(process.env.TSSERVE_SCHEMAS ?? 12);
const AT_ONCE = 8;

interface Answer {
  readonly text: string;
  readonly reason: string;
  readonly completionTokens: number;
  /** Deltas: less than tokens where some were forced. */
  readonly steps: number;
}

/** Without bounds: syntaxes that are not JSON hold to names, types and choices only. */
function loosely(schema: object): object {
  return JSON.parse(JSON.stringify(schema), (key, value: unknown) =>
    ['maxLength', 'minimum', 'maximum', 'maxItems'].includes(key) ? undefined : value,
  ) as object;
}

describe('grammars on real weights', function () {
  this.timeout(Math.max(300_000, SCHEMAS * 10_000));
  let engine: Engine;
  let model: LoadedModel;

  before(async () => {
    engine = createNativeEngine();
    model = await engine.load({ model: realModelPath('smollm2-135m-instruct-q4_1'), maxModelLen: 2048 });
  });
  after(() => engine.close());

  const ask = async (prompt: string, options: Omit<GenerateRequest, 'model' | 'prompt'>): Promise<Answer> => {
    const text = `<|im_start|>user\n${prompt}<|im_end|>\n<|im_start|>assistant\n`;
    const request = { maxTokens: 64, ...options, model: model.handle, prompt: { text, addSpecialTokens: false } };
    let answer = '';
    let steps = 0;
    for await (const event of engine.generate(request)) {
      if (event.type === 'delta') {
        steps++;
        answer += event.pieces.map((piece) => (piece.special === undefined ? piece.text : '')).join('');
      } else if (event.type === 'finished') {
        return { text: answer, reason: event.reason, completionTokens: event.usage.completionTokens, steps };
      }
    }
    throw new Error('it did not finish');
  };

  const failure = async (options: Omit<GenerateRequest, 'model' | 'prompt'>): Promise<EngineError> => {
    try {
      await ask('Hi', options);
    } catch (error) {
      if (error instanceof EngineError) return error;
      throw error;
    }
    throw new Error('it was accepted');
  };

  it(`fills ${String(SCHEMAS)} random schemas`, async () => {
    const ajv = new Ajv2020({ strict: false, formats: { date: true, uuid: true, ipv4: true } });
    const failures: string[] = [];
    let [tokens, steps] = [0, 0];
    const fill = async (seed: number): Promise<void> => {
      const schema = randomSchema(seed);
      const answer = await ask(`Make up a JSON object for this schema: ${JSON.stringify(schema)}`.slice(0, 1500), {
        maxTokens: 1000,
        constraint: { grammar: { type: 'json_schema', schema } },
        sampling: seed % 2 === 0 ? { temperature: 0 } : { temperature: 0.9, seed },
      }).catch((error: unknown) => ({ text: String(error), reason: 'failed', completionTokens: 0, steps: 0 }));
      tokens += answer.completionTokens;
      steps += answer.steps;
      const validate = ajv.compile(schema);
      const valid = answer.reason === 'stop' && validate(JSON.parse(answer.text));
      if (!valid) failures.push(`${String(seed)}: ${answer.reason} ${answer.text} ${ajv.errorsText(validate.errors)}`);
    };
    const seeds = Array.from({ length: SCHEMAS }, (_, seed) => seed).values();
    const worker = async (): Promise<void> => {
      for (const seed of seeds) await fill(seed);
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
    expect(failures.join('\n')).to.equal('');
    // Forced tokens share a step with the one before them.
    expect(steps).to.be.lessThan(tokens);
  });

  it('holds answers to every kind of grammar', async () => {
    const choice = await ask('What is the capital of France?', {
      constraint: { grammar: { type: 'choice', choices: ['Berlin', 'Paris', 'Madrid'] } },
    });
    expect(choice).to.include({ text: 'Paris', reason: 'stop' });
    const regex = await ask('When did the war end?', {
      constraint: { grammar: { type: 'regex', pattern: 'In (19|20)[0-9]{2}\\.' } },
    });
    expect(regex.text).to.match(/^In (19|20)[0-9]{2}\.$/);
    const object = await ask('Describe a cat as JSON with a name and an age.', {
      maxTokens: 300,
      constraint: { grammar: { type: 'json_object' } },
    });
    if (object.reason === 'stop') expect(JSON.parse(object.text)).to.be.an('object');
    const lark = await ask('Add.', {
      constraint: { grammar: { type: 'lark', grammar: 'start: /[0-9]/ (" + " /[0-9]/){2}' } },
    });
    expect(lark.text).to.match(/^[0-9] \+ [0-9] \+ [0-9]$/);
  });

  describe('a demanded call is one in every family’s syntax', () => {
    const parameters = {
      type: 'object',
      properties: {
        city: { type: 'string', maxLength: 20 },
        unit: { enum: ['celsius', 'fahrenheit'] },
        days: { type: 'integer', minimum: 1, maximum: 9 },
        near: { $ref: '#/$defs/place' },
        factor: { anyOf: [{ type: 'number' }, { type: 'null' }] },
        exact: { type: 'boolean' },
        tags: { type: 'array', items: { type: 'string', maxLength: 8 }, maxItems: 2 },
      },
      required: ['city', 'unit', 'days', 'near', 'exact'],
      additionalProperties: false,
      $defs: {
        place: {
          type: 'object',
          properties: { name: { type: 'string', maxLength: 12 }, kind: { $ref: '#/$defs/kind' } },
          required: ['name'],
          additionalProperties: false,
        },
        kind: { enum: ['river', 'sea', 3, null] },
      },
    };
    const tools = [
      { name: 'get_weather', description: 'The weather', parameters },
      { name: 'get_time', description: 'The time' },
    ];
    const ajv = new Ajv2020({ strict: false });

    for (const source of [...FORMATS, plain]) {
      it(source.name, async () => {
        const compiled = compileFormat(source, new Map());
        const format = source.channels === true ? compiled : { ...compiled, tools: compiled.tools ?? BARE_CALLS };
        const fits = ajv.compile(
          source.tools?.calls[0].kind === 'json' || source.channels === true ? parameters : loosely(parameters),
        );
        const choices = [{ name: 'get_weather' }, 'required', { name: 'get_time' }] as const;
        const held = choices.map((choice) => toolGrammar(format, tools, choice, true, 'closed').constraint);
        const answers = await Promise.all(
          held.map((constraint) =>
            ask('What is the weather in Paris today?', { maxTokens: 300, constraint, sampling: { temperature: 0 } }),
          ),
        );
        let whole = 0;
        for (const [index, { text, reason }] of answers.entries()) {
          const parser = new OutputParser({ format, tools });
          const { calls = [], content = '' } = foldEvents([...parser.push([{ text }]), ...parser.finish()]);
          expect(content.trim(), text).to.equal('');
          expect(calls, text).to.not.have.length(0);
          // A small model may write for ever where the syntax bounds nothing; cut off it is no whole call.
          if (reason === 'stop') whole++;
          else continue;
          for (const call of calls) {
            expect(call.whole, text).to.not.equal(false);
            if (call.name === 'get_weather')
              expect(fits(call.arguments), `${text}\n${ajv.errorsText(fits.errors)}`).to.equal(true);
            else expect(call, text).to.deep.equal({ name: 'get_time', arguments: {} });
          }
          const [wanted] = [choices[index]];
          if (typeof wanted === 'object') expect(calls.map(({ name }) => name)).to.deep.equal([wanted.name]);
        }
        expect(whole).to.be.at.least(1);
        // Under auto the same must be a grammar too; that it is switched on is for other tests.
        const triggered = triggeredToolGrammar(format, tools, true);
        if (triggered !== undefined) await ask('Hi', { maxTokens: 2, constraint: triggered.constraint });
      });
    }
  });

  it('switches a grammar on at a marker and off again', async () => {
    const answer = await ask('Repeat exactly: The answer is <b>7</b> and <b>8</b>.', {
      maxTokens: 60,
      sampling: { temperature: 0, logitBias: {} },
      constraint: { grammar: { type: 'choice', choices: ['<<forced>>'] }, trigger: { texts: ['answer is'] } },
    });
    const [, after] = answer.text.split('answer is');
    if (after !== undefined) expect(after.startsWith('<<forced>>')).to.equal(true);
    expect(answer.text).to.include('answer is<<forced>>');
  });

  it('gives the same answer for a seed whatever else runs', async () => {
    const options: Omit<GenerateRequest, 'model' | 'prompt'> = {
      maxTokens: 60,
      sampling: { temperature: 1, seed: 5, repetitionPenalty: 1.2, presencePenalty: 0.3, noRepeatNgramSize: 3 },
      constraint: { grammar: { type: 'regex', pattern: '[A-Za-z ,.]{40,200}' } },
    };
    const alone = await ask('Tell me a story.', options);
    const others = Array.from({ length: 6 }, (_, i) =>
      ask(`Tell me about ${String(i)}.`, { maxTokens: 40, sampling: { temperature: 1 } }),
    );
    const again = await ask('Tell me a story.', options);
    await Promise.all(others);
    expect(again.text).to.equal(alone.text);
  });

  it('applies biases, bans and least lengths', async () => {
    const plain = await ask('Count: 1 2 3', { maxTokens: 8 });
    const ids = await engine.tokenize(model.handle, plain.text, false);
    const first = ids[0] ?? 0;
    const biased = await ask('Count: 1 2 3', { maxTokens: 8, sampling: { logitBias: { [first]: -100 } } });
    const banned = await ask('Count: 1 2 3', { maxTokens: 8, sampling: { suppressTokens: [first] } });
    expect(biased.text).to.equal(banned.text).and.not.equal(plain.text);
    const yes = await ask('Say yes.', { sampling: { minTokens: 20 }, maxTokens: 24 });
    expect(yes.completionTokens).to.be.at.least(20);
  });

  it('refuses what it cannot follow, with the reason', async () => {
    const bad = await failure({ constraint: { grammar: { type: 'json_schema', schema: { type: 'thing' } } } });
    expect(bad).to.include({ code: 'invalid_request', param: 'constraint' });
    expect(bad.message).to.include('thing');
    const regex = await failure({ constraint: { grammar: { type: 'regex', pattern: '(' } } });
    expect(regex).to.include({ code: 'invalid_request', param: 'constraint' });
    const deep = JSON.parse(`${'{"items":'.repeat(500)}{}${'}'.repeat(500)}`) as Record<string, unknown>;
    expect(await failure({ constraint: { grammar: { type: 'json_schema', schema: deep } } })).to.include({
      code: 'invalid_request',
    });
    expect(await failure({ sampling: { logitBias: { 10_000_000: 1 } } })).to.include({ param: 'logitBias' });
    expect(await failure({ sampling: { repetitionPenalty: -1 } })).to.include({ param: 'repetitionPenalty' });
    expect(await failure({ sampling: { minTokens: 65 } })).to.include({ param: 'minTokens' });
  });
});
