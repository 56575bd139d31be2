/**
 * Runs a parsed template with the semantics of Python's Jinja.
 *
 * The package's own interpreter is written for the common cases: it scopes loops, compares and prints values the
 * JavaScript way, and knows some of the filters. Chat templates are code for the Python engine, and a prompt that
 * differs by one space is a different prompt, so the tree is walked here instead.
 */

import type {
  CallStatement,
  FilterNode,
  For,
  Macro,
  MemberExpression,
  Node,
  Parameter,
  Program,
  SetStatement,
} from './ast.js';
import { TemplateRuntimeError } from './errors.js';
import { applyFilter, itemOf } from './filters.js';
import { boundMethod } from './methods.js';
import { add, arithmetic, cut, join } from './operators.js';
import { TEST_FILTER } from './parse.js';
import { applyTest } from './tests.js';
import type { Keywords, Value } from './values.js';
import {
  Callable,
  compare,
  contains,
  equal,
  Float,
  iterate,
  Namespace,
  numeric,
  repr,
  str,
  text,
  truthy,
  Tuple,
  typeName,
} from './values.js';

/**
 * Renders to text. Throws TemplateRaised (from `raise_exception`) or TemplateRuntimeError, also when the text would
 * grow past `maxOutput` UTF-16 units.
 */
export function renderProgram(program: Program, globals: ReadonlyMap<string, Value>, maxOutput: number): string {
  const out = new Output(maxOutput);
  new Interpreter(maxOutput).block(program.body, new Scope(undefined, globals), out);
  return out.text;
}

const NO_KEYWORDS: Keywords = new Map();

class Scope {
  private readonly names: Map<string, Value>;

  constructor(
    private readonly parent: Scope | undefined,
    names: Iterable<readonly [string, Value]> = [],
  ) {
    this.names = new Map(names);
  }

  get(name: string): Value {
    return this.names.has(name) ? this.names.get(name) : this.parent?.get(name);
  }

  set(name: string, value: Value): void {
    this.names.set(name, value);
  }
}

class Output {
  text = '';

  constructor(private readonly limit: number) {}

  write(piece: string): void {
    if (this.text.length + piece.length > this.limit) {
      throw new TemplateRuntimeError(`the rendered prompt is longer than ${this.limit} characters`);
    }
    this.text += piece;
  }
}

/** How a block ended: by its last statement, or by `break` or `continue` of the loop around it. */
type Ending = 'done' | 'break' | 'continue';

/** What a template may allocate in all, in bytes or so, for each character of the longest prompt. */
const BYTES_PER_OUTPUT = 8;
/** Bytes or so that a list, a mapping or a macro takes, and each of its entries. */
const OBJECT_BYTES = 64;
const ENTRY_BYTES = 8;

class Interpreter {
  /** Bytes or so that may still be allocated. Never given back: it bounds what a template can hold on to. */
  private allowance: number;

  constructor(private readonly maxOutput: number) {
    this.allowance = Math.max(maxOutput, 1 << 20) * BYTES_PER_OUTPUT;
  }

  block(nodes: readonly Node[], scope: Scope, out: Output): Ending {
    for (const node of nodes) {
      const ending = this.statement(node, scope, out);
      if (ending !== 'done') return ending;
    }
    return 'done';
  }

  private statement(node: Node, scope: Scope, out: Output): Ending {
    switch (node.type) {
      case 'Comment':
        return 'done';
      case 'Break':
        return 'break';
      case 'Continue':
        return 'continue';
      case 'Program':
        return this.block(node.body, scope, out);
      case 'If':
        return this.block(truthy(this.value(node.test, scope)) ? node.body : node.alternate, scope, out);
      case 'For':
        this.loop(node, scope, out);
        return 'done';
      case 'Set':
        this.assign(node, scope);
        return 'done';
      case 'Macro':
        scope.set(node.name.value, this.macro(node, scope));
        return 'done';
      case 'CallStatement':
        out.write(this.callBlock(node, scope));
        return 'done';
      case 'FilterStatement':
        out.write(str(this.filter(node.filter, this.capture(node.body, new Scope(scope)), scope)));
        return 'done';
      default:
        out.write(str(this.value(node, scope)));
        return 'done';
    }
  }

