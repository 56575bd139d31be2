/** Formats by data file: what a model wrote, and what must come of it however the text is cut. */

import { readdirSync, readFileSync } from 'node:fs';

import { expect } from 'chai';

import { FORMATS, pickFormat, plain } from '../ts/chat/formats/index.js';
import { compileFormat, OutputParser, type OutputEvent, reasoningState } from '../ts/chat/output-parser.js';
import type { ChatEvent, ChatMessage, ToolDefinition } from '../ts/chat/types.js';
import { writeCalls } from '../ts/chat/template-dialect.js';
import { toTemplateInput } from '../ts/chat/template-input.js';
import { createTemplateRenderer, type TemplateRenderer } from '../ts/chat/template.js';
import type { FinishReason, TextPiece } from '../ts/engine/types.js';
import { foldEvents, type FoldedAnswer } from './helpers/fold-events.js';
import { scriptedModel } from './helpers/scripted-engine.js';
import { TIMINGS, USAGE } from './helpers/scripted-events.js';

type WrittenPiece = string | { readonly special: string };

interface FormatCase {
  readonly name: string;
  readonly prompt?: string;
  /** Default: they are. */
  readonly offered?: boolean;
  readonly parallel?: boolean;
  readonly continues?: boolean;
  readonly reason?: FinishReason;
  readonly pieces: readonly WrittenPiece[];
  readonly expect: FoldedAnswer;
}

interface FormatFile {
  readonly format: string;
  /** Golden templates that must lead to the format. */
  readonly template?: readonly string[];
  /** Special tokens of the vocabulary. */
  readonly special: readonly string[];
  readonly tools: readonly ToolDefinition[];
  readonly prompt?: string;
  readonly cases: readonly FormatCase[];
}

const FILES = new URL('./formats/', import.meta.url);
const TEMPLATES = new URL('../fixtures/golden/chat_templates/', import.meta.url);

const files = readdirSync(FILES).map((name) => ({
  name: name.replace('.json', ''),
  ...(read(FILES, name) as FormatFile),
}));

function read(folder: URL, name: string): unknown {
  return JSON.parse(readFileSync(new URL(name, folder), 'utf8'));
}

/** Deltas of an engine for what was written; texts are cut at the given places of the whole. */
function piecesOf(file: FormatFile, written: readonly WrittenPiece[], isCut: (at: number) => boolean): TextPiece[][] {
  const deltas: TextPiece[][] = [[]];
  let at = 0;
  const cut = (): void => {
    if (isCut(at)) deltas.push([]);
    at++;
  };
  for (const piece of written) {
    if (typeof piece !== 'string') {
      cut();
      deltas.at(-1)!.push({ text: piece.special, special: 1000 + file.special.indexOf(piece.special) });
      continue;
    }
    let text = '';
    for (const unit of piece.split('')) {
      if (isCut(at) && text !== '') {
        deltas.at(-1)!.push({ text });
        text = '';
      }
      cut();
      text += unit;
    }
    if (text !== '') deltas.at(-1)!.push({ text });
  }
  return deltas;
}

function parse(file: FormatFile, example: FormatCase, deltas: readonly TextPiece[][]): ChatEvent[] {
  const format = [...FORMATS, plain].find((one) => one.name === file.format);
  if (format === undefined) throw new Error(`no such format: ${file.format}`);
  let ids = 0;
  const prompt = example.prompt ?? file.prompt;
  const parser = new OutputParser({
    format: compileFormat(format, new Map(file.special.map((token, id) => [token, { id, special: true }]))),
    tools: example.offered === false ? [] : file.tools,
    parallel: example.parallel ?? true,
    continues: example.continues ?? false,
    newId: () => `call_${ids++}`,
    ...(prompt === undefined ? {} : { prompt }),
  });
  const events: OutputEvent[] = deltas.flatMap((pieces) => parser.push(pieces));
  events.push(...parser.finish());
  const reason = parser.finishReason(example.reason ?? 'stop');
  return [...events, { type: 'finished', reason, usage: USAGE, timings: TIMINGS }];
}

