import type { ChatFormat } from './types.js';

/** LFM2: calls as a Python list; JSON on request. */
export const lfm2: ChatFormat = {
  name: 'lfm2',
  signs: [['<|tool_call_start|>'], ['<|tool_list_start|>'], ['<|im_start|>', 'List of tools: [']],
  families: ['lfm2', 'lfm2_moe'],
  tokens: ['<|tool_call_start|>', '<|tool_call_end|>', '<think>', '</think>'],
  reasoning: { open: '<think>', close: '</think>' },
  reasoningByTemplate: true,
  tools: {
    open: ['<|tool_call_start|>'],
    close: '<|tool_call_end|>',
    calls: [{ kind: 'python' }, { kind: 'json', name: 'name', arguments: 'arguments', list: true }],
    several: { inSection: true, separator: ', ' },
  },
};
