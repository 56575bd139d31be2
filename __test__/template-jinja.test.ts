import { expect } from 'chai';
import { TemplateRaised, TemplateRuntimeError, TemplateSyntaxError } from '../ts/chat/jinja/errors.js';
import { renderTemplate, type TemplateInput } from '../ts/chat/template-render.js';

function render(template: string, input: Partial<TemplateInput> = {}): string {
  return renderTemplate(
    { template, messages: [], addGenerationPrompt: false, continueFinalMessage: false, specialTokens: {}, ...input },
    1000,
  );
}

/** Template → what jinja2 3.1.6 renders with transformers' settings. */
const SAME_AS_PYTHON: Readonly<Record<string, string>> = {
  // Scopes: a set inside a loop ends with its round; an if has no scope.
  '{% for x in [1,2] %}{% if x == 1 %}{% set y = 5 %}{% endif %}[{{ y }}]{% endfor %}': '[5][]',
  '{% set y=1 %}{% for x in [1,2] %}{% set y = y+1 %}{{ y }}{% endfor %}{{ y }}': '221',
  '{% for x in [1,2,3] %}a{{x}}{% if x==2 %}{% break %}{% endif %}b{% endfor %}': 'a1ba2',
  '{% for x in [1,2] %}{% continue %}{% else %}e{% endfor %}': 'e',
  '{% for k, v in {"a": 1}.items() %}{{k}}{{v}}{% endfor %}': 'a1',
  '{% macro m(a,b=a) %}{{a}}{{b}}{{varargs}}{% endmacro %}{{ m(1) }}{{ m(1,2,3) }}': '11()12(3,)',
  '{% macro m() %}<{{ caller(1) }}>{% endmacro %}{% call(a) m() %}{{a}}{% endcall %}': '<1>',
  '{% set x | trim | upper %}  a {% endset %}[{{x}}]': '[A]',
  // Values: None, booleans, floats and containers print as in Python.
  '{{ none }} {{ true }} {{ 1/2 }} {{ [1, "a", none, 1.0] }} {{ {"k": (1,2)} }} {{ missing }}|':
    "None True 0.5 [1, 'a', None, 1.0] {'k': (1, 2)} |",
  "{{ [\"it's\", 'a\\nb'] }}": "[\"it's\", 'a\\nb']",
  "{{ '1' == 1 }} {{ [] == '' }} {{ none == missing }} {{ true == 1 }} {{ (1,2) == [1,2] }}":
    'False False False True False',
  "{{ {'items': 1}['items'] }} {{ 'x' in missing }} {{ missing is iterable }}": '1 False True',
  "{{ 'abc'[::-1] }} {{ '👩🏽‍🚀x'[-1] }} {{ 'é'|length }} {{ [1,2,3][1:] }}": 'cba x 1 [2, 3]',
  '{{ -7 // 2 }} {{ -7 % 3 }} {{ 2 ** -1 }} {{ 2.5|round }} {{ 2.675|round(2) }}': '-4 2 0.5 2.0 2.67',
  // Filters and tests.
  '{{ {"b": [1, 2.0, none, true, "é<\\""], "a": {}}|tojson }}': '{"b": [1, 2.0, null, true, "é<\\""], "a": {}}',
  "{{ [1, {'a': []}]|tojson(indent=2) }}": '[\n  1,\n  {\n    "a": []\n  }\n]',
  "{{ {'b':1,'a':2}|tojson(separators=(',',':'), sort_keys=true) }} {{ 'é'|tojson(ensure_ascii=true) }}":
    '{"a":2,"b":1} "\\u00e9"',
  '{{ \'a\\n\\nb\'|indent(2) }}|{{ "they\'re"|title }}|{{ "they\'re".title() }}': "a\n\n  b|They're|They'Re",
  "{{ [{'r':'u'},{}]|selectattr('r')|list }} {{ [3,1]|sort }} {{ ['a','A']|unique|list }}": "[{'r': 'u'}] [1, 3] ['a']",
  "{{ 6 is divisibleby(3) }} {{ 6 is not divisibleby 4 }} {{ 'a' is equalto 'a' }}": 'True True True',
  "{{ 'a b  c '.split(none, 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ 'xxaxx'.strip('x') }}":
    "['a', 'b  c '] ['a,b', 'c'] a",
  "{{ '%s-%03d' | format('x', 7) }} {{ '%s' % 'y' }} {{ 'abc'.replace('', '-') }}": 'x-007 y -a-b-c-',
  // White space and the generation tag.
  '  {% if true %}\n  a\n  {% endif %}\n b': '  a\n b',
  '{% generation %}x{% endgeneration %}': 'x',
};

