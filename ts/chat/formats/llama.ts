import type { ChatFormat } from './types.js';

/** Llama 3.1, 3.2, 3.3: the whole message is the call; `<|python_tag|>` comes first at times. */
export const llama3: ChatFormat = {
  name: 'llama3',
  signs: [['<|start_header_id|>', '"parameters": dictionary of argument name']],
  tokens: ['<|python_tag|>'],
  tools: {
    open: ['<|python_tag|>'],
    bare: ['json'],
    calls: [{ kind: 'json', name: 'name', arguments: 'parameters' }],
    several: { inSection: true, separator: '; ' },
  },
};

/** Llama 4. */
export const llama4: ChatFormat = {
  name: 'llama4',
  signs: [['<|header_start|>', '"parameters": dictionary of argument name']],
  tokens: ['<|python_start|>', '<|python_end|>'],
  tools: {
    // The template puts the text between the two, and JSON calls behind them.
    open: ['<|python_start|>', '<|python_end|>'],
    bare: ['json', 'python'],
    close: '<|python_end|>',
    calls: [{ kind: 'json', name: 'name', arguments: 'parameters' }, { kind: 'python' }],
    several: { inSection: true, separator: '' },
  },
};

/** Cogito on Llama: a bare list. */
export const cogito: ChatFormat = {
  name: 'cogito',
  signs: [['deep thinking subroutine', 'tool_call.function|tojson']],
  tokens: ['<think>', '</think>'],
  reasoning: { open: '<think>', close: '</think>' },
  tools: { open: [], bare: ['json'], calls: [{ kind: 'json', name: 'name', arguments: 'arguments', list: true }] },
};
