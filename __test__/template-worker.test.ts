import { expect } from 'chai';
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { createTemplateRenderer, type TemplateInput, type TemplateRenderer } from '../ts/chat/template.js';
import { EngineError } from '../ts/engine/types.js';
import { rejection } from './helpers/rejection.js';

const input = (template: string, content = 'hi'): TemplateInput => ({
  template,
  messages: [{ role: 'user', content }],
  addGenerationPrompt: true,
  continueFinalMessage: false,
  specialTokens: {},
});

/** 10^15 rounds: no machine ends it. */
const ENDLESS = `${'{% for i in range(99999) %}'.repeat(3)}{% endfor %}{% endfor %}{% endfor %}`;
const rounds = (start: string, step: string, end = ''): string =>
  `{% set ns = namespace(x=${start}) %}{% for i in range(90000) %}{% for j in range(90000) %}{% set ns.x = ${step} %}{% endfor %}{% endfor %}${end}`;
/** Each would fill the heap, and a heap that overflows in one big step ends the process, not the worker. */
const GREEDY: Readonly<Record<string, string>> = {
  'a doubled list': rounds('[1]', 'ns.x + ns.x'),
  'a doubled text': rounds("'ab'", 'ns.x + ns.x'),
  'a nested list': rounds('[]', '[ns.x]'),
  'a repeated list': '{{ [1] * 1000000000 }}',
  'a repeated text': "{% set x = 'ab' * 8000000 %}{{ x.replace('a', x) }}",
  'a wide number': "{{ '%999999999d'|format(1) }}{{ 'x'.center(999999999) }}",
  'a list in itself': `{% set ns = namespace(x=[1]) %}{% for i in range(40) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x|tojson }}`,
  'a printed list in itself': `{% set ns = namespace(x=[1]) %}{% for i in range(40) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}`,
  'captured texts':
    "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set t %}{{ 'ab' * 4000000 }}{% endset %}{% set ns.x = ns.x + [t] %}{% endfor %}",
  'joined texts': "{{ range(99999)|join('ab' * 100000) }}",
  characters: "{{ ('\u5b57' * 16000000)[1:]|length }}",
  words: "{{ ('a ' * 8000000).split()|length }}",
  'kept namespaces': rounds('[]', 'namespace(y=ns.x)'),
};

describe('template: the worker', () => {
  let renderer: TemplateRenderer;
  afterEach(async () => renderer.close());

  it('renders, again and at once', async () => {
    renderer = createTemplateRenderer();
    const contents = Array.from({ length: 20 }, (_, i) => `message ${i}`);
    const rendered = await Promise.all(
      contents.map((content) => renderer.render(input('{{ messages[0].content }}!', content))),
    );
    expect(rendered).to.deep.equal(contents.map((content) => `${content}!`));
  });

  it('stops an endless template, and the next rendering works', async () => {
    renderer = createTemplateRenderer({ timeoutMs: 100 });
    const endless = renderer.render(input(ENDLESS));
    const waiting = renderer.render(input('{{ messages[0].content }}'));
    const error = await rejection(endless, EngineError);
    expect(error.code).to.equal('template_error');
    expect(error.message).to.contain('100 ms');
    expect(await waiting).to.equal('hi');
    expect(await renderer.render(input('after'))).to.equal('after');
  });

  it('stops templates that would fill the memory', async () => {
    renderer = createTemplateRenderer({ timeoutMs: 20_000 });
    for (const [name, template] of Object.entries(GREEDY)) {
      const error = await rejection(renderer.render(input(template)), EngineError);
      expect(error.code, name).to.equal('template_error');
      expect(error.message, name).to.match(/too much memory|larger than/);
    }
    expect(await renderer.render(input('after'))).to.equal('after');
  });

  it('bounds the length of the prompt', async () => {
    renderer = createTemplateRenderer({ maxOutput: 100 });
    const error = await rejection(renderer.render(input('{% for i in range(101) %}x{% endfor %}')), EngineError);
    expect(error.code).to.equal('template_error');
    expect(error.message).to.contain('100');
  });

  it('says what the template says', async () => {
    renderer = createTemplateRenderer();
    const error = await rejection(renderer.render(input("{{ raise_exception('roles must alternate') }}")), EngineError);
    expect(error).to.include({ code: 'template_error', param: 'messages' });
    expect(error.message).to.contain('roles must alternate');
    expect((await rejection(renderer.render(input('{% if %}')), EngineError)).code).to.equal('template_error');
  });

  it('refuses variables that are not data', async () => {
    renderer = createTemplateRenderer();
    const variables = { f: () => 1 };
    expect((await rejection(renderer.render({ ...input('x'), variables }), EngineError)).code).to.equal(
      'invalid_request',
    );
    expect(await renderer.render(input('after'))).to.equal('after');
  });

  it('lets a waiter go on abort', async () => {
    renderer = createTemplateRenderer();
    const abort = new AbortController();
    const aborted = renderer.render(input('x'), abort.signal);
    const other = renderer.render(input('y'));
    abort.abort();
    expect((await rejection(aborted, EngineError)).code).to.equal('cancelled');
    expect(await other).to.equal('y');
    expect((await rejection(renderer.render(input('x'), abort.signal), EngineError)).code).to.equal('cancelled');
  });

  it('fails what waits when it is closed', async () => {
    renderer = createTemplateRenderer();
    const waiting = rejection(renderer.render(input('x')), EngineError);
    await renderer.close();
    expect((await waiting).code).to.equal('closed');
    expect((await rejection(renderer.render(input('x')), EngineError)).code).to.equal('closed');
  });

  it('keeps a script alive while it renders, and no longer', async () => {
    renderer = createTemplateRenderer();
    const script = fileURLToPath(new URL('./helpers/render-and-end.ts', import.meta.url));
    const { stdout } = await promisify(execFile)(process.execPath, ['--import', 'tsx', script], { timeout: 20_000 });
    expect(stdout).to.equal('rendered: hi\n');
  });
});
