/** Formats by data file: what a model wrote, and what must come of it however the text is cut. */

import { readdirSync, readFileSync } from 'node:fs';

import { expect } from 'chai';

import { FORMATS, pickFormat, plain } from '../ts/chat/formats/index.js';
import { compileFormat, OutputParser, type OutputEvent } from '../ts/chat/output-parser.js';
import type { ChatEvent, ToolDefinition } from '../ts/chat/types.js';
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

/** Templates that show calls as the model writes them. */
const WRITERS = [
  'cogito',
  'deepseek_r1_0528',
  'deepseek_r1_distill',
  'deepseek_r1_distill_llama',
  'deepseek_v3_1',
  'deepseek_v3_1224',
  'deepseekv3',
  'gemma4',
  'glm4moe',
  'gptoss',
  'granite4',
  'lfm2_2_5',
  'lfm2_2_5_vl',
  'llama3_1',
  'llama3_2',
  'llama3_2_vision',
  'qwen2_5',
  'qwen2_5_coder',
  'qwen3',
  'qwen3_0425',
  'qwen3_5_nothink',
  'qwen3_5_think',
  'qwen3_6',
  'qwen3_coder',
  'qwen3_instruct_2507',
  'qwen3_next',
  'qwen3_vl',
  'qwq',
];

describe('chat formats: a call in the history, as the template writes it, is read as that call', () => {
  let renderer: TemplateRenderer;
  before(() => (renderer = createTemplateRenderer()));
  after(() => renderer.close());

  const tools: ToolDefinition[] = [
    {
      name: 'get_weather',
      description: 'The weather',
      parameters: {
        type: 'object',
        properties: {
          city: { type: 'string', description: 'The city' },
          days: { type: 'integer', description: 'How many' },
        },
        required: ['city'],
      },
    },
  ];
  const given = { city: 'Saint-Étienne, "F" {42}', days: 3 };
  const toolCalls = [{ id: 'call_0', name: 'get_weather', arguments: JSON.stringify(given) }];
  const question = { role: 'user', content: 'Hi' } as const;
  const history = [
    question,
    { role: 'assistant', content: null, toolCalls },
    { role: 'tool', toolCallId: 'call_0', content: 'RESULT' },
  ] as const;

  for (const name of WRITERS) {
    it(name, async () => {
      const golden = read(TEMPLATES, `${name}.json`) as {
        readonly template: string;
        readonly special_tokens?: Readonly<Record<string, string>>;
      };
      const info = scriptedModel({ chatTemplate: golden.template, specialTokens: golden.special_tokens ?? {} });
      const prompt = await renderer.render(toTemplateInput(info, { messages: [question], tools }));
      const whole = await renderer.render(toTemplateInput(info, { messages: history, tools }));
      let same = 0;
      while (same < prompt.length && prompt[same] === whole[same]) same++;
      // Two tags may begin alike.
      const common = prompt.slice(0, same);
      if (common.lastIndexOf('<') > common.lastIndexOf('>')) same = common.lastIndexOf('<');
      const text = whole.slice(same, whole.indexOf('RESULT'));
      const format = compileFormat(pickFormat(golden.template, 'unknown'), new Map());
      const parser = new OutputParser({ format, tools, prompt: whole.slice(0, same) });
      const answer = foldEvents([...parser.push([{ text }]), ...parser.finish()]);
      expect(answer.calls, text).to.deep.equal([{ name: 'get_weather', arguments: given }]);
    });
  }
});
