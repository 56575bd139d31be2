/** `tool_choice` where tools of servers are among the choices. */

import type { ToolChoice } from '../chat/types.js';
import type { ToolCatalog } from './naming.js';

/** A server's tool, or all of its tools. */
export interface ServerChoice {
  readonly serverLabel: string;
  /** The tool's own name. */
  readonly name?: string;
}

/** As the request says it: the names that the model knows are made only when the servers were listed. */
export type LoopToolChoice =
  | 'none'
  | 'auto'
  | 'required'
  /** A function of the client. */
  | { readonly name: string }
  | ServerChoice
  | { readonly allowed: readonly (string | ServerChoice)[]; readonly mode: 'auto' | 'required' };

/** In the model's names. A choice of which nothing is left (its server could not be listed) is no choice: 'auto'. */
export function resolveChoice(choice: LoopToolChoice, catalog: ToolCatalog): ToolChoice {
  if (typeof choice === 'string') return choice;
  if ('allowed' in choice) {
    const allowed = choice.allowed.flatMap((one) => (typeof one === 'string' ? [one] : namesOf(one, catalog)));
    return { allowed, mode: allowed.length === 0 ? 'auto' : choice.mode };
  }
  if (!('serverLabel' in choice)) return choice;
  const names = namesOf(choice, catalog);
  const [only] = names;
  if (only === undefined) return 'auto';
  return names.length === 1 ? { name: only } : { allowed: names, mode: 'required' };
}

/** What still holds after a call was made: a choice that forces a call would force one in every turn, without end. */
export function afterFirstCall(choice: ToolChoice): ToolChoice {
  if (typeof choice === 'string') return choice === 'required' ? 'auto' : choice;
  return 'allowed' in choice ? { ...choice, mode: 'auto' } : 'auto';
}

/** Without tools of servers, for the turn that has to answer. */
export function withoutServers(choice: ToolChoice, catalog: ToolCatalog): ToolChoice {
  if (typeof choice === 'string') return choice === 'required' ? 'auto' : choice;
  if (!('allowed' in choice)) return catalog.named(choice.name) === undefined ? choice : 'auto';
  const allowed = choice.allowed.filter((name) => catalog.named(name) === undefined);
  return { allowed, mode: allowed.length === 0 ? 'auto' : choice.mode };
}

/** Whether the choice lets this tool be called. A named tool is a demand of the first turn, not a bound on later ones. */
export function permits(choice: ToolChoice | undefined, name: string): boolean {
  if (choice === 'none') return false;
  return typeof choice !== 'object' || !('allowed' in choice) || choice.allowed.includes(name);
}

function namesOf({ serverLabel, name }: ServerChoice, catalog: ToolCatalog): string[] {
  return catalog
    .ofServer(serverLabel)
    .filter(({ tool }) => name === undefined || tool.name === name)
    .map((offered) => offered.name);
}