  private capture(nodes: readonly Node[], scope: Scope): string {
    const out = new Output(this.maxOutput);
    this.block(nodes, scope, out);
    return this.made(out.text);
  }

  private loop(node: For, scope: Scope, out: Output): void {
    const source = node.iterable.type === 'SelectExpression' ? node.iterable.lhs : node.iterable;
    let items = iterate(this.value(source, scope));
    if (node.iterable.type === 'SelectExpression') {
      const { test } = node.iterable;
      items = items.filter((item) => {
        const inner = new Scope(scope);
        this.unpack(node.loopvar, item, inner);
        return truthy(this.value(test, inner));
      });
    }
    let completed = false;
    let changed: readonly Value[] | undefined;
    const hasChanged = new Callable('changed', (args) => {
      const same = changed?.length === args.length && args.every((arg, i) => equal(arg, changed?.[i]));
      changed = args;
      return !same;
    });
    for (const [index, item] of items.entries()) {
      // Each round has its own names: a `set` inside is gone in the next one.
      const inner = new Scope(scope);
      inner.set('loop', loopVariable(items, index, hasChanged));
      this.unpack(node.loopvar, item, inner);
      const ending = this.block(node.body, inner, out);
      if (ending === 'break') break;
      completed ||= ending === 'done';
    }
    // As in Python's Jinja, `else` also runs when no round came to its end.
    if (!completed) this.block(node.defaultBlock, new Scope(scope), out);
  }

  private unpack(target: Node, value: Value, scope: Scope): void {
    if (target.type === 'Identifier') {
      scope.set(target.value, value);
    } else if (target.type === 'TupleLiteral') {
      const items = iterate(value);
      if (items.length !== target.value.length) {
        throw new TemplateRuntimeError(`expected ${target.value.length} values to unpack, got ${items.length}`);
      }
      target.value.forEach((name, i) => this.unpack(name, items[i], scope));
    } else if (target.type === 'MemberExpression' && !target.computed && target.property.type === 'Identifier') {
      const object = this.value(target.object, scope);
      if (!(object instanceof Namespace))
        throw new TemplateRuntimeError('cannot assign attribute on non-namespace object');
      object.fields.set(target.property.value, value);
    } else {
      throw new TemplateRuntimeError(`cannot assign to ${target.type}`);
    }
  }

  private assign(node: SetStatement, scope: Scope): void {
    if (node.value) {
      this.unpack(node.assignee, this.value(node.value, scope), scope);
      return;
    }
    const captured = this.capture(node.body, new Scope(scope));
    // {% set name | trim | upper %}…{% endset %}: the filters apply to what was captured, the first one first.
    const filters: FilterNode[] = [];
    let target = node.assignee;
    for (; target.type === 'FilterExpression'; target = target.operand) filters.unshift(target.filter);
    const value = filters.reduce<Value>((operand, filter) => this.filter(filter, operand, scope), captured);
    this.unpack(target, value, scope);
  }

  private macro(node: Macro, scope: Scope): Callable {
    return this.callable(node.name.value, node.args, node.body, scope);
  }

  private callBlock(node: CallStatement, scope: Scope): string {
    const caller = this.callable('caller', node.callerArgs ?? [], node.body, scope);
    const [args, keywords] = this.args(node.call.args, scope);
    return str(this.invoke(this.value(node.call.callee, scope), args, new Map([...keywords, ['caller', caller]])));
  }

  /** A macro: its body rendered in the scope it was defined in, plus its arguments. */
  private callable(name: string, parameters: readonly Parameter[], body: readonly Node[], scope: Scope): Callable {
    this.made(undefined, OBJECT_BYTES);
    return new Callable(name, (args, keywords) => {
      const inner = new Scope(scope);
      const rest = new Map(keywords);
      inner.set('caller', rest.get('caller'));
      rest.delete('caller');
      parameters.forEach((parameter, i) => {
        const key = parameter.type === 'Identifier' ? parameter.value : parameter.key.value;
        let value = i < args.length ? args[i] : rest.get(key);
        if (i >= args.length && !rest.has(key) && parameter.type !== 'Identifier')
          value = this.value(parameter.value, inner);
        rest.delete(key);
        inner.set(key, value);
      });
      inner.set('varargs', new Tuple(args.slice(parameters.length)));
      inner.set('kwargs', new Map(rest));
      return this.capture(body, inner);
    });
  }

