import type { ChatFormat } from './types.js';

/** GLM-4 and GLM-4-0414: the name, a line break and the arguments are the whole message, without any marker. */
export const glm4: ChatFormat = {
  name: 'glm4',
  signs: [
    ['<|observation|>', 'metadata'],
    ['<|assistant|>', '在调用上述函数时'],
    ['在调用上述函数时', '[gMASK]'],
  ],
  families: ['glm4', 'chatglm'],
  tokens: [],
  tools: { open: [], bare: ['named'], calls: [{ kind: 'named', before: '', between: '\n', after: '' }] },
};

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