const ERRORS: Readonly<Record<string, string>> = {
  "{{ 'a' + 1 }}": 'unsupported operand types',
  '{{ missing.foo }}': 'undefined',
  '{% for x in none %}{% endfor %}': 'not iterable',
  '{{ missing() }}': 'not callable',
  "{{ 'a' in none }}": 'not iterable',
  '{{ 1 < "a" }}': 'not supported',
  '{{ missing|tojson }}': 'not JSON serializable',
  '{{ range(1000000) }}': 'range too big',
  '{{ [1].append(2) }}': 'not callable',
  '{% for i in range(600) %}ab{% endfor %}': 'longer than 1000',
  "{{ 'x' * 100000 }}": 'longer than 1000',
  '{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}': 'call stack',
  "{{ ''.constructor.constructor('return process')() }}": 'undefined',
  '{{ {}.__proto__.x }}': 'undefined',
};

describe('template: Jinja as in Python', () => {
  for (const [template, expected] of Object.entries(SAME_AS_PYTHON)) {
    it(template.replaceAll('\n', '\\n'), () => expect(render(template)).to.equal(expected));
  }
  for (const [template, message] of Object.entries(ERRORS)) {
    it(`fails: ${template}`, () => expect(() => render(template)).to.throw(message));
  }

  it('tells the kinds of failure apart', () => {
    expect(() => render("{{ raise_exception('no') }}")).to.throw(TemplateRaised, 'no');
    expect(() => render('{% if %}')).to.throw(TemplateSyntaxError);
    expect(() => render('{% if true %}')).to.throw(TemplateSyntaxError);
    expect(() => render('{{ none + 1 }}')).to.throw(TemplateRuntimeError);
  });

  it('gives variables precedence over special tokens, and its own fields over both', () => {
    const template = '{{ bos_token }}{{ eos_token }}{{ messages|length }}';
    const input = { specialTokens: { bos_token: 'B', eos_token: 'E' }, variables: { eos_token: 'X', messages: 'no' } };
    expect(render(template, input)).to.equal('BX0');
  });

  it('knows the date', () => {
    const now = new Date('2026-01-05T09:07:03').getTime();
    const template = "{{ strftime_now('%d %b %Y, %A %-d %B %y %H:%M:%S %I%p %j %% %Q') }}";
    expect(render(template, { now })).to.equal('05 Jan 2026, Monday 5 January 26 09:07:03 09AM 005 % %Q');
  });
});

describe('template: continue_final_message', () => {
  const continued = (template: string, content: unknown): string =>
    render(template, {
      messages: [
        { role: 'user', content: 'q' },
        { role: 'assistant', content },
      ],
      continueFinalMessage: true,
    });

  it('ends right after the content', () => {
    expect(continued('{% for m in messages %}<{{ m.content }}>{% endfor %}', 'One, ')).to.equal('<q><One, ');
  });

  it('drops the white space that the template trims', () => {
    expect(continued('{% for m in messages %}<{{ m.content|trim }}>{% endfor %}', 'One, ')).to.equal('<q><One,');
  });

  it('continues the last text part', () => {
    const parts = [{ type: 'text', text: 'a' }, { type: 'text', text: 'b' }, { type: 'image' }];
    expect(
      continued('{% for m in messages[1:] %}{% for p in m.content %}{{ p.text }}{% endfor %}!{% endfor %}', parts),
    ).to.equal('ab');
  });

  it('fails when the template drops the message', () => {
    expect(() => continued('{{ messages[0].content }}', 'lost')).to.throw('cannot be continued');
  });
});