  /** Counts a new value against the allowance. */
  private made<T extends Value>(value: T, bytes = allocated(value)): T {
    this.allowance -= bytes;
    if (this.allowance < 0) throw new TemplateRuntimeError('the template needs too much memory');
    return value;
  }

  private value(node: Node, scope: Scope): Value {
    switch (node.type) {
      case 'IntegerLiteral':
      case 'StringLiteral':
        return node.value;
      case 'FloatLiteral':
        return new Float(node.value);
      case 'ArrayLiteral':
        return this.made(node.value.map((item) => this.value(item, scope)));
      case 'TupleLiteral':
        return this.made(new Tuple(node.value.map((item) => this.value(item, scope))));
      case 'ObjectLiteral':
        return this.made(
          new Map([...node.value].map(([key, item]) => [this.value(key, scope), this.value(item, scope)])),
        );
      case 'Identifier':
        return scope.get(node.value);
      case 'MemberExpression':
        return this.member(node, scope);
      case 'CallExpression': {
        const callee = this.value(node.callee, scope);
        return this.invoke(callee, ...this.args(node.args, scope));
      }
      case 'FilterExpression':
        return this.filter(node.filter, this.value(node.operand, scope), scope);
      case 'TestExpression':
        return applyTest(node.test.value, this.value(node.operand, scope)) !== node.negate;
      case 'Ternary':
        return this.value(truthy(this.value(node.condition, scope)) ? node.trueExpr : node.falseExpr, scope);
      case 'SelectExpression':
        return truthy(this.value(node.test, scope)) ? this.value(node.lhs, scope) : undefined;
      case 'UnaryExpression':
        return unary(node.operator.value, this.value(node.argument, scope));
      case 'BinaryExpression':
        return this.binary(node.operator.value, node.left, node.right, scope);
      default:
        throw new TemplateRuntimeError(`unexpected ${node.type}`);
    }
  }

  private member(node: MemberExpression, scope: Scope): Value {
    const object = this.value(node.object, scope);
    const { property } = node;
    if (node.computed) {
      if (property.type !== 'SliceExpression') return itemOf(object, this.value(property, scope));
      const bound = (end: Node | undefined): Value => (end ? this.value(end, scope) : null);
      return this.made(cut(object, bound(property.start), bound(property.stop), bound(property.step)));
    }
    if (property.type === 'IntegerLiteral') return itemOf(object, property.value);
    if (property.type !== 'Identifier') throw new TemplateRuntimeError(`unexpected ${property.type} after a dot`);
    // A dot finds methods before items, brackets the other way round.
    return boundMethod(object, property.value) ?? itemOf(object, property.value);
  }

  private invoke(callee: Value, args: readonly Value[], keywords: Keywords): Value {
    if (callee instanceof Callable) return this.made(callee.call(args, keywords));
    throw new TemplateRuntimeError(
      `${callee === undefined ? 'an undefined value' : `'${typeName(callee)}' object`} is not callable`,
    );
  }

  private args(nodes: readonly Node[], scope: Scope): [Value[], Keywords] {
    const args: Value[] = [];
    const keywords = new Map<string, Value>();
    for (const node of nodes) {
      if (node.type === 'KeywordArgumentExpression') {
        keywords.set(node.key.value, this.value(node.value, scope));
      } else if (node.type === 'SpreadExpression') {
        args.push(...iterate(this.value(node.argument, scope)));
      } else if (node.type === 'KeywordSpreadExpression') {
        const mapping = this.value(node.argument, scope);
        if (!(mapping instanceof Map)) throw new TemplateRuntimeError('argument after ** must be a mapping');
        for (const [key, value] of mapping) keywords.set(text(key, 'a keyword'), value);
      } else {
        args.push(this.value(node, scope));
      }
    }
    return [args, keywords];
  }