/** Numbers that look random and are the same each time (mulberry32). */
function randoms(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

describe('chat formats', () => {
  for (const file of files) {
    describe(file.name, () => {
      for (const name of file.template ?? []) {
        it(`is what the template ${name} speaks`, () => {
          const { template } = read(TEMPLATES, `${name}.json`) as { readonly template: string };
          expect(pickFormat(template, 'unknown').name).to.equal(file.format);
        });
      }
      for (const example of file.cases) {
        it(example.name, () => {
          const whole = parse(
            file,
            example,
            piecesOf(file, example.pieces, () => false),
          );
          expect(foldEvents(whole), 'in one delta').to.deep.equal(example.expect);
          const each = parse(
            file,
            example,
            piecesOf(file, example.pieces, () => true),
          );
          expect(foldEvents(each), 'character by character').to.deep.equal(example.expect);
          const length = example.pieces.reduce((sum, piece) => sum + (typeof piece === 'string' ? piece.length : 1), 0);
          for (let place = 1; place < length; place++) {
            const two = parse(
              file,
              example,
              piecesOf(file, example.pieces, (at) => at === place),
            );
            expect(foldEvents(two), `cut at ${place}`).to.deep.equal(example.expect);
          }
          const random = randoms(length);
          for (let round = 0; round < 30; round++) {
            const deltas = piecesOf(file, example.pieces, () => random() < 0.3);
            expect(foldEvents(parse(file, example, deltas)), `random cuts, round ${round}`).to.deep.equal(
              example.expect,
            );
          }
        });
      }
    });
  }
});

/** SmolLM3's template in short: tools by a name of its own, and no calls in the history. */
const SMOLLM3 = `{%- if xml_tools -%}<|im_start|>system
<tools>
{% for tool in xml_tools[:] %}{{ tool | string }}
{% endfor %}</tools>
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call><|im_end|>
{% endif -%}
{%- for message in messages -%}
{{ "<|im_start|>" + ("user" if message.role == "tool" else message.role) + "\\n" + message.content + "<|im_end|>\\n" }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ "<|im_start|>assistant\\n" }}{%- endif -%}`;

/** Templates with tools, and how many calls of one turn they can show. */
const WRITERS: Readonly<Record<string, 'one' | 'several'>> = {
  cogito: 'several',
  deepseek_r1_0528: 'several',
  deepseek_r1_distill: 'several',
  deepseek_r1_distill_llama: 'several',
  deepseek_v3_1: 'several',
  deepseek_v3_1224: 'several',
  deepseekv3: 'several',
  gemma4: 'several',
  glm4: 'one',
  glm4moe: 'several',
  gptoss: 'one',
  granite3_3: 'several',
  granite4: 'several',
  lfm2: 'several',
  lfm2_2_5: 'several',
  lfm2_2_5_vl: 'several',
  llama3_1: 'one',
  llama3_2: 'one',
  llama3_2_vision: 'one',
  llama4: 'several',
  nemotron_mini: 'several',
  phi4_mini: 'several',
  qwen2_5: 'several',
  qwen2_5_coder: 'several',
  qwen3: 'several',
  qwen3_0425: 'several',
  qwen3_5_nothink: 'several',
  qwen3_5_think: 'several',
  qwen3_6: 'several',
  qwen3_coder: 'several',
  qwen3_instruct_2507: 'several',
  qwen3_next: 'several',
  qwen3_vl: 'several',
  qwq: 'several',
  smollm3: 'several',
};

describe('chat formats: calls in the history, as the template shows them, are read as those calls', () => {
  let renderer: TemplateRenderer;
  before(() => (renderer = createTemplateRenderer()));
  after(() => renderer.close());

  const described = (schema: object): object => ({ description: 'Any', ...schema });
  const tools: ToolDefinition[] = [
    {
      name: 'get_weather',
      description: 'The weather',
      parameters: {
        type: 'object',
        properties: {
          city: described({ type: 'string' }),
          days: described({ type: 'integer' }),
          near: described({ type: 'object' }),
          tags: described({ type: 'array', items: { type: 'string' } }),
          factor: described({ type: 'number' }),
          exact: described({ type: 'boolean' }),
        },
        required: ['city'],
      },
    },
    { name: 'get_time', description: 'The time', parameters: { type: 'object', properties: {} } },
  ];
  const given = {
    city: 'Saint-Étienne, "F" {42}\nit\'s 日本 😀',
    days: 3,
    near: { a: [1, null, 'z'], b: true },
    tags: ['p, q', 'r'],
    factor: -1.5,
    exact: false,
  };
  const weather = { id: 'call_0', name: 'get_weather', arguments: JSON.stringify(given) };
  const time = { id: 'call_1', name: 'get_time', arguments: '{}' };
  const question = { role: 'user', content: 'Hi' } as const;

  for (const [name, capacity] of Object.entries(WRITERS)) {
    const { template, special_tokens: specialTokens = {} } = (
      name === 'smollm3' ? { template: SMOLLM3 } : read(TEMPLATES, `${name}.json`)
    ) as { readonly template: string; readonly special_tokens?: Readonly<Record<string, string>> };
    const info = scriptedModel({ chatTemplate: template, specialTokens, family: 'unknown' });

    for (const calls of capacity === 'one' ? [[weather]] : [[weather], [time, weather]]) {
      it(`${name}, ${calls.length === 1 ? 'one' : 'two'}`, async () => {
        const history: ChatMessage[] = [
          question,
          { role: 'assistant', content: null, toolCalls: calls },
          ...calls.map((call) => ({ role: 'tool', toolCallId: call.id, content: 'RESULT' }) as const),
        ];
        const prompt = await renderer.render(toTemplateInput(info, { messages: [question], tools }));
        expect(prompt, 'the tools are shown').to.satisfy(
          (text: string) => text.includes('get_weather') || name.startsWith('deepseek'),
        );
        const whole = await renderer.render(toTemplateInput(info, { messages: history, tools }));
        let same = 0;
        while (same < prompt.length && prompt[same] === whole[same]) same++;
        // Two tags may begin alike.
        const common = prompt.slice(0, same);
        if (common.lastIndexOf('<') > common.lastIndexOf('>')) same = common.lastIndexOf('<');
        const text = whole.slice(same, whole.indexOf('RESULT'));
        const format = compileFormat(pickFormat(template, 'unknown'), new Map());
        const random = randoms(text.length);
        const answer = (isCut: (at: number) => boolean): FoldedAnswer => {
          const parser = new OutputParser({ format, tools, prompt: whole.slice(0, same) });
          const events: OutputEvent[] = [];
          let start = 0;
          for (let at = 1; at <= text.length; at++) {
            if (at < text.length && !isCut(at)) continue;
            events.push(...parser.push([{ text: text.slice(start, at) }]));
            start = at;
          }
          return foldEvents([...events, ...parser.finish()]);
        };
        const expected = calls.map((call) => ({ name: call.name, arguments: JSON.parse(call.arguments) as unknown }));
        expect(answer(() => false).calls, text).to.deep.equal(expected);
        expect(answer(() => true).calls, text).to.deep.equal(expected);
        for (let round = 0; round < 20; round++) {
          expect(answer(() => random() < 0.2).calls, text).to.deep.equal(expected);
        }
        // Wherever the limit cuts it off, what was said is a beginning of the calls.
        for (let end = 0; end < text.length; end++) {
          const parser = new OutputParser({ format, tools, prompt: whole.slice(0, same) });
          const { calls: begun = [] } = foldEvents([
            ...parser.push([{ text: text.slice(0, end) }]),
            ...parser.finish(),
          ]);
          for (const [index, call] of begun.entries()) {
            expect(call.name, text.slice(0, end)).to.equal(expected[index]?.name);
            if (call.whole !== false) expect(call, text.slice(0, end)).to.deep.equal(expected[index]);
          }
        }
      });
    }
  }

  it('are read back from what we write for templates that show none', () => {
    for (const format of FORMATS) {
      if (format.tools === undefined) continue;
      const calls = [weather, time].map((call) => ({
        name: call.name,
        arguments: JSON.parse(call.arguments) as object,
      }));
      const text = writeCalls(format.tools, calls);
      if (text === undefined) continue;
      const parser = new OutputParser({ format: compileFormat(format, new Map()), tools });
      expect(
        foldEvents([...parser.push([{ text }]), ...parser.finish()]).calls,
        `${format.name}: ${text}`,
      ).to.deep.equal(calls);
    }
  });
});

describe('chat formats: what a reasoning effort makes of the prompt, and the parser of the answer', () => {
  let renderer: TemplateRenderer;
  before(() => (renderer = createTemplateRenderer()));
  after(() => renderer.close());

  /** Without an effort, with `none`, with `high`. */
  const STATES: Readonly<Record<string, readonly [string, string, string]>> = {
    deepseek_r1_distill: ['open', 'open', 'open'],
    deepseek_v3_1: ['closed', 'closed', 'open'],
    glm4moe: ['possible', 'closed', 'possible'],
    phi4_reasoning: ['possible', 'possible', 'possible'],
    qwen3: ['possible', 'closed', 'possible'],
    qwen3_5_nothink: ['closed', 'closed', 'open'],
    qwen3_5_think: ['open', 'closed', 'open'],
    qwen3_6: ['open', 'closed', 'open'],
    qwen3_next: ['open', 'open', 'open'],
  };
  for (const [name, states] of Object.entries(STATES)) {
    it(name, async () => {
      const golden = read(TEMPLATES, `${name}.json`) as { template: string; special_tokens?: Record<string, string> };
      const info = scriptedModel({ chatTemplate: golden.template, specialTokens: golden.special_tokens ?? {} });
      const format = compileFormat(pickFormat(golden.template, 'unknown'), new Map());
      const { open, close } = format.reasoning ?? { open: '', close: '' };
      for (const [index, effort] of [undefined, 'none', 'high'].entries()) {
        const templateVariables = effort === undefined ? {} : { reasoning_effort: effort };
        const messages = [{ role: 'user', content: 'What is <think>?' }] as const;
        const prompt = await renderer.render(toTemplateInput(info, { messages, templateVariables }));
        const state = reasoningState(format, prompt, false);
        expect(state, effort).to.equal(states[index]);
        const text = { open: `So.${close}\n\nYes.`, closed: 'Yes.', possible: `${open}\nSo.\n${close}\n\nYes.` }[state];
        const parser = new OutputParser({ format, prompt });
        expect(foldEvents([...parser.push([{ text }]), ...parser.finish()])).to.deep.equal({
          ...(state === 'closed' ? {} : { reasoning: 'So.' }),
          content: 'Yes.',
        });
      }
    });
  }

  it('switches that only change the text of the prompt', async () => {
    const shown = async (name: string, effort: string): Promise<string> => {
      const golden = read(TEMPLATES, `${name}.json`) as { template: string; special_tokens?: Record<string, string> };
      const info = scriptedModel({ chatTemplate: golden.template, specialTokens: golden.special_tokens ?? {} });
      const messages = [{ role: 'user', content: 'Hi' }] as const;
      return renderer.render(toTemplateInput(info, { messages, templateVariables: { reasoning_effort: effort } }));
    };
    expect(await shown('gptoss', 'xhigh')).to.contain('Reasoning: high');
    expect(await shown('gptoss', 'none')).to.contain('Reasoning: low');
    for (const name of ['cogito', 'gemma4', 'granite3_3']) {
      const [without, withIt] = [await shown(name, 'none'), await shown(name, 'high')];
      expect(withIt.length, name).to.be.greaterThan(without.length);
    }
  });
});
