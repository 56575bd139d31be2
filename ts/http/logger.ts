/** Log lines for the operator: a level and a sentence. */

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error', 'silent'] as const;

export type LogLevel = (typeof LOG_LEVELS)[number];

export interface Logger {
  debug(message: string): void;
  info(message: string): void;
  warn(message: string): void;
  error(message: string): void;
}

/**
 * @param level the least that is written
 * @param write takes a whole line without its end. Default: standard error
 */
export function createLogger(level: LogLevel, write: (line: string) => void = writeToStderr): Logger {
  const least = LOG_LEVELS.indexOf(level);
  const at = (own: LogLevel) => {
    const heard = LOG_LEVELS.indexOf(own) >= least;
    return (message: string) => {
      if (heard) write(`${new Date().toISOString()} ${own.padEnd(5)} ${message}`);
    };
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
