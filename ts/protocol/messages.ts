/** The conversation of a chat completion request. */

import { invalidType, invalidValue, missingParameter, unsupportedParameter } from './errors.js';
import { array, type Fields, fieldsOf, nonEmptyString, oneOf, shortened, string } from './fields.js';

export interface TextPart {
  readonly type: 'text';
  readonly text: string;
}

export interface ImagePart {
  readonly type: 'image';
  /** http(s) or data URL, as it came. */
  readonly url: string;
}

export type ContentPart = TextPart | ImagePart;

export interface ToolCall {
  readonly id: string;
  readonly name: string;
  /** A JSON string. */
  readonly arguments: string;
}

const ROLES = ['system', 'developer', 'user', 'assistant', 'tool'] as const;

/** Content parts keep the place they had in the request, so that `messages[i].content[j]` names them. */
export interface Message {
  readonly role: (typeof ROLES)[number];
  readonly content: string | readonly ContentPart[] | null;
  readonly name?: string;
  readonly reasoning?: string;
  readonly toolCalls?: readonly ToolCall[];
  readonly toolCallId?: string;
}

export function parseMessage(value: unknown, path: string): Message {
  const fields = fieldsOf(value, path);
  const role = fields.required('role', oneOf(...ROLES));
  const name = fields.optional('name', string);
  switch (role) {
    case 'system':
    case 'developer':
      return { role, content: parseContent(fields, textPart), name };
    case 'user':
      return { role, content: parseContent(fields, userPart), name };
    case 'tool':
      return {
        role,
        content: parseContent(fields, textPart),
        name,
        toolCallId: fields.required('tool_call_id', nonEmptyString),
      };
    case 'assistant':
      return parseAssistant(fields, name);
  }
}

function parseContent(fields: Fields, part: (value: unknown, path: string) => ContentPart): string | ContentPart[] {
  const path = fields.pathOf('content');
  const value = fields.raw('content');
  if (value === undefined) throw missingParameter(path, 'a string or an array of parts');
  if (typeof value === 'string') return value;
  if (!Array.isArray(value)) throw invalidType(path, 'a string or an array of parts', value);
  return array(part, 1)(value, path);
}

function parseAssistant(fields: Fields, name: string | undefined): Message {
  for (const field of ['function_call', 'audio']) {
    if (fields.raw(field) !== undefined) throw unsupportedParameter(fields.pathOf(field), 'use tool_calls and text');
  }
  const toolCalls = fields.optional('tool_calls', array(toolCall));
  const reasoning = fields.optional('reasoning_content', string) ?? fields.optional('reasoning', string);
  const given = fields.optional('content', (value, path) => {
    if (typeof value === 'string') return value;
    if (!Array.isArray(value)) throw invalidType(path, 'a string or an array of parts', value);
    return array(assistantPart)(value, path);
  });
  const content = given ?? fields.optional('refusal', string) ?? null;
  if (content === null && reasoning === undefined && (toolCalls === undefined || toolCalls.length === 0)) {
    throw missingParameter(fields.pathOf('content'), 'an assistant message needs content or tool_calls');
  }
  return { role: 'assistant', content, name, reasoning, ...(toolCalls?.length ? { toolCalls } : {}) };
}

const TEXT_TYPES = ['text', 'input_text', 'output_text'];

function textPart(value: unknown, path: string): TextPart {
  const { fields, type } = partOf(value, path);
  if (!TEXT_TYPES.includes(type)) throw wrongPart(fields, type, "this role's messages hold text parts only");
  return { type: 'text', text: fields.required('text', string) };
}

function assistantPart(value: unknown, path: string): TextPart {
  const { fields, type } = partOf(value, path);
  return type === 'refusal' ? { type: 'text', text: fields.required('refusal', string) } : textPart(value, path);
}

function userPart(value: unknown, path: string): ContentPart {
  const { fields, type } = partOf(value, path);
  if (TEXT_TYPES.includes(type)) return { type: 'text', text: fields.required('text', string) };
  if (type !== 'image_url') throw wrongPart(fields, type, 'a user message holds text and image_url parts');
  const url = fields.required('image_url', (image, imagePath) =>
    typeof image === 'string'
      ? nonEmptyString(image, imagePath)
      : fieldsOf(image, imagePath).required('url', nonEmptyString),
  );
  return { type: 'image', url };
}

function partOf(value: unknown, path: string): { fields: Fields; type: string } {
  const fields = fieldsOf(value, path);
  return { fields, type: fields.required('type', string) };
}

function wrongPart(fields: Fields, type: string, supported: string): Error {
  return invalidValue(fields.pathOf('type'), `${shortened(type)} is not supported here: ${supported}`);
}

function toolCall(value: unknown, path: string): ToolCall {
  const fields = fieldsOf(value, path);
  const type = fields.optional('type', string) ?? 'function';
  if (type !== 'function') throw invalidValue(fields.pathOf('type'), `must be 'function', got ${shortened(type)}`);
  const called = fields.required('function', fieldsOf);
  return {
    id: fields.required('id', nonEmptyString),
    name: called.required('name', nonEmptyString),
    arguments: called.required('arguments', string),
  };
}
