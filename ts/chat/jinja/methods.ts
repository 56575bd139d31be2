/** The methods of Python's str, dict, list and tuple that templates may call. Nothing here changes its object. */

import { TemplateRuntimeError } from './errors.js';
import type { Keywords, Value } from './values.js';
import {
  Callable,
  characters,
  divisible,
  equal,
  fit,
  integer,
  iterate,
  lengthOf,
  sequenceItems,
  str,
  text,
  Tuple,
  typeName,
} from './values.js';

type Method<T> = (self: T, args: readonly Value[], keywords: Keywords) => Value;

/** The method of that name bound to the value, if its type has one. */
export function boundMethod(value: Value, name: string): Callable | undefined {
  if (typeof value === 'string') return bind(stringMethods, value, name);
  if (value instanceof Map) return bind(dictMethods, value, name);
  const items = sequenceItems(value);
  return items && bind(listMethods, items, name);
}

function bind<T>(methods: ReadonlyMap<string, Method<T>>, self: T, name: string): Callable | undefined {
  const method = methods.get(name);
  return method && new Callable(name, (args, keywords) => method(self, args, keywords));
}

/** What Python's str.strip takes for white space; JavaScript's trim differs in five characters. */
const SPACE = '\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000';
const LEADING_SPACE = new RegExp(`^[${SPACE}]+`);
const WORD = new RegExp(`[^${SPACE}]+`, 'g');
const ONE_SPACE = new RegExp(`[${SPACE}]`);
// eslint-disable-next-line no-control-regex -- Python's splitlines goes by these separators too
const LINE_END = /\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/g;

/** str.strip and its halves, by white space or by a set of characters. */
export function strip(value: string, chars?: Value, sides: 'both' | 'left' | 'right' = 'both'): string {
  if (chars === null || chars === undefined) {
    const rest = sides === 'right' ? value : value.replace(LEADING_SPACE, '');
    return sides === 'left' ? rest : stripRightSpace(rest);
  }
  const set = new Set(characters(text(chars, 'strip() argument')));
  const all = characters(value);
  let from = 0;
  let to = all.length;
  if (sides !== 'right') while (from < to && set.has(all[from] as string)) from += 1;
  if (sides !== 'left') while (to > from && set.has(all[to - 1] as string)) to -= 1;
  return all.slice(from, to).join('');
}

/** From the end, by hand: a regular expression would be quadratic in runs of inner white space. */
function stripRightSpace(value: string): string {
  let end = value.length;
  while (end > 0 && ONE_SPACE.test(value[end - 1] as string)) end -= 1;
  return value.slice(0, end);
}

/** str.replace; a negative count means all. An empty `from` stands between all characters and at both ends. */
export function replaceText(value: string, from: string, to: string, count: number): string {
  const pieces = from === '' ? ['', ...characters(value), ''] : value.split(from);
  const replaced = count < 0 ? pieces.length : count + 1;
  fit(value.length + Math.min(replaced, pieces.length) * to.length);
  const rest = pieces.slice(replaced).map((piece) => from + piece);
  return pieces.slice(0, replaced).join(to) + rest.join('');
}

export function joinTexts(texts: readonly string[], separator: string): string {
  fit(texts.reduce((size, part) => size + part.length + separator.length, 0));
  return texts.join(separator);
}

export function capitalize(value: string): string {
  const [first = '', ...rest] = characters(value);
  return first.toUpperCase() + rest.join('').toLowerCase();
}

export function splitLines(value: string, keepEnds = false): string[] {
  const lines: string[] = [];
  let from = 0;
  for (const match of divisible(value).matchAll(LINE_END)) {
    const end = match.index + match[0].length;
    lines.push(value.slice(from, keepEnds ? end : match.index));
    from = end;
  }
  if (from < value.length) lines.push(value.slice(from));
  return lines;
}

function argument(args: readonly Value[], keywords: Keywords, at: number, name: string): Value {
  return at < args.length ? args[at] : keywords.get(name);
}

