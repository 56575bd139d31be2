/**
 * What an answer must match: tool calls in the family's own syntax, and response formats. Pure functions from what was
 * asked for to grammars; the engine holds the model to them.
 */

import type { GenerateRequest, Grammar } from '../engine/types.js';
import { argumentsRule, callRule } from './grammar/calls.js';
import { contentExpression } from './grammar/content.js';
import { anyOf, joined, Rules } from './grammar/rules.js';
import { BARE_CALLS, type ToolSyntax } from './formats/index.js';
import { type CompiledFormat, isMark, withMarks } from './output/marks.js';
import type { ReasoningState } from './output-parser.js';
import type { ResponseFormat, ToolDefinition } from './types.js';

/** Calls must be made, or a certain one. */
export type ForcedChoice = 'required' | { readonly name: string };

export interface Held {
  readonly constraint: NonNullable<GenerateRequest['constraint']>;
  /** By line of a Lark grammar, from 0: the tool whose schema it is. */
  readonly owners: readonly (string | undefined)[];
}

/**
 * Grammar of a whole answer that is one or several calls (`required`), or one call of one tool.
 * @param tools at least one
 * @param parallel several calls may be made
 */
export function toolGrammar(
  format: CompiledFormat,
  tools: readonly ToolDefinition[],
  choice: ForcedChoice,
  parallel: boolean,
  reasoning: ReasoningState = 'possible',
): Held {
  const rules = new Rules(format);
  const named = choice === 'required' ? tools : tools.filter((tool) => tool.name === choice.name);
  const calls = format.channels
    ? channelCall(rules, format, named)
    : callsExpression(rules, format, named, parallel && choice === 'required');
  return held(rules, joined(reasoningExpression(rules, format, reasoning), calls));
}

/**
 * For `auto`: what must follow once the model has begun a call. Undefined where nothing marks the beginning.
 */
export function triggeredToolGrammar(
  format: CompiledFormat,
  tools: readonly ToolDefinition[],
  parallel: boolean,
): Held | undefined {
  const rules = new Rules(format);
  if (format.channels) {
    // The dot may be one token with the name behind it.
    return held(rules, channelCallAfter(rules, format, tools), { texts: ['to=functions'] });
  }
  const syntax = format.tools;
  const open = syntax?.open[0];
  const source = format.source.tools?.open[0];
  if (syntax === undefined || open === undefined || source === undefined) return undefined;
  const id = format.ids.get(source);
  const isToken = isMark(open.charAt(0)) && open.length === 1;
  return held(rules, sectionExpression(rules, syntax, tools, parallel), {
    ...(id === undefined ? {} : { tokenIds: [id] }),
    ...(isToken ? {} : { texts: [open] }),
  });
}

/**
 * Grammar of a whole answer in a response format; tools that may be called are an alternative. Undefined for `text`.
 * @param tools empty if none may be called
 */
export function responseGrammar(
  format: CompiledFormat,
  wanted: ResponseFormat,
  tools: readonly ToolDefinition[] = [],
  parallel = true,
  reasoning: ReasoningState = 'possible',
): Held | undefined {
  if (wanted.type === 'text') return undefined;
  const thinks = format.channels || (format.reasoning !== undefined && reasoning !== 'closed');
  const rules = new Rules(format);
  if (!thinks && tools.length === 0) {
    if (wanted.type === 'json_object') return { constraint: { grammar: wanted }, owners: [] };
    const { schema, strict } = wanted;
    if (strict) return { constraint: { grammar: { type: 'json_schema', schema } }, owners: [] };
    return held(rules, responseJson(rules, wanted));
  }
  const before = reasoningExpression(rules, format, reasoning);
  const json = responseJson(rules, wanted);
  if (format.channels) {
    const final = joined(rules.text(withMarks('<|channel|>final<|message|>', format.marks)), json);
    const answers = tools.length === 0 ? [final] : [final, channelCall(rules, format, tools)];
    return held(rules, joined(before, anyOf(answers)));
  }
  const answers = tools.length === 0 ? [json] : [json, callsExpression(rules, format, tools, parallel)];
  return held(rules, joined(before, anyOf(answers)));
}

/**
 * Grammar of a whole answer, reasoning included, whose content matches a grammar of the request; tools that may be called
 * are an alternative.
 * @param tools empty if none may be called
 */
