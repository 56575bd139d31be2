/** Arithmetic, concatenation and slices with Python's rules. */

import { TemplateRuntimeError } from './errors.js';
import { percentFormat } from './filters.js';
import { modulo } from './tests.js';
import type { Value } from './values.js';
import { characters, fit, Float, integer, numeric, sequenceItems, str, Tuple, typeName } from './values.js';

export function add(left: Value, right: Value): Value {
  if (typeof left === 'string' && typeof right === 'string') return join(left, right);
  if (Array.isArray(left) && Array.isArray(right)) {
    fit(left.length + right.length);
    return [...left, ...right];
  }
  if (left instanceof Tuple && right instanceof Tuple) {
    fit(left.items.length + right.items.length);
    return new Tuple([...left.items, ...right.items]);
  }
  return arithmetic('+', left, right);
}

export function arithmetic(operator: string, left: Value, right: Value): Value {
  if (operator === '%' && typeof left === 'string') {
    if (right instanceof Map) return percentFormat(left, [], right);
    return percentFormat(left, right instanceof Tuple ? right.items : [right]);
  }
  const a = numeric(left);
  const b = numeric(right);
  if (operator === '*' && (a === undefined || b === undefined)) return repeat(left, right);
  if (a === undefined || b === undefined) {
    throw new TemplateRuntimeError(
      `unsupported operand types for ${operator}: '${typeName(left)}' and '${typeName(right)}'`,
    );
  }
  const result = compute(operator, a, b);
  const isFloat = left instanceof Float || right instanceof Float || operator === '/' || (operator === '**' && b < 0);
  return isFloat ? new Float(result) : result;
}

function compute(operator: string, a: number, b: number): number {
  switch (operator) {
    case '+':
      return a + b;
    case '-':
      return a - b;
    case '*':
      return a * b;
    case '**':
      return a ** b;
    case '%':
      return modulo(a, b);
    case '/':
    case '//':
      if (b === 0) throw new TemplateRuntimeError('division by zero');
      return operator === '/' ? a / b : Math.floor(a / b);
    default:
      throw new TemplateRuntimeError(`unknown operator ${operator}`);
  }
}

function repeat(left: Value, right: Value): Value {
  const [what, times] = typeof left === 'number' ? [right, left] : [left, right];
  const items = typeof what === 'string' ? what : sequenceItems(what);
  if (items === undefined || typeof times !== 'number') {
    throw new TemplateRuntimeError(`unsupported operand types for *: '${typeName(left)}' and '${typeName(right)}'`);
  }
  const count = Math.max(0, times);
  fit(items.length * count);
  if (typeof items === 'string') return items.repeat(count);
  const repeated = Array.from({ length: count }, () => items).flat();
  return what instanceof Tuple ? new Tuple(repeated) : repeated;
}

/** `left ~ right`, and `+` of two strings. */
export function join(left: string, right: string): string {
  fit(left.length + right.length);
  return left + right;
}

/** `value[start:stop:step]`; null stands for a bound that is left out. */
export function cut(value: Value, start: Value, stop: Value, step: Value): Value {
  const items = typeof value === 'string' ? characters(value) : sequenceItems(value);
  if (!items) throw new TemplateRuntimeError(`'${typeName(value)}' object cannot be sliced`);
  const by = step === null ? 1 : integer(step, 'a slice step');
  if (by === 0) throw new TemplateRuntimeError('slice step cannot be zero');
  const [low, high] = by > 0 ? [0, items.length] : [-1, items.length - 1];
  const bound = (given: Value, otherwise: number): number => {
    if (given === null) return otherwise;
    const at = integer(given, 'a slice bound');
    return Math.min(Math.max(at < 0 ? at + items.length : at, low), high);
  };
  const from = bound(start, by > 0 ? low : high);
  const to = bound(stop, by > 0 ? high : low);
  const out: Value[] = [];
  for (let at = from; by > 0 ? at < to : at > to; at += by) out.push(items[at]);
  if (typeof value === 'string') return out.map(str).join('');
  return value instanceof Tuple ? new Tuple(out) : out;
}