function split(value: string, args: readonly Value[], keywords: Keywords, fromRight: boolean): string[] {
  const separator = argument(args, keywords, 0, 'sep') ?? null;
  const limitValue = argument(args, keywords, 1, 'maxsplit');
  const limit = limitValue === undefined ? -1 : integer(limitValue, 'maxsplit');
  if (separator === null) return splitWords(value, limit, fromRight);
  const by = text(separator, 'the separator');
  if (by === '') throw new TemplateRuntimeError('empty separator');
  const parts = value.split(by);
  if (limit < 0 || parts.length <= limit + 1) return parts;
  if (!fromRight) return [...parts.slice(0, limit), parts.slice(limit).join(by)];
  const head = parts.length - limit;
  return [parts.slice(0, head).join(by), ...parts.slice(head)];
}

/** Runs of white space separate; none is left at the ends. What the limit leaves over keeps its inner white space. */
function splitWords(value: string, limit: number, fromRight: boolean): string[] {
  const words = [...divisible(value).matchAll(WORD)];
  if (limit < 0 || words.length <= limit) return words.map(([word]) => word);
  if (!fromRight) {
    const rest = value.slice(words[limit]?.index);
    return [...words.slice(0, limit).map(([word]) => word), rest];
  }
  const last = words[words.length - limit - 1] as RegExpMatchArray;
  const rest = value.slice(0, (last.index as number) + last[0].length);
  return [rest, ...words.slice(words.length - limit).map(([word]) => word)];
}

function startsOrEnds(method: 'startsWith' | 'endsWith'): Method<string> {
  return (self, [probe]) => {
    const probes = probe instanceof Tuple ? probe.items : [probe];
    return probes.some((item) => self[method](text(item, `the argument of ${method.toLowerCase()}()`)));
  };
}

/** Code point index of a UTF-16 index; -1 stays. */
function codePointIndex(value: string, at: number): number {
  return at <= 0 ? at : lengthOf(value.slice(0, at));
}

function pad(value: string, width: number, fill: string, where: 'left' | 'right' | 'center'): string {
  const missing = Math.max(0, fit(width) - lengthOf(value));
  const left = where === 'left' ? missing : where === 'right' ? 0 : Math.floor(missing / 2) + (missing & width & 1);
  return fill.repeat(left) + value + fill.repeat(missing - left);
}

function padMethod(where: 'left' | 'right' | 'center'): Method<string> {
  return (self, [width, fill]) =>
    pad(self, integer(width, 'width'), fill === undefined ? ' ' : text(fill, 'fill'), where);
}

function every(pattern: RegExp): Method<string> {
  return (self) => self !== '' && characters(self).every((char) => pattern.test(char));
}

export function isLower(value: string): boolean {
  return /\p{Ll}/u.test(value) && !/[\p{Lu}\p{Lt}]/u.test(value);
}

export function isUpper(value: string): boolean {
  return /\p{Lu}/u.test(value) && !/[\p{Ll}\p{Lt}]/u.test(value);
}

/** str.format: `{}`, `{0}`, `{name}`, doubled braces. Attributes and format specifications are refused. */
function format(self: string, args: readonly Value[], keywords: Keywords): string {
  let next = 0;
  let size = self.length;
  const show = (value: Value): string => {
    const shown = str(value);
    size = fit(size + shown.length);
    return shown;
  };
  return self.replace(/\{\{|\}\}|\{([^{}]*)\}/g, (match, field: string | undefined) => {
    if (field === undefined) return match[0] as string;
    if (field === '') return show(args[next++]);
    if (/^\d+$/.test(field)) return show(args[Number(field)]);
    if (/^\w+$/.test(field) && keywords.has(field)) return show(keywords.get(field));
    throw new TemplateRuntimeError(`str.format() field "${field}" is not supported`);
  });
}

function partition(self: string, separator: Value, at: number): Value {
  const by = text(separator, 'the separator');
  return new Tuple([self.slice(0, at), by, self.slice(at + by.length)]);
}

