/** Jinja's filters, with transformers' `tojson`. A filter gets its operand, the arguments and the interpreter's reach. */

import { TemplateRuntimeError } from './errors.js';
import { boundMethod, capitalize, joinTexts, replaceText, splitLines, strip, zeroFill } from './methods.js';
import { applyTest } from './tests.js';
import type { Keywords, Value } from './values.js';
import {
  characters,
  compare,
  divisible,
  equal,
  fit,
  Float,
  integer,
  iterate,
  lengthOf,
  Namespace,
  numeric,
  repr,
  str,
  text,
  toJson,
  truthy,
  Tuple,
  typeName,
} from './values.js';

/** Nobody indents deeper; a hostile template might. */
const MAX_INDENT = 1000;

type Filter = (operand: Value, args: readonly Value[], keywords: Keywords) => Value;

/** Throws TemplateRuntimeError for a filter that does not exist or an operand that it does not take. */
export function applyFilter(name: string, operand: Value, args: readonly Value[], keywords: Keywords): Value {
  const filter = filters.get(name);
  if (!filter) throw new TemplateRuntimeError(`no filter named '${name}'`);
  return filter(operand, args, keywords);
}

/** `obj.name`, as filters with `attribute=` see it: dotted paths, integers as indices, items before methods. */
export function attributeOf(value: Value, path: Value): Value {
  if (typeof path === 'number') return itemOf(value, path);
  let current = value;
  for (const part of text(path, 'attribute').split('.')) {
    current = /^\d+$/.test(part) ? itemOf(current, Number(part)) : itemOf(current, part);
  }
  return current;
}

/** `obj[key]`: Undefined if there is no such item; asking Undefined itself is an error. */
export function itemOf(value: Value, key: Value): Value {
  if (value === undefined) throw new TemplateRuntimeError(`'undefined' has no attribute ${repr(key)}`);
  if (value instanceof Map) {
    // A bool and the equal int are one key in Python; templates do not use either.
    if (value.has(key)) return value.get(key);
  } else if (value instanceof Namespace) {
    return typeof key === 'string' ? value.fields.get(key) : undefined;
  } else if (typeof key === 'number' || typeof key === 'boolean') {
    const items =
      typeof value === 'string'
        ? characters(value)
        : Array.isArray(value) || value instanceof Tuple
          ? iterate(value)
          : [];
    return items.at(Number(key));
  }
  return typeof key === 'string' ? boundMethod(value, key) : undefined;
}

class Arguments {
  constructor(
    private readonly args: readonly Value[],
    private readonly keywords: Keywords,
  ) {}

  at(index: number, name: string, otherwise?: Value): Value {
    if (index < this.args.length) return this.args[index];
    return this.keywords.has(name) ? this.keywords.get(name) : otherwise;
  }
}

/** The function that `map`, `sort`, `unique`… look at items through. */
function by(attribute: Value, otherwise?: Value): (item: Value) => Value {
  if (attribute === undefined || attribute === null) return (item) => item;
  return (item) => {
    const value = attributeOf(item, attribute);
    return value === undefined ? otherwise : value;
  };
}

/** Strings are compared without case unless asked. */
function folded(caseSensitive: Value, key: (item: Value) => Value): (item: Value) => Value {
  if (truthy(caseSensitive)) return key;
  return (item) => {
    const value = key(item);
    return typeof value === 'string' ? value.toLowerCase() : value;
  };
}

function sorted(items: readonly Value[], key: (item: Value) => Value, reverse: Value): Value[] {
  const sign = truthy(reverse) ? -1 : 1;
  return [...items].sort((a, b) => sign * compare(key(a), key(b)));
}

function unique(items: readonly Value[], key: (item: Value) => Value): Value[] {
  const seen: Value[] = [];
  return items.filter((item) => {
    const value = key(item);
    if (seen.some((other) => equal(other, value))) return false;
    seen.push(value);
    return true;
  });
}

function extreme(sign: 1 | -1): Filter {
  return (operand, args, keywords) => {
    const given = new Arguments(args, keywords);
    const key = folded(given.at(0, 'case_sensitive'), by(given.at(1, 'attribute')));
    const [first, ...rest] = iterate(operand);
    return rest.reduce<Value>((best, item) => (sign * compare(key(item), key(best)) < 0 ? item : best), first);
  };
}

