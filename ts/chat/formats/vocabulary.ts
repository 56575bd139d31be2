/** Which of a format's texts are tokens of their own in a model's vocabulary, and which of those are special. */

import type { Engine } from '../../engine/types.js';
import type { ChatFormat } from './types.js';

/** What a vocabulary has for a token of a format. */
export interface FormatToken {
  readonly id: number;
  readonly special: boolean;
}

export async function formatTokens(
  engine: Pick<Engine, 'tokenize' | 'detokenize'>,
  handle: number,
  format: ChatFormat,
): Promise<ReadonlyMap<string, FormatToken>> {
  const found = await Promise.all(
    format.tokens.map(async (text): Promise<[string, FormatToken] | undefined> => {
      const ids = await engine.tokenize(handle, text, false);
      // Some tokenizers put a token for a space before any text.
      const id = ids.at(-1);
      if (id === undefined || ids.length > 2) return undefined;
      if ((await engine.detokenize(handle, [id], false)).trim() !== text) return undefined;
      return [text, { id, special: (await engine.detokenize(handle, [id], true)) === '' }];
    }),
  );
  return new Map(found.filter((entry) => entry !== undefined));
}
