import type { ChatFormat } from './types.js';

/** GLM 4.5 and later. */
export const glm: ChatFormat = {
  name: 'glm',
  signs: [['<arg_key>', '<arg_value>']],
  families: ['glm4_moe', 'glm_moe_dsa'],
  tokens: [
    '<think>',
    '</think>',
    '<tool_call>',
    '</tool_call>',
    '<arg_key>',
    '</arg_key>',
    '<arg_value>',
    '</arg_value>',
  ],
  reasoning: { open: '<think>', close: '</think>' },
  tools: {
    open: ['<tool_call>'],
    close: '</tool_call>',
    calls: [
      {
        kind: 'tagged',
        nameOpen: '',
        nameClose: '\n',
        keyOpen: '<arg_key>',
        keyClose: '</arg_key>',
        valueOpen: '<arg_value>',
        valueClose: '</arg_value>',
        close: '',
        lines: false,
      },
      { kind: 'json', name: 'name', arguments: 'arguments' },
    ],
    several: { separator: '\n' },
  },
};
