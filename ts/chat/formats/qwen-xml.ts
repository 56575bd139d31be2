import type { ChatFormat } from './types.js';

/** Qwen3-Coder, Qwen3.5 and 3.6. The small ones forget the outer tag now and then, or write JSON inside. */
export const qwenXml: ChatFormat = {
  name: 'qwen-xml',
  signs: [['<tool_call>', '<function=', '<parameter=']],
  tokens: ['<think>', '</think>', '<tool_call>', '</tool_call>'],
  reasoning: { open: '<think>', close: '</think>' },
  reasoningByTemplate: true,
  tools: {
    open: ['<tool_call>'],
    bare: ['tagged'],
    close: '</tool_call>',
    calls: [
      {
        kind: 'tagged',
        nameOpen: '<function=',
        nameClose: '>',
        keyOpen: '<parameter=',
        keyClose: '>',
        valueOpen: '',
        valueClose: '</parameter>',
        close: '</function>',
        lines: true,
      },
      { kind: 'json', name: 'name', arguments: 'arguments' },
    ],
    padding: '\n',
    several: { separator: '\n' },
  },
};
