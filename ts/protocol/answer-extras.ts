/** What answers hold beyond OpenAI's schema: each has a reason to be there, and nothing else is added. */

import type { JsonSchema } from './schemas.js';

export interface AnswerExtra {
  /** The object's `object` or the event's `type`, as it goes over the wire. */
  readonly of:
    | 'chat.completion'
    | 'chat.completion.chunk'
    | 'text_completion'
    | 'response'
    | 'response.output_text.delta'
    | 'model';
  /** Where in it: `choices[].message.reasoning`. */
  readonly at: string;
  readonly schema: JsonSchema;
  readonly note: string;
}

const string = { type: 'string' } as const;
const integer = { type: 'integer', minimum: 0 } as const;
const bytes = { type: 'array', items: { type: 'integer', minimum: 0, maximum: 255 } } as const;
const number = { type: 'number' } as const;
const milliseconds = { type: 'number', minimum: 0 } as const;
const rate = { anyOf: [milliseconds, { type: 'null' }] } as const;

const timings: Pick<AnswerExtra, 'at' | 'schema' | 'note'> = {
  at: 'timings',
  schema: {
    type: 'object',
    required: ['queued_ms', 'cache_n', 'prompt_n', 'prompt_ms', 'predicted_n', 'predicted_ms'],
    additionalProperties: false,
    properties: {
      queued_ms: milliseconds,
      cache_n: integer,
      prompt_n: integer,
      prompt_ms: milliseconds,
      prompt_per_second: rate,
      predicted_n: integer,
      predicted_ms: milliseconds,
      predicted_per_second: rate,
    },
  },
  note: 'counts and speeds under llama.cpp’s names; of one answer to one prompt only',
};

/** @param at of the message or of its delta */
function ofMessage(of: AnswerExtra['of'], at: string): readonly AnswerExtra[] {
  // A delta says once what the call is, and then by its index what became of it.
  const call = { type: 'object', required: at.endsWith('delta') ? ['index'] : ['id'] };
  return [
    { of, at: `${at}.reasoning_content`, schema: string, note: 'what the model thought, apart from its answer' },
    {
      of,
      at: `${at}.reasoning`,
      schema: string,
      note: 'the same text: some clients read the one name, some the other',
    },
    {
      of,
      at: `${at}.mcp_list_tools`,
      schema: { type: 'array', items: { type: 'object', required: ['server_label', 'tools'] } },
      note: 'the tools that MCP servers offered',
    },
    {
      of,
      at: `${at}.mcp_calls`,
      schema: { type: 'array', items: call },
      note: 'the tools of MCP servers that were run, as in the items of a response',
    },
  ];
}

export const ANSWER_EXTRAS: readonly AnswerExtra[] = [
  { of: 'chat.completion', ...timings },
  ...ofMessage('chat.completion', 'choices[].message'),
  { of: 'chat.completion.chunk', ...timings },
  ...ofMessage('chat.completion.chunk', 'choices[].delta'),
  { of: 'text_completion', ...timings },
  { of: 'response', at: 'presence_penalty', schema: number, note: 'as Open Responses has it' },
  { of: 'response', at: 'frequency_penalty', schema: number, note: 'as Open Responses has it' },
  { of: 'response', at: 'store', schema: { type: 'boolean' }, note: 'as Open Responses has it' },
  {
    of: 'response.output_text.delta',
    at: 'logprobs[].bytes',
    schema: bytes,
    note: 'as in the part that it grows, and as Open Responses requires; also in `response.output_text.done`',
  },
  {
    of: 'response.output_text.delta',
    at: 'logprobs[].top_logprobs[].bytes',
    schema: bytes,
    note: 'the same of the alternatives',
  },
  {
    of: 'model',
    at: 'state',
    schema: { enum: ['ready', 'loading', 'available'] },
    note: 'whether it is loaded: `available` ones load when a request names them',
  },
  { of: 'model', at: 'context_length', schema: integer, note: 'tokens; where it is known' },
  { of: 'model', at: 'max_model_len', schema: integer, note: 'the same under vLLM’s name' },
];
