import type { ChatFormat } from './types.js';

/** Nemotron-Mini. */
export const nemotronMini: ChatFormat = {
  name: 'nemotron-mini',
  signs: [['<extra_id_0>System', '<tool> ']],
  tokens: ['<toolcall>', '</toolcall>'],
  tools: {
    open: ['<toolcall>'],
    close: '</toolcall>',
    calls: [{ kind: 'json', name: 'name', arguments: 'arguments' }],
    padding: ' ',
    several: { separator: '\n' },
  },
};
