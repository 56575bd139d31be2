/** How the program ends when something is wrong: one sentence, one exit code. */

import { EngineError } from '../engine/types.js';

/** A failure whose message is a whole sentence for the user. Exit code 1: it could not be done; 2: it was asked wrongly. */
export class CliFailure extends Error {
  override readonly name = 'CliFailure';
  readonly exitCode: 1 | 2;

  constructor(message: string, exitCode: 1 | 2 = 1, options?: ErrorOptions) {
    super(message, options);
    this.exitCode = exitCode;
  }
}

/** What to print for any error: a sentence where the failure was foreseen, the stack where it was not. */
export function sentenceOf(error: unknown): string {
  if (error instanceof CliFailure) return error.message;
  if (error instanceof EngineError && error.code !== 'internal') return error.message;
  if (error instanceof Error) return error.stack ?? error.message;
  return String(error);
}

/** The system's own code of an error (`EADDRINUSE`, `ENOENT`), looked for through its causes. */
export function systemCode(error: unknown): string | undefined {
  for (let e = error; e instanceof Error; e = e.cause) {
    if ('code' in e && typeof e.code === 'string' && /^E[A-Z]+$/.test(e.code)) return e.code;
    if (e instanceof AggregateError) {
      const inner = e.errors.map(systemCode).find((code) => code !== undefined);
      if (inner !== undefined) return inner;
    }
  }
  return undefined;
}
