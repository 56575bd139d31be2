/** A grammar that the request brings, as an expression within ours. */

import type { Grammar } from '../../engine/types.js';
import { anyOf, type Rules } from './rules.js';

export function contentExpression(rules: Rules, wanted: Grammar): string {
  switch (wanted.type) {
    case 'json_object':
      return rules.json({ type: 'object' }, { layout: 'free' });
    case 'json_schema':
      return rules.json(wanted.schema === true ? {} : wanted.schema);
    case 'regex':
      return rules.rule(`/${inline(wanted.pattern)}/`);
    case 'choice':
      return rules.rule(anyOf(wanted.choices.map((choice) => JSON.stringify(choice))));
    case 'lark':
      // With rules of its own, and its own `start`.
      return rules.rule(`%lark {\n${wanted.grammar}\n}`);
  }
}

/** A slash would end it, a line the rule. */
function inline(pattern: string): string {
  return pattern.replace(/\\.|\/|\n/gs, (part) => ({ '/': '\\/', '\n': '\\n' })[part] ?? part);
}