function select(keep: boolean, withAttribute: boolean): Filter {
  return (operand, args) => {
    const [attribute, rest] = withAttribute ? [args[0], args.slice(1)] : [undefined, args];
    const [test, ...testArgs] = rest;
    const key = by(attribute);
    return iterate(operand).filter((item) => {
      const value = key(item);
      return keep === (test === undefined ? truthy(value) : applyTest(text(test, 'the test'), value, testArgs));
    });
  };
}

function map(operand: Value, args: readonly Value[], keywords: Keywords): Value {
  const [name, ...rest] = args;
  if (name === undefined) return iterate(operand).map(by(keywords.get('attribute'), keywords.get('default')));
  return iterate(operand).map((item) => applyFilter(text(name, 'the filter'), item, rest, keywords));
}

function join(operand: Value, args: readonly Value[], keywords: Keywords): string {
  const given = new Arguments(args, keywords);
  return joinTexts(
    iterate(operand)
      .map(by(given.at(1, 'attribute')))
      .map(str),
    str(given.at(0, 'd', '')),
  );
}

function tojson(operand: Value, args: readonly Value[], keywords: Keywords): string {
  const given = new Arguments(args, keywords);
  const indent = given.at(1, 'indent', null);
  const separators = given.at(2, 'separators', null);
  const [item, key] = separators === null ? [indent === null ? ', ' : ',', ': '] : iterate(separators);
  return toJson(operand, {
    ensureAscii: truthy(given.at(0, 'ensure_ascii', false)),
    indent:
      indent === null
        ? undefined
        : typeof indent === 'string'
          ? indent
          : ' '.repeat(Math.min(MAX_INDENT, Math.max(0, integer(indent, 'indent')))),
    itemSeparator: text(item, 'a separator'),
    keySeparator: text(key, 'a separator'),
    sortKeys: truthy(given.at(3, 'sort_keys', false)),
  });
}

function indent(operand: Value, args: readonly Value[], keywords: Keywords): string {
  const given = new Arguments(args, keywords);
  const width = given.at(0, 'width', 4);
  const indention =
    typeof width === 'string' ? width : ' '.repeat(Math.min(MAX_INDENT, Math.max(0, integer(width, 'width'))));
  // Jinja adds a newline so that splitting keeps an empty last line.
  const lines = splitLines(`${str(operand)}\n`);
  fit(lines.length * indention.length);
  const blank = truthy(given.at(2, 'blank'));
  const [first = '', ...rest] = lines;
  const body = [first, ...rest.map((line) => (blank || line !== '' ? indention + line : line))].join('\n');
  return truthy(given.at(1, 'first')) ? indention + body : body;
}

function toInt(operand: Value, args: readonly Value[], keywords: Keywords): Value {
  const given = new Arguments(args, keywords);
  const number = numeric(operand);
  if (number !== undefined) return Number.isFinite(number) ? Math.trunc(number) : given.at(0, 'default', 0);
  const source = typeof operand === 'string' ? strip(operand).replace(/(?<=\d)_(?=\d)/g, '') : '';
  const base = integer(given.at(1, 'base', 10), 'base');
  if (base !== 10) {
    const parsed = Number.parseInt(source.replace(/^0[xob]/i, ''), base);
    return Number.isNaN(parsed) ? given.at(0, 'default', 0) : parsed;
  }
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(source) ? Math.trunc(Number(source)) : given.at(0, 'default', 0);
}

function toFloat(operand: Value, args: readonly Value[], keywords: Keywords): Value {
  const number =
    numeric(operand) ?? (typeof operand === 'string' && strip(operand) !== '' ? Number(strip(operand)) : Number.NaN);
  return Number.isNaN(number) ? new Arguments(args, keywords).at(0, 'default', new Float(0)) : new Float(number);
}

function round(operand: Value, args: readonly Value[], keywords: Keywords): Value {
  const given = new Arguments(args, keywords);
  const precision = integer(given.at(0, 'precision', 0), 'precision');
  const method = given.at(1, 'method', 'common');
  const number = numeric(operand);
  if (number === undefined) throw new TemplateRuntimeError(`type ${typeName(operand)} cannot be rounded`);
  if (method === 'ceil' || method === 'floor')
    return new Float(Math[method](number * 10 ** precision) / 10 ** precision);
  return new Float(roundHalfEven(number, precision));
}

