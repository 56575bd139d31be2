import type { ChatFormat } from './types.js';

const mistral = {
  tokens: ['[TOOL_CALLS]', '[ARGS]', '[CALL_ID]', '[THINK]', '[/THINK]'],
  reasoning: { open: '[THINK]', close: '[/THINK]' },
};

/** Mistral and Ministral from their eleventh tokenizer on: `[TOOL_CALLS]name[ARGS]{…}`, again for each call. */
export const mistralArgs: ChatFormat = {
  ...mistral,
  name: 'mistral-args',
  signs: [['[TOOL_CALLS]', '[ARGS]']],
  families: ['ministral3'],
  tools: {
    open: ['[TOOL_CALLS]'],
    calls: [
      { kind: 'named', before: '', between: '[ARGS]', id: '[CALL_ID]', after: '' },
      { kind: 'json', name: 'name', arguments: 'arguments', list: true },
    ],
    several: { separator: '' },
  },
};

/** Mistral before that: `[TOOL_CALLS][{…}, …]`. Templates without tools leave the newer form possible. */
export const mistralList: ChatFormat = {
  ...mistral,
  name: 'mistral-list',
  signs: [['[TOOL_CALLS]'], ['[INST]', '[/INST]', '[SYSTEM_PROMPT]']],
  tools: {
    open: ['[TOOL_CALLS]'],
    calls: [
      { kind: 'json', name: 'name', arguments: 'arguments', list: true },
      { kind: 'named', before: '', between: '[ARGS]', id: '[CALL_ID]', after: '' },
    ],
  },
};
