/** The operator's own variables for chat templates. */

import type { LoadedModel } from '../engine/types.js';
import { REASONING_SWITCHES } from '../protocol/reasoning-switch.js';

/** Variables that no template of the model reads. Of the switches for reasoning one that is read will do. */
export function unreadVariables(
  { kind, chatTemplate = '', chatTemplates = {} }: Pick<LoadedModel, 'kind' | 'chatTemplate' | 'chatTemplates'>,
  variables: Readonly<Record<string, unknown>>,
): string[] {
  // They are for those that chat.
  if (kind === 'speech') return [];
  const templates = [chatTemplate, ...Object.values(chatTemplates)];
  const isRead = (name: string): boolean =>
    templates.some((template) => new RegExp(`(?<![\\w.])${name.replace(/\W/g, '\\$&')}\\b`).test(template));
  const hasSwitch = REASONING_SWITCHES.some(isRead);
  return Object.keys(variables).filter((name) => !isRead(name) && !(hasSwitch && isSwitch(name)));
}

function isSwitch(name: string): boolean {
  return (REASONING_SWITCHES as readonly string[]).includes(name);
}
