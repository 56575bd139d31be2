/** What transformers puts into the environment of a chat template. */

import { TemplateRaised, TemplateRuntimeError } from './errors.js';
import { pairsOf } from './interpreter.js';
import type { Value } from './values.js';
import { Callable, integer, Namespace, str, text } from './values.js';

/** Longest list that `range` makes; Jinja's sandbox has the same limit. */
const MAX_RANGE = 100_000;

/** `now`: what `strftime_now` tells, in local time. */
export function templateGlobals(now: Date): [string, Value][] {
  return [
    ['true', true],
    ['false', false],
    ['none', null],
    ['True', true],
    ['False', false],
    ['None', null],
    ['range', new Callable('range', range)],
    ['namespace', new Callable('namespace', (args, keywords) => new Namespace(pairsOf(args, keywords)))],
    ['dict', new Callable('dict', (args, keywords) => new Map<Value, Value>(pairsOf(args, keywords)))],
    ['joiner', new Callable('joiner', joiner)],
    [
      'raise_exception',
      new Callable('raise_exception', ([message]) => {
        throw new TemplateRaised(str(message));
      }),
    ],
    ['strftime_now', new Callable('strftime_now', ([format]) => strftime(now, text(format, 'the format')))],
  ];
}

function range(args: readonly Value[]): Value {
  const [a = 0, b, c = 1] = args.map((arg) => integer(arg, 'a range bound'));
  const [start, stop] = b === undefined ? [0, a] : [a, b];
  if (c === 0) throw new TemplateRuntimeError('range() step must not be zero');
  const count = Math.max(0, Math.ceil((stop - start) / c));
  if (count > MAX_RANGE) throw new TemplateRuntimeError(`range too big: at most ${MAX_RANGE}`);
  return Array.from({ length: count }, (_, i) => start + i * c);
}

/** Empty the first time, then the separator. */
function joiner(args: readonly Value[]): Value {
  const separator = args.length > 0 ? str(args[0]) : ', ';
  let used = false;
  return new Callable('joiner', () => {
    const piece = used ? separator : '';
    used = true;
    return piece;
  });
}

const MONTHS = 'January February March April May June July August September October November December'.split(' ');
const DAYS = 'Sunday Monday Tuesday Wednesday Thursday Friday Saturday'.split(' ');

/** Python's strftime in the C locale; an unknown directive stays as it is. `%-d` is %d without the leading zero. */
export function strftime(date: Date, format: string): string {
  const two = (value: number): string => String(value).padStart(2, '0');
  const hour12 = date.getHours() % 12 || 12;
  const dayOfYear = Math.round(
    (Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) - Date.UTC(date.getFullYear(), 0, 0)) / 86_400_000,
  );
  const directives: Readonly<Record<string, () => string>> = {
    Y: () => String(date.getFullYear()),
    y: () => two(date.getFullYear() % 100),
    m: () => two(date.getMonth() + 1),
    d: () => two(date.getDate()),
    e: () => String(date.getDate()).padStart(2, ' '),
    B: () => MONTHS[date.getMonth()] as string,
    b: () => (MONTHS[date.getMonth()] as string).slice(0, 3),
    h: () => (MONTHS[date.getMonth()] as string).slice(0, 3),
    A: () => DAYS[date.getDay()] as string,
    a: () => (DAYS[date.getDay()] as string).slice(0, 3),
    w: () => String(date.getDay()),
    u: () => String(date.getDay() || 7),
    j: () => String(dayOfYear).padStart(3, '0'),
    H: () => two(date.getHours()),
    I: () => two(hour12),
    M: () => two(date.getMinutes()),
    S: () => two(date.getSeconds()),
    f: () => `${String(date.getMilliseconds()).padStart(3, '0')}000`,
    p: () => (date.getHours() < 12 ? 'AM' : 'PM'),
    // Python's now() carries no zone.
    Z: () => '',
    z: () => '',
    s: () => String(Math.floor(date.getTime() / 1000)),
    n: () => '\n',
    t: () => '\t',
    '%': () => '%',
  };
  const expand = (part: string): string =>
    part.replace(/%(-?)([a-zA-Z%])/g, (match, bare: string, letter: string) => {
      if (letter === 'F') return expand('%Y-%m-%d');
      if (letter === 'T' || letter === 'X') return expand('%H:%M:%S');
      if (letter === 'R') return expand('%H:%M');
      if (letter === 'D' || letter === 'x') return expand('%m/%d/%y');
      if (letter === 'c') return expand('%a %b %e %H:%M:%S %Y');
      const value = directives[letter]?.();
      if (value === undefined) return match;
      return bare ? value.replace(/^[0 ]+(?=.)/, '') : value;
    });
  return expand(format);
}