const stringMethods: ReadonlyMap<string, Method<string>> = new Map<string, Method<string>>([
  ['upper', (self) => self.toUpperCase()],
  ['lower', (self) => self.toLowerCase()],
  ['casefold', (self) => self.toLowerCase()],
  ['capitalize', capitalize],
  ['title', (self) => self.replace(/\p{L}+/gu, capitalize)],
  [
    'swapcase',
    (self) =>
      characters(self)
        .map((c) => (c === c.toUpperCase() ? c.toLowerCase() : c.toUpperCase()))
        .join(''),
  ],
  ['strip', (self, [chars]) => strip(self, chars)],
  ['lstrip', (self, [chars]) => strip(self, chars, 'left')],
  ['rstrip', (self, [chars]) => strip(self, chars, 'right')],
  ['split', (self, args, keywords) => split(self, args, keywords, false)],
  ['rsplit', (self, args, keywords) => split(self, args, keywords, true)],
  ['splitlines', (self, args, keywords) => splitLines(self, argument(args, keywords, 0, 'keepends') === true)],
  ['startswith', startsOrEnds('startsWith')],
  ['endswith', startsOrEnds('endsWith')],
  [
    'replace',
    (self, args, keywords) => {
      const count = argument(args, keywords, 2, 'count');
      const limit = count === undefined || count === null ? -1 : integer(count, 'count');
      return replaceText(self, text(args[0], 'replace() argument'), text(args[1], 'replace() argument'), limit);
    },
  ],
  [
    'removeprefix',
    (self, [prefix]) => (self.startsWith(text(prefix, 'prefix')) ? self.slice((prefix as string).length) : self),
  ],
  [
    'removesuffix',
    (self, [suffix]) =>
      suffix !== '' && self.endsWith(text(suffix, 'suffix'))
        ? self.slice(0, self.length - (suffix as string).length)
        : self,
  ],
  ['find', (self, [part]) => codePointIndex(self, self.indexOf(text(part, 'find() argument')))],
  ['rfind', (self, [part]) => codePointIndex(self, self.lastIndexOf(text(part, 'rfind() argument')))],
  [
    'index',
    (self, [part]) => {
      const at = self.indexOf(text(part, 'index() argument'));
      if (at < 0) throw new TemplateRuntimeError('substring not found');
      return codePointIndex(self, at);
    },
  ],
  [
    'count',
    (self, [part]) => (part === '' ? lengthOf(self) + 1 : self.split(text(part, 'count() argument')).length - 1),
  ],
  [
    'join',
    (self, [items]) =>
      joinTexts(
        iterate(items).map((item) => text(item, 'an item of join()')),
        self,
      ),
  ],
  ['format', format],
  [
    'partition',
    (self, [by]) => {
      const at = self.indexOf(text(by, 'the separator'));
      return at < 0 ? new Tuple([self, '', '']) : partition(self, by, at);
    },
  ],
  [
    'rpartition',
    (self, [by]) => {
      const at = self.lastIndexOf(text(by, 'the separator'));
      return at < 0 ? new Tuple(['', '', self]) : partition(self, by, at);
    },
  ],
  ['zfill', (self, [width]) => zeroFill(self, integer(width, 'width'))],
  ['ljust', padMethod('right')],
  ['rjust', padMethod('left')],
  ['center', padMethod('center')],
  ['isdigit', every(/\p{Nd}/u)],
  ['isdecimal', every(/\p{Nd}/u)],
  ['isnumeric', every(/\p{N}/u)],
  ['isalpha', every(/\p{L}/u)],
  ['isalnum', every(/[\p{L}\p{N}]/u)],
  ['isspace', every(ONE_SPACE)],
  ['islower', isLower],
  ['isupper', isUpper],
]);

export function zeroFill(value: string, width: number): string {
  const sign = /^[+-]/.exec(value)?.[0] ?? '';
  return sign + pad(value.slice(sign.length), width - sign.length, '0', 'left');
}

const dictMethods: ReadonlyMap<string, Method<Map<Value, Value>>> = new Map<string, Method<Map<Value, Value>>>([
  ['get', (self, [key, otherwise]) => (self.has(key) ? self.get(key) : (otherwise ?? null))],
  ['items', (self) => [...self].map(([key, value]) => new Tuple([key, value]))],
  ['keys', (self) => [...self.keys()]],
  ['values', (self) => [...self.values()]],
  ['copy', (self) => new Map(self)],
]);

const listMethods: ReadonlyMap<string, Method<readonly Value[]>> = new Map<string, Method<readonly Value[]>>([
  ['count', (self, [item]) => self.filter((entry) => equal(entry, item)).length],
  [
    'index',
    (self, [item]) => {
      const at = self.findIndex((entry) => equal(entry, item));
      if (at < 0) throw new TemplateRuntimeError(`${typeName(item)} is not in list`);
      return at;
    },
  ],
  ['copy', (self) => [...self]],
]);
