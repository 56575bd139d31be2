import type { ChatFormat } from './types.js';

const deepseek = {
  tokens: [
    '<think>',
    '</think>',
    '<｜tool▁calls▁begin｜>',
    '<｜tool▁calls▁end｜>',
    '<｜tool▁call▁begin｜>',
    '<｜tool▁call▁end｜>',
    '<｜tool▁sep｜>',
  ],
  reasoning: { open: '<think>', close: '</think>' },
};

/** DeepSeek V3, R1 and its distillates: the arguments are a fenced block. */
export const deepseek3: ChatFormat = {
  ...deepseek,
  name: 'deepseek3',
  signs: [['<｜tool▁calls▁begin｜>', '```json']],
  tools: {
    open: ['<｜tool▁calls▁begin｜>'],
    close: '<｜tool▁calls▁end｜>',
    calls: [
      {
        kind: 'named',
        before: '<｜tool▁call▁begin｜>function<｜tool▁sep｜>',
        between: '\n```json\n',
        after: '\n```<｜tool▁call▁end｜>',
      },
      { kind: 'named', before: '<｜tool▁call▁begin｜>', between: '<｜tool▁sep｜>', after: '<｜tool▁call▁end｜>' },
    ],
    several: { inSection: true, separator: '\n' },
  },
};

/** DeepSeek V3.1 and later. */
export const deepseek31: ChatFormat = {
  ...deepseek,
  name: 'deepseek31',
  signs: [['<｜tool▁calls▁begin｜>', '<｜tool▁sep｜>']],
  tools: {
    open: ['<｜tool▁calls▁begin｜>'],
    close: '<｜tool▁calls▁end｜>',
    calls: [
      { kind: 'named', before: '<｜tool▁call▁begin｜>', between: '<｜tool▁sep｜>', after: '<｜tool▁call▁end｜>' },
    ],
    several: { inSection: true, separator: '' },
  },
};

/** Its templates without tools. */
export const deepseekPlain: ChatFormat = {
  name: 'deepseek',
  signs: [['<｜Assistant｜>', '</think>']],
  tokens: ['<think>', '</think>'],
  reasoning: deepseek.reasoning,
};
