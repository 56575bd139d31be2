/** What the two completion routes share. */

import { randomBytes } from 'node:crypto';

import { EngineError } from '../../engine/types.js';

/** "chatcmpl-3f…": a prefix and 96 random bits. */
export function newId(prefix: string): string {
  return `${prefix}-${randomBytes(12).toString('hex')}`;
}

export function unixSeconds(): number {
  return Math.floor(Date.now() / 1000);
}

/** A generation whose events ended without `finished`, which the engine never does. */
export function unfinished(): EngineError {
  return new EngineError('internal', 'the generation ended without a finish reason');
}
