/** The calls of some tools as a grammar, in the family's own syntax. */

import type { CallSyntax } from '../formats/index.js';
import { propertyNames, propertyOf, type Schema, typesOf } from '../output/schema.js';
import type { ToolDefinition } from '../types.js';
import { closedSchema } from './closed.js';
import { isClosed, type LiteralDialect, LiteralRules, withDefinitions } from './literals.js';
import { anyOf, joined, type Rules } from './rules.js';

/** Any one call of the tools. */
export function callRule(rules: Rules, syntax: CallSyntax, tools: readonly ToolDefinition[]): string {
  return rules.rule(anyOf(tools.map((tool) => rules.of(tool.name, () => rules.rule(oneCall(rules, syntax, tool))))));
}

function oneCall(rules: Rules, syntax: CallSyntax, tool: ToolDefinition): string {
  const schema = tool.parameters;
  switch (syntax.kind) {
    case 'json': {
      const head = `{${JSON.stringify(syntax.name)}: ${JSON.stringify(tool.name)}, ${JSON.stringify(syntax.arguments)}: `;
      return joined(rules.text(head), argumentsRule(rules, tool), rules.text('}'));
    }
    case 'named':
      return joined(
        rules.text(`${syntax.before}${tool.name}${syntax.between}`),
        argumentsRule(rules, tool),
        rules.text(syntax.after),
      );
    case 'tagged':
      return tagged(rules, syntax, tool);
    case 'object': {
      const dialect: LiteralDialect = {
        string: joined(rules.text(syntax.quote), rules.until(syntax.quote)),
        exactly: (text) => rules.text(`${syntax.quote}${text}${syntax.quote}`),
        words: { true: 'true', false: 'false', null: 'null' },
        separator: '","',
        key: (name) => rules.text(`${name}:`),
        anyKey: '/[A-Za-z0-9_.-]+:/',
        jsonObjects: false,
      };
      const literals = new LiteralRules(rules, dialect, tool);
      return joined(rules.text(`${syntax.before}${tool.name}{`), literals.members(schema), rules.text('}'));
    }
    case 'python': {
      const dialect: LiteralDialect = {
        string: '/"([^"\\\\\\n]|\\\\.)*"/',
        exactly: (text) => JSON.stringify(JSON.stringify(text)),
        words: { true: 'True', false: 'False', null: 'None' },
        separator: '", "',
        key: (name) => rules.text(`${name}=`),
        anyKey: '/[A-Za-z_][A-Za-z0-9_]*=/',
        jsonObjects: true,
      };
      const literals = new LiteralRules(rules, dialect, tool);
      return joined(rules.text(`${tool.name}(`), literals.members(schema), rules.text(')'));
    }
  }
}

/**
 * Arguments as JSON. A strict tool's schema is taken at its word; of others what is not understood is left out, and what
 * they do not list is not made up.
 */
export function argumentsRule(rules: Rules, tool: ToolDefinition): string {
  const schema = tool.parameters ?? { type: 'object', properties: {}, additionalProperties: false };
  // Arguments are an object, also where the schema does not say so.
  const lenient = tool.strict !== true;
  return rules.of(tool.name, () =>
    rules.json({ ...(lenient ? closedSchema(schema) : schema), type: 'object' }, { lenient }),
  );
}

function tagged(rules: Rules, syntax: CallSyntax & { kind: 'tagged' }, tool: ToolDefinition): string {
  const schema = tool.parameters;
  const line = syntax.lines ? '\n' : '';
  // A tag of GLM's stands in a line of its own, Qwen's value does.
  const beforeValue = syntax.valueOpen === '' ? line : `\n${syntax.valueOpen}`;
  const end = `${line}${syntax.valueClose}`;
  const required: readonly unknown[] = Array.isArray(schema?.['required']) ? schema['required'] : [];
  const names = propertyNames(schema);
  const parameters = names.map((name) => {
    const value = taggedValue(rules, propertyOf(schema, name), tool, end);
    const key = rules.text(`${syntax.keyOpen}${name}${syntax.keyClose}${beforeValue}`);
    const rule = rules.rule(joined(key, value, rules.text('\n')));
    return required.includes(name) ? rule : `${rule}?`;
  });
  if (names.length === 0 && !isClosed(schema)) {
    const key = joined(rules.text(syntax.keyOpen), '/[A-Za-z0-9_.-]+/', rules.text(`${syntax.keyClose}${beforeValue}`));
    parameters.push(`${rules.rule(joined(key, rules.until(end), rules.text('\n')))}*`);
  }
  const name = `${syntax.nameOpen}${tool.name}${syntax.nameClose}${syntax.nameClose.endsWith('\n') ? '' : '\n'}`;
  return joined(rules.text(name), ...parameters, rules.text(syntax.close));
}

/** A value and what ends it. */
function taggedValue(rules: Rules, schema: Schema, tool: ToolDefinition, end: string): string {
  const root = tool.parameters;
  const types = typesOf(schema, root);
  const choices = typeof schema === 'object' ? schema['enum'] : undefined;
  if (types === undefined || types.has('string')) {
    if (Array.isArray(choices) && choices.every((choice) => typeof choice === 'string')) {
      return joined(anyOf(choices.map((choice) => rules.text(choice))), rules.text(end));
    }
    return rules.until(end);
  }
  return joined(rules.json(withDefinitions(schema, root), { lenient: tool.strict !== true }), rules.text(end));
}
