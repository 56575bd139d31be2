import { expect } from 'chai';
import { readdirSync, readFileSync } from 'node:fs';
import { TemplateRaised } from '../ts/chat/jinja/errors.js';
import { renderTemplate } from '../ts/chat/template-render.js';

interface Golden {
  readonly template: string;
  readonly special_tokens: Record<string, string>;
  readonly strftime_now: string;
  readonly cases: readonly {
    readonly name: string;
    readonly messages: Record<string, unknown>[];
    readonly tools?: unknown[];
    readonly options?: { readonly add_generation_prompt?: boolean; readonly continue_final_message?: boolean };
    readonly kwargs?: Record<string, unknown>;
    readonly rendered?: string;
    readonly error?: { readonly type: string; readonly message: string };
  }[];
}

const FOLDER = new URL('../fixtures/golden/chat_templates/', import.meta.url);

/** `<file> <case>` → why it cannot be met. Nothing is skipped that is not named here. */
const NOT_MET: Readonly<Record<string, string>> = {};

function renderCase(golden: Golden, testCase: Golden['cases'][number]): string {
  const { documents, ...variables } = testCase.kwargs ?? {};
  return renderTemplate(
    {
      template: golden.template,
      messages: testCase.messages,
      tools: testCase.tools,
      documents: documents as unknown[] | undefined,
      addGenerationPrompt: testCase.options?.add_generation_prompt ?? false,
      continueFinalMessage: testCase.options?.continue_final_message ?? false,
      specialTokens: golden.special_tokens,
      variables,
      now: new Date(golden.strftime_now).getTime(),
    },
    1 << 20,
  );
}

describe('template: prompts equal to those of transformers', () => {
  const files = readdirSync(FOLDER).filter((file) => file.endsWith('.json') && file !== 'index.json');

  it('has the templates', () => {
    expect(files.length).to.equal(65);
  });

  for (const file of files) {
    const golden = JSON.parse(readFileSync(new URL(file, FOLDER), 'utf8')) as Golden;
    it(`${file}: ${golden.cases.length} cases`, () => {
      for (const testCase of golden.cases) {
        const name = `${file} ${testCase.name}`;
        if (NOT_MET[name]) continue;
        if (testCase.rendered !== undefined) {
          expect(renderCase(golden, testCase), name).to.equal(testCase.rendered);
        } else if (testCase.error?.type === 'TemplateError') {
          // The template's own words, which the user gets to read.
          expect(() => renderCase(golden, testCase), name).to.throw(TemplateRaised, testCase.error.message);
        } else {
          // Python's own errors: an error here too, with words of its own.
          expect(() => renderCase(golden, testCase), name).to.throw();
        }
      }
    });
  }
});
