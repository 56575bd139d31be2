/** Which format a model speaks: its chat template shows it. */

import { deepseek3, deepseek31, deepseekPlain } from './deepseek.js';
import { gemma3, gemma4 } from './gemma.js';
import { glm, glm4 } from './glm.js';
import { harmony } from './harmony.js';
import { hermes } from './hermes.js';
import { commandR, granite3, phi4Mini } from './json-list.js';
import { lfm2 } from './lfm2.js';
import { cogito, llama3, llama4 } from './llama.js';
import { mistralArgs, mistralList } from './mistral.js';
import { nemotronMini } from './nemotron.js';
import { BARE_CALLS, plain, thinking } from './plain.js';
import { qwenXml } from './qwen-xml.js';
import type { ChatFormat } from './types.js';

export type { CallSyntax, ChatFormat, ReasoningSyntax, ToolSyntax } from './types.js';
export { BARE_CALLS, plain };

/** The more particular ones first: the first whose signs are all there is taken. */
export const FORMATS: readonly ChatFormat[] = [
  harmony,
  gemma4,
  gemma3,
  qwenXml,
  glm,
  glm4,
  deepseek3,
  deepseek31,
  commandR,
  lfm2,
  phi4Mini,
  granite3,
  mistralArgs,
  mistralList,
  cogito,
  llama4,
  llama3,
  nemotronMini,
  hermes,
  deepseekPlain,
  thinking,
];

/**
 * @param template source of the chat template that is rendered
 * @param family of the model, as in its config (`qwen2`, `llama`)
 */
export function pickFormat(template: string | undefined, family: string): ChatFormat {
  const text = template ?? '';
  const found =
    FORMATS.find((format) => format.signs.some((signs) => signs.every((sign) => text.includes(sign)))) ??
    FORMATS.find((format) => format.families?.includes(family)) ??
    plain;
  if (found.reasoningByTemplate !== true || found.reasoning === undefined) return found;
  if (text.includes(found.reasoning.open) || text.includes(found.reasoning.close)) return found;
  return withoutReasoning(found);
}

function withoutReasoning(format: ChatFormat): ChatFormat {
  const { reasoning, ...silent } = format;
  return reasoning === undefined ? format : silent;
}
