/** Formats whose calls are one JSON list behind a marker. */

import type { ChatFormat } from './types.js';

/** Phi-4-mini. It was also taught `functools[…]`. */
export const phi4Mini: ChatFormat = {
  name: 'phi4-mini',
  signs: [['<|tool|>', '<|/tool|>']],
  tokens: ['<|tool_call|>', '<|/tool_call|>'],
  tools: {
    open: ['<|tool_call|>'],
    openAtStart: ['functools'],
    close: '<|/tool_call|>',
    calls: [{ kind: 'json', name: 'name', arguments: 'arguments', list: true }],
  },
};

/** Granite 3. */
export const granite3: ChatFormat = {
  name: 'granite3',
  signs: [['<|start_of_role|>', '<|tool_call|>']],
  tokens: ['<|tool_call|>', '<think>', '</think>'],
  reasoning: { open: '<think>', close: '</think>' },
  tools: {
    open: ['<|tool_call|>'],
    openAtStart: ['<tool_call>'],
    calls: [{ kind: 'json', name: 'name', arguments: 'arguments', list: true }],
  },
};

/** Command R7B. */
export const commandR: ChatFormat = {
  name: 'command-r',
  signs: [['<|START_ACTION|>', '<|END_ACTION|>']],
  tokens: ['<|START_THINKING|>', '<|END_THINKING|>', '<|START_ACTION|>', '<|END_ACTION|>'],
  reasoning: { open: '<|START_THINKING|>', close: '<|END_THINKING|>' },
  tools: {
    open: ['<|START_ACTION|>'],
    close: '<|END_ACTION|>',
    calls: [{ kind: 'json', name: 'tool_name', arguments: 'parameters', list: true }],
  },
};