export function guidedGrammar(
  format: CompiledFormat,
  wanted: Grammar,
  tools: readonly ToolDefinition[] = [],
  parallel = true,
  reasoning: ReasoningState = 'possible',
): Held {
  const thinks = format.channels || (format.reasoning !== undefined && reasoning !== 'closed');
  if (!thinks && tools.length === 0) return { constraint: { grammar: wanted }, owners: [] };
  const rules = new Rules(format);
  const before = reasoningExpression(rules, format, reasoning);
  const content = contentExpression(rules, wanted);
  if (format.channels) {
    const final = joined(rules.text(withMarks('<|channel|>final<|message|>', format.marks)), content);
    const answers = tools.length === 0 ? [final] : [final, channelCall(rules, format, tools)];
    return held(rules, joined(before, anyOf(answers)));
  }
  const answers = tools.length === 0 ? [content] : [content, callsExpression(rules, format, tools, parallel)];
  return held(rules, joined(before, anyOf(answers)));
}

/** As the engine writes the same formats where nothing else may come. */
function responseJson(rules: Rules, wanted: Exclude<ResponseFormat, { type: 'text' }>): string {
  return wanted.type === 'json_object'
    ? rules.json({ type: 'object' }, { layout: 'free' })
    : rules.json(wanted.schema, { lenient: !wanted.strict });
}

function held(rules: Rules, start: string, trigger?: Held['constraint']['trigger']): Held {
  const grammar: Grammar = { type: 'lark', grammar: rules.grammar(start) };
  return { constraint: { grammar, ...(trigger === undefined ? {} : { trigger }) }, owners: rules.owners };
}

/** What may come before the answer proper. */
function reasoningExpression(rules: Rules, format: CompiledFormat, state: ReasoningState): string {
  const mark = (text: string): string => withMarks(text, format.marks);
  if (format.channels) {
    const head = mark('<|channel|>analysis<|message|>');
    const analysis = joined(rules.text(head), rules.until(mark('<|end|>')), rules.text(mark('<|start|>assistant')));
    return `(${analysis})?`;
  }
  const { reasoning } = format;
  if (reasoning === undefined || state === 'closed') return '';
  const rest = joined(rules.until(reasoning.close), '/\\n{0,2}/');
  return state === 'open' ? rest : `(${joined(rules.text(reasoning.open), rest)})?`;
}

/** A section, or sections, with their markers. Without a syntax of its own a model calls with a bare object. */
function callsExpression(
  rules: Rules,
  format: CompiledFormat,
  tools: readonly ToolDefinition[],
  parallel: boolean,
): string {
  const syntax = format.tools ?? BARE_CALLS;
  const [open] = syntax.open;
  // Where calls may stand bare the models were taught so.
  const marker = syntax.bare?.includes(syntax.calls[0].kind) === true && syntax.calls[0].kind === 'json' ? '' : open;
  return joined(rules.text(marker ?? ''), sectionExpression(rules, syntax, tools, parallel, marker === ''));
}

/** What follows the marker of a section, further sections included. */
function sectionExpression(
  rules: Rules,
  syntax: ToolSyntax,
  tools: readonly ToolDefinition[],
  parallel: boolean,
  bare = false,
): string {
  const [kind] = syntax.calls;
  const padding = rules.text(syntax.padding ?? '');
  const close = bare ? '' : rules.text(syntax.close ?? '');
  const call = callRule(rules, kind, tools);
  if ((kind.kind === 'json' && kind.list === true) || kind.kind === 'python') {
    const more = parallel ? `(", " ${call})*` : '';
    return joined('"["', call, more, '"]"', close);
  }
  const { several } = syntax;
  if (several !== undefined && 'inSection' in several) {
    const more = parallel ? `(${joined(rules.text(several.separator), call)})*` : '';
    return joined(padding, call, more, padding, close);
  }
  const one = joined(padding, call, padding, close);
  if (several === undefined || !parallel) return one;
  return joined(one, `(${joined(rules.text(`${several.separator}${syntax.open[0] ?? ''}`), one)})*`);
}

/** Harmony: one call, in a message of its own. */
function channelCall(rules: Rules, format: CompiledFormat, tools: readonly ToolDefinition[]): string {
  const mark = (text: string): string => withMarks(text, format.marks);
  const calls = tools.map((tool) =>
    joined(
      rules.text(mark(`<|channel|>commentary to=functions.${tool.name} <|constrain|>json<|message|>`)),
      argumentsRule(rules, tool),
    ),
  );
  return anyOf(calls.map((call) => rules.rule(call)));
}

/** The same from behind `to=functions`, which may stand before the channel or behind it. */
function channelCallAfter(rules: Rules, format: CompiledFormat, tools: readonly ToolDefinition[]): string {
  const mark = (text: string): string => rules.text(withMarks(text, format.marks));
  const json = `(" "? ${mark('<|constrain|>')} "json" | " json")?`;
  const header = rules.rule(joined(`(" "? ${mark('<|channel|>')} "commentary")?`, json, mark('<|message|>')));
  return anyOf(
    tools.map((tool) => rules.rule(joined(rules.text(`.${tool.name}`), header, argumentsRule(rules, tool)))),
  );
}
