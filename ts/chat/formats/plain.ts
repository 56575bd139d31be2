import type { ChatFormat } from './types.js';

/** Where nothing is known: all text is content. */
export const plain: ChatFormat = { name: 'plain', signs: [], tokens: [] };

/** Thinks, and that is all that is known. */
export const thinking: ChatFormat = {
  name: 'thinking',
  signs: [['</think>'], ['<think>']],
  tokens: ['<think>', '</think>'],
  reasoning: { open: '<think>', close: '</think>' },
};
