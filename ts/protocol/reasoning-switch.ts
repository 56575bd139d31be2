/** What turns a model's reasoning on and off, where its chat template has a switch. */

import type { JsonObject } from './fields.js';

/** The variables that templates ask: Qwen, GLM, SmolLM; DeepSeek, Granite. */
export const REASONING_SWITCHES = ['enable_thinking', 'thinking'] as const;

export function reasoningSwitch(on: boolean): JsonObject {
  return Object.fromEntries(REASONING_SWITCHES.map((name) => [name, on]));
}
