import type { ChatFormat, ToolSyntax } from './types.js';

/** Where nothing is known: all text is content. */
export const plain: ChatFormat = { name: 'plain', signs: [], tokens: [] };

/** Where calls have no syntax and one is demanded: a bare object, which grammars write and the answer is read by. */
export const BARE_CALLS: ToolSyntax = {
  open: [],
  bare: ['json'],
  calls: [{ kind: 'json', name: 'name', arguments: 'arguments' }],
};

/** Thinks, and that is all that is known. */
export const thinking: ChatFormat = {
  name: 'thinking',
  signs: [['</think>'], ['<think>']],
  tokens: ['<think>', '</think>'],
  reasoning: { open: '<think>', close: '</think>' },
};
