import type { ChatFormat } from './types.js';

/** FunctionGemma (Gemma 3). */
export const gemma3: ChatFormat = {
  name: 'gemma3',
  signs: [['<start_function_call>', '<escape>']],
  tokens: ['<start_function_call>', '<end_function_call>', '<escape>'],
  tools: {
    open: ['<start_function_call>'],
    close: '<end_function_call>',
    calls: [{ kind: 'object', before: 'call:', quote: '<escape>' }],
    several: { separator: '' },
  },
};

/** Gemma 4. */
export const gemma4: ChatFormat = {
  name: 'gemma4',
  signs: [['<|turn>', '<|tool_call>']],
  families: ['gemma4'],
  tokens: ['<|channel>', '<channel|>', '<|tool_call>', '<tool_call|>', '<|"|>'],
  reasoning: { open: '<|channel>thought\n', close: '<channel|>' },
  tools: {
    open: ['<|tool_call>'],
    close: '<tool_call|>',
    calls: [{ kind: 'object', before: 'call:', quote: '<|"|>' }],
    several: { separator: '' },
  },
};