/** Python's round(): a number that lies exactly between two goes to the even one; toFixed goes away from zero. */
function roundHalfEven(value: number, precision: number): number {
  if (precision < 0) return roundHalfEven(value * 10 ** precision, 0) / 10 ** precision;
  const digits = Math.min(precision, 40);
  // Sixty more digits show the double's exact value as far as it matters here.
  const exact = Math.abs(value).toFixed(digits + 60);
  const tie = /^50*$/.test(exact.slice(exact.length - 60));
  const rounded = Number(value.toFixed(digits));
  if (!tie) return rounded;
  const kept = exact.slice(0, exact.length - 60).replace('.', '');
  return Number(kept.at(-1)) % 2 === 0 ? Math.sign(value) * Number(exact.slice(0, exact.length - 60)) : rounded;
}

/** printf-style formatting, for the `format` filter and `'%s' % x`. */
export function percentFormat(format: string, args: readonly Value[], keywords?: ReadonlyMap<Value, Value>): string {
  let next = 0;
  let total = format.length;
  const pattern = /%(?:\((\w+)\))?([-+ 0#]*)(\d+)?(?:\.(\d+))?([sdifgrxXeoc%])/g;
  const out = format.replace(pattern, (_, name: string | undefined, flags: string, width, precision, kind: string) => {
    if (kind === '%') return '%';
    if (name === undefined && next >= args.length)
      throw new TemplateRuntimeError('not enough arguments for format string');
    const value = name === undefined ? args[next++] : keywords?.get(name);
    const body = percentValue(value, kind, precision === undefined ? undefined : Number(precision), flags);
    const size = fit(Number(width ?? 0));
    total = fit(total + Math.max(size, body.length));
    if (flags.includes('-')) return body.padEnd(size);
    return flags.includes('0') && !'srci'.includes(kind) ? zeroFill(body, size) : body.padStart(size);
  });
  if (next < args.length && !keywords)
    throw new TemplateRuntimeError('not all arguments converted during string formatting');
  return out;
}

function percentValue(value: Value, kind: string, precision: number | undefined, flags: string): string {
  if (kind === 's' || kind === 'r' || kind === 'c') {
    const body = kind === 'r' ? repr(value) : str(value);
    return precision === undefined ? body : characters(body).slice(0, precision).join('');
  }
  const number = numeric(value);
  if (number === undefined)
    throw new TemplateRuntimeError(`%${kind} format: a number is required, not ${typeName(value)}`);
  const sign = number >= 0 && flags.includes('+') ? '+' : number >= 0 && flags.includes(' ') ? ' ' : '';
  if (kind === 'f') return sign + number.toFixed(precision ?? 6);
  if (kind === 'e') return sign + number.toExponential(precision ?? 6).replace(/e([+-])(\d)$/, 'e$10$2');
  if (kind === 'g') return sign + String(Number(number.toPrecision(precision ?? 6)));
  const radix = kind === 'o' ? 8 : kind === 'd' || kind === 'i' ? 10 : 16;
  const digits = Math.trunc(number).toString(radix);
  return sign + (kind === 'X' ? digits.toUpperCase() : digits);
}

const HTML: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&#34;', "'": '&#39;' };

function escape(operand: Value): string {
  return str(operand).replace(/[&<>"']/g, (char) => HTML[char] as string);
}

/** Jinja's title: a word starts after white space, hyphens and opening brackets; the rest of it is lowered. */
function title(operand: Value): string {
  return divisible(str(operand))
    .split(/([-\s({[<]+)/)
    .map(capitalize)
    .join('');
}

function batch(operand: Value, args: readonly Value[], keywords: Keywords): Value {
  const given = new Arguments(args, keywords);
  const size = fit(Math.max(1, integer(given.at(0, 'linecount'), 'linecount')));
  const fill = given.at(1, 'fill_with', null);
  const items = iterate(operand);
  const out: Value[][] = [];
  for (let at = 0; at < items.length; at += size) out.push(items.slice(at, at + size));
  const last = out.at(-1);
  if (last && fill !== null) while (last.length < size) last.push(fill);
  return out;
}

function groupby(operand: Value, args: readonly Value[], keywords: Keywords): Value {
  const given = new Arguments(args, keywords);
  const key = by(given.at(0, 'attribute'), given.at(1, 'default'));
  const groups: { readonly key: Value; readonly items: Value[] }[] = [];
  for (const item of sorted(iterate(operand), folded(given.at(2, 'case_sensitive'), key), false)) {
    const last = groups.at(-1);
    if (last && equal(folded(false, key)(last.items[0]), folded(false, key)(item))) last.items.push(item);
    else groups.push({ key: key(item), items: [item] });
  }
  return groups.map((group) => new Tuple([group.key, group.items]));
}

function mappingItems(operand: Value): Value {
  if (operand === undefined) return [];
  if (operand instanceof Map) return [...operand].map(([key, value]) => new Tuple([key, value]));
  throw new TemplateRuntimeError('can only get item pairs from a mapping');
}

const filters: ReadonlyMap<string, Filter> = new Map<string, Filter>([
  [
    'abs',
    (operand) =>
      operand instanceof Float ? new Float(Math.abs(operand.value)) : Math.abs(integer(operand, 'abs() argument')),
  ],
  [
    'attr',
    (operand, [name]) =>
      operand instanceof Map ? boundMethod(operand, text(name, 'the name')) : itemOf(operand, name),
  ],
  ['batch', batch],
  ['capitalize', (operand) => capitalize(str(operand))],
  ['count', (operand) => lengthOf(operand)],
  [
    'default',
    (operand, args, keywords) => {
      const given = new Arguments(args, keywords);
      const missing = operand === undefined || (truthy(given.at(1, 'boolean')) && !truthy(operand));
      return missing ? given.at(0, 'default_value', '') : operand;
    },
  ],
  [
    'dictsort',
    (operand, args, keywords) => {
      const given = new Arguments(args, keywords);
      const column = given.at(1, 'by', 'key') === 'value' ? 1 : 0;
      const pairs = iterate(mappingItems(operand));
      return sorted(pairs, folded(given.at(0, 'case_sensitive'), by(column)), given.at(2, 'reverse'));
    },
  ],
  ['escape', escape],
  ['first', (operand) => iterate(operand)[0]],
  ['float', toFloat],
  ['format', (operand, args, keywords) => percentFormat(str(operand), args, keywords.size > 0 ? keywords : undefined)],
  ['groupby', groupby],
  ['indent', indent],
  ['int', toInt],
  ['items', mappingItems],
  ['join', join],
  ['last', (operand) => iterate(operand).at(-1)],
  ['length', (operand) => lengthOf(operand)],
  ['list', (operand) => [...iterate(operand)]],
  ['lower', (operand) => str(operand).toLowerCase()],
  ['map', map],
  ['max', extreme(-1)],
  ['min', extreme(1)],
  ['reject', select(false, false)],
  ['rejectattr', select(false, true)],
  [
    'replace',
    (operand, args, keywords) => {
      const given = new Arguments(args, keywords);
      const count = given.at(2, 'count', null);
      return replaceText(
        str(operand),
        str(given.at(0, 'old')),
        str(given.at(1, 'new')),
        count === null ? -1 : integer(count, 'count'),
      );
    },
  ],
  [
    'reverse',
    (operand) =>
      typeof operand === 'string' ? characters(operand).reverse().join('') : [...iterate(operand)].reverse(),
  ],
  ['round', round],
  ['safe', (operand) => operand],
  ['select', select(true, false)],
  ['selectattr', select(true, true)],
  [
    'sort',
    (operand, args, keywords) => {
      const given = new Arguments(args, keywords);
      return sorted(
        iterate(operand),
        folded(given.at(1, 'case_sensitive'), by(given.at(2, 'attribute'))),
        given.at(0, 'reverse'),
      );
    },
  ],
  ['string', str],
  [
    'sum',
    (operand, args, keywords) => {
      const given = new Arguments(args, keywords);
      const items = [given.at(1, 'start', 0), ...iterate(operand).map(by(given.at(0, 'attribute')))];
      const numbers = items.map(numeric);
      if (numbers.includes(undefined)) throw new TemplateRuntimeError('sum of values that are not numbers');
      const total = (numbers as number[]).reduce((sum, number) => sum + number, 0);
      return items.some((item) => item instanceof Float) ? new Float(total) : total;
    },
  ],
  ['title', title],
  ['tojson', tojson],
  ['trim', (operand, args, keywords) => strip(str(operand), new Arguments(args, keywords).at(0, 'chars', null))],
  [
    'unique',
    (operand, args, keywords) => {
      const given = new Arguments(args, keywords);
      return unique(iterate(operand), folded(given.at(0, 'case_sensitive'), by(given.at(1, 'attribute'))));
    },
  ],
  ['upper', (operand) => str(operand).toUpperCase()],
  ['urlencode', (operand) => encodeURIComponent(str(operand)).replaceAll('%2F', '/')],
  ['wordcount', (operand) => divisible(str(operand)).match(/[\p{L}\p{N}_]+/gu)?.length ?? 0],
  ['d', (operand, args, keywords) => applyFilter('default', operand, args, keywords)],
  ['e', escape],
]);
