/** Log lines for the operator: a level, a sentence, and for programs that read them the facts by name. */

import { pino } from 'pino';

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error', 'silent'] as const;

export type LogLevel = (typeof LOG_LEVELS)[number];

/** Lines for people, or one JSON object per line for programs. */
export const LOG_FORMATS = ['text', 'json'] as const;

export type LogFormat = (typeof LOG_FORMATS)[number];

/** Facts of a message by name; undefined ones are left out. They are written in JSON only: the sentence holds them too. */
export type LogFields = Readonly<Record<string, string | number | boolean | undefined>>;

export interface Logger {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}

/**
 * @param level the least that is written
 * @param write takes a whole line without its end. Default: standard error
 */
export function createLogger(
  level: LogLevel,
  write: (line: string) => void = writeToStderr,
  format: LogFormat = 'text',
): Logger {
  const log = pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    { write: (line: string) => write(format === 'json' ? line.trimEnd() : toText(line)) },
  );
  const at = (own: Exclude<LogLevel, 'silent'>) => (message: string, fields?: LogFields) => {
    if (fields === undefined || format === 'text') log[own](message);
    else log[own](fields, message);
  };
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
}

function toText(line: string): string {
  const { time, level, msg } = JSON.parse(line) as { time: string; level: string; msg: string };
  return `${time} ${level.padEnd(5)} ${msg}`;
}

export const silentLogger: Logger = createLogger('silent');

/** Names that clients choose are logged once each, and not without end. */
const MAX_REMEMBERED = 256;

/** Warns of each distinct message once. */
export function warnOnce(logger: Logger): (message: string) => void {
  const seen = new Set<string>();
  return (message) => {
    if (seen.has(message) || seen.size >= MAX_REMEMBERED) return;
    seen.add(message);
    logger.warn(message);
  };
}

function writeToStderr(line: string): void {
  process.stderr.write(`${line}\n`);
}
