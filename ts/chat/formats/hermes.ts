import type { ChatFormat } from './types.js';

/** Qwen 2.5 and 3, Hermes, SmolLM3, Granite 4 and many others. */
export const hermes: ChatFormat = {
  name: 'hermes',
  signs: [['<tool_call>', '</tool_call>']],
  families: ['smollm3'],
  tokens: ['<think>', '</think>', '<tool_call>', '</tool_call>'],
  reasoning: { open: '<think>', close: '</think>' },
  reasoningByTemplate: true,
  tools: {
    open: ['<tool_call>'],
    close: '</tool_call>',
    calls: [{ kind: 'json', name: 'name', arguments: 'arguments' }],
    padding: '\n',
    several: { separator: '\n' },
  },
};