  private filter(node: FilterNode, operand: Value, scope: Scope): Value {
    if (node.type === 'Identifier') return this.made(applyFilter(node.value, operand, [], NO_KEYWORDS));
    const [args, keywords] = this.args(node.args, scope);
    if (node.callee.type !== 'Identifier') throw new TemplateRuntimeError('a filter must be a name');
    const name = node.callee.value;
    if (!name.startsWith(TEST_FILTER)) return this.made(applyFilter(name, operand, args, keywords));
    const test = name.slice(TEST_FILTER.length);
    const negated = test.startsWith('not ');
    return applyTest(negated ? test.slice('not '.length) : test, operand, args) !== negated;
  }

  /** JavaScript keeps both sides, so a long text that grows by small pieces costs only the pieces. */
  private concatenated(left: string, right: string): string {
    return this.made(join(left, right), Math.min(left.length, right.length) + OBJECT_BYTES / 2);
  }

  private binary(operator: string, leftNode: Node, rightNode: Node, scope: Scope): Value {
    const left = this.value(leftNode, scope);
    if (operator === 'and') return truthy(left) ? this.value(rightNode, scope) : left;
    if (operator === 'or') return truthy(left) ? left : this.value(rightNode, scope);
    const right = this.value(rightNode, scope);
    switch (operator) {
      case '==':
        return equal(left, right);
      case '!=':
        return !equal(left, right);
      case '<':
        return compare(left, right) < 0;
      case '<=':
        return compare(left, right) <= 0;
      case '>':
        return compare(left, right) > 0;
      case '>=':
        return compare(left, right) >= 0;
      case 'in':
        return contains(right, left);
      case 'not in':
        return !contains(right, left);
      case '~':
        return this.concatenated(str(left), str(right));
      case '+':
        if (typeof left === 'string' && typeof right === 'string') return this.concatenated(left, right);
        return this.made(add(left, right));
      default:
        return this.made(arithmetic(operator, left, right));
    }
  }
}

/** Bytes or so of a value itself, without what it holds. */
function allocated(value: Value): number {
  if (typeof value === 'string') return value.length;
  if (value === null || typeof value !== 'object' || value instanceof Float || value instanceof Callable) return 0;
  const entries =
    value instanceof Map ? value.size : value instanceof Namespace ? value.fields.size : iterate(value).length;
  return OBJECT_BYTES + entries * ENTRY_BYTES;
}

function unary(operator: string, value: Value): Value {
  if (operator === 'not') return !truthy(value);
  const number = numeric(value);
  if (number === undefined)
    throw new TemplateRuntimeError(`bad operand type for unary ${operator}: '${typeName(value)}'`);
  const result = operator === '-' ? -number : number;
  return value instanceof Float ? new Float(result) : result === 0 ? 0 : result;
}

function loopVariable(items: readonly Value[], index: number, changed: Callable): Namespace {
  const cycle = new Callable('cycle', (args) => args[index % args.length]);
  return new Namespace([
    ['index', index + 1],
    ['index0', index],
    ['revindex', items.length - index],
    ['revindex0', items.length - index - 1],
    ['first', index === 0],
    ['last', index === items.length - 1],
    ['length', items.length],
    ['previtem', index > 0 ? items[index - 1] : undefined],
    ['nextitem', items[index + 1]],
    ['cycle', cycle],
    ['changed', changed],
  ]);
}

/** `namespace(…)` and `dict(…)` take a mapping or pairs, then keywords. */
export function pairsOf(args: readonly Value[], keywords: Keywords): [string, Value][] {
  const [source] = args;
  const pairs =
    source instanceof Map ? [...source] : source === undefined ? [] : iterate(source).map((pair) => [...iterate(pair)]);
  const named = pairs.map(([key, value]): [string, Value] => [typeof key === 'string' ? key : repr(key), value]);
  return [...named, ...keywords];
}
