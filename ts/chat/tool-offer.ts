/** From a request's tools and choice: what may be called, and what must be. */

import { EngineError } from '../engine/types.js';
import type { ForcedChoice } from './tool-grammar.js';
import type { ChatRequest, ToolDefinition } from './types.js';

export interface ToolOffer {
  /** What the model is shown and may call. */
  readonly tools: readonly ToolDefinition[];
  /** Undefined: it may answer without. */
  readonly forced: ForcedChoice | undefined;
}

/** Throws EngineError `invalid_request` for a choice that needs tools that there are not. */
export function offerTools({ tools = [], toolChoice = 'auto' }: ChatRequest): ToolOffer {
  if (toolChoice === 'none') return { tools: [], forced: undefined };
  if (toolChoice === 'auto') return { tools, forced: undefined };
  if (toolChoice === 'required') return { tools: some(tools), forced: 'required' };
  if ('name' in toolChoice) {
    // The others would only tempt it.
    return { tools: some(tools.filter(({ name }) => name === toolChoice.name)), forced: { name: toolChoice.name } };
  }
  const allowed = some(tools.filter(({ name }) => toolChoice.allowed.includes(name)));
  return { tools: allowed, forced: toolChoice.mode === 'required' ? 'required' : undefined };
}

function some(tools: readonly ToolDefinition[]): readonly ToolDefinition[] {
  if (tools.length > 0) return tools;
  throw new EngineError('invalid_request', 'the tool choice needs tools that are not there', 'tool_choice');
}
