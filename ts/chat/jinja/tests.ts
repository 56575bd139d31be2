/** Jinja's tests: what may stand after `is`. */

import { TemplateRuntimeError } from './errors.js';
import { isLower, isUpper } from './methods.js';
import type { Value } from './values.js';
import { Callable, compare, contains, equal, Float, integer, numeric, str, Tuple } from './values.js';

type Test = (value: Value, args: readonly Value[]) => boolean;

/** Throws TemplateRuntimeError for a test that does not exist. */
export function applyTest(name: string, value: Value, args: readonly Value[] = []): boolean {
  const test = tests.get(name);
  if (!test) throw new TemplateRuntimeError(`no test named '${name}'`);
  return test(value, args);
}

/** Python's remainder has the sign of the divisor. */
export function modulo(a: number, b: number): number {
  if (b === 0) throw new TemplateRuntimeError('modulo by zero');
  return ((a % b) + b) % b;
}

function isSequence(value: Value): boolean {
  // Undefined has a length (0) and subscripts, and so counts.
  return (
    value === undefined ||
    typeof value === 'string' ||
    Array.isArray(value) ||
    value instanceof Tuple ||
    value instanceof Map
  );
}

const equals: Test = (value, [other]) => equal(value, other);
const differs: Test = (value, [other]) => !equal(value, other);
const less: Test = (value, [other]) => compare(value, other) < 0;
const atMost: Test = (value, [other]) => compare(value, other) <= 0;
const greater: Test = (value, [other]) => compare(value, other) > 0;
const atLeast: Test = (value, [other]) => compare(value, other) >= 0;

const tests: ReadonlyMap<string, Test> = new Map<string, Test>([
  ['boolean', (value) => typeof value === 'boolean'],
  ['callable', (value) => value instanceof Callable],
  ['defined', (value) => value !== undefined],
  ['divisibleby', (value, [by]) => modulo(integer(value, 'the value'), integer(by, 'the divisor')) === 0],
  ['even', (value) => modulo(integer(value, 'the value'), 2) === 0],
  ['false', (value) => value === false],
  ['float', (value) => value instanceof Float],
  ['in', (value, [container]) => contains(container, value)],
  ['integer', (value) => typeof value === 'number'],
  ['iterable', isSequence],
  ['lower', (value) => isLower(str(value))],
  ['mapping', (value) => value instanceof Map],
  ['none', (value) => value === null],
  ['number', (value) => numeric(value) !== undefined],
  ['odd', (value) => modulo(integer(value, 'the value'), 2) === 1],
  ['sameas', (value, [other]) => value === other],
  ['sequence', isSequence],
  ['string', (value) => typeof value === 'string'],
  ['true', (value) => value === true],
  ['undefined', (value) => value === undefined],
  ['upper', (value) => isUpper(str(value))],
  ['eq', equals],
  ['equalto', equals],
  ['==', equals],
  ['ne', differs],
  ['!=', differs],
  ['lt', less],
  ['lessthan', less],
  ['<', less],
  ['le', atMost],
  ['<=', atMost],
  ['gt', greater],
  ['greaterthan', greater],
  ['>', greater],
  ['ge', atLeast],
  ['>=', atLeast],
]);
