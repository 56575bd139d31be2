/** Log lines for the operator: a level, a sentence, and for programs that read them the facts by name. */

/** From the least important on. */
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
  const least = LOG_LEVELS.indexOf(level);
  const at = (own: Exclude<LogLevel, 'silent'>) => (message: string, fields?: LogFields) => {
    if (LOG_LEVELS.indexOf(own) < least) return;
    const time = new Date().toISOString();
    write(
      format === 'json'
        ? JSON.stringify({ level: own, time, ...fields, msg: message })
        : `${time} ${own.padEnd(5)} ${message}`,
    );
  };
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
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
