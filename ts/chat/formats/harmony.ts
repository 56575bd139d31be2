import type { ChatFormat } from './types.js';

/** gpt-oss: messages in channels; a call is a message to `functions.NAME`. */
export const harmony: ChatFormat = {
  name: 'harmony',
  signs: [['<|start|>', '<|channel|>', '<|message|>']],
  families: ['gpt_oss', 'gpt-oss'],
  tokens: ['<|start|>', '<|channel|>', '<|constrain|>', '<|message|>', '<|end|>', '<|call|>', '<|return|>'],
  channels: true,
};
