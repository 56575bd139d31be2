/** `input` of a response: a string, or items. */

import { invalidType, invalidValue, missingParameter, unsupportedValue } from './errors.js';
import {
  array,
  boolean,
  type Fields,
  fieldsOf,
  isObject,
  nonEmptyString,
  object,
  oneOf,
  type Parse,
  shortened,
  string,
} from './fields.js';
import type {
  FunctionCallOutputItem,
  InputImagePart,
  InputItem,
  InputTextPart,
  ItemStatus,
  McpCallItem,
  McpListedTool,
  MessageItem,
  MessagePart,
  OutputTextPart,
  ReasoningItem,
  RefusalPart,
} from './response-items.js';

/** As in OpenAI's schema. */
export const MAX_TEXT_CHARS = 10_485_760;
export const MAX_IMAGE_URL_CHARS = 20_971_520;
export const MAX_COMPACTION_CHARS = 20_971_520;
/** Of one request; a chain of responses may hold more. */
export const MAX_INPUT_ITEMS = 10_000;
export const MAX_PARTS = 2_048;
const MAX_ID_CHARS = 256;

const ROLES = ['user', 'assistant', 'system', 'developer'] as const;
const STATUSES = ['in_progress', 'completed', 'incomplete'] as const;

/** Traces of tools that run elsewhere: agents resend whole histories. They are left out, with a warning. */
const FOREIGN_ITEMS: ReadonlySet<string> = new Set([
  'file_search_call',
  'web_search_call',
  'computer_call',
  'computer_call_output',
  'code_interpreter_call',
  'image_generation_call',
  'local_shell_call',
  'local_shell_call_output',
  'shell_call',
  'shell_call_output',
  'apply_patch_call',
  'apply_patch_call_output',
  'tool_search_call',
  'tool_search_output',
  'program',
  'program_output',
  'additional_tools',
]);

type Warn = (field: string) => void;

/** Items in their whole form: a string becomes a user's message. @param warn told of items that are left out */
export function parseInput(value: unknown, path: string, warn: Warn): readonly InputItem[] {
  if (typeof value === 'string') {
    return [{ type: 'message', role: 'user', status: 'completed', content: [inputText(text(value, path))] }];
  }
  if (!Array.isArray(value)) throw invalidType(path, 'a string or an array of items', value);
  const items = array((item, itemPath) => parseItem(item, itemPath, warn), 0, MAX_INPUT_ITEMS)(value, path);
  return items.filter((item) => item !== undefined);
}

/** One item; undefined for those that are left out. */
export function parseItem(value: unknown, path: string, warn: Warn): InputItem | undefined {
  const fields = fieldsOf(value, path);
  const type = fields.optional('type', string) ?? (fields.raw('role') === undefined ? 'item_reference' : 'message');
  const parse = Object.hasOwn(ITEMS, type) ? ITEMS[type] : undefined;
  if (parse !== undefined) return parse(fields);
  if (FOREIGN_ITEMS.has(type)) {
    warn(`input[].type=${shortened(type)}`);
    return undefined;
  }
  if (type === 'custom_tool_call' || type === 'custom_tool_call_output') {
    throw unsupportedValue(fields.pathOf('type'), 'custom tools are not available; use a function');
  }
  throw invalidValue(fields.pathOf('type'), `${shortened(type)} is not an item this server knows`);
}

const ITEMS: Readonly<Partial<Record<string, (fields: Fields) => InputItem>>> = {
  message,
  function_call: (fields) => ({
    type: 'function_call',
    ...ownId(fields),
    call_id: fields.required('call_id', id),
    name: fields.required('name', nonEmptyString),
    arguments: fields.required('arguments', text),
    status: status(fields),
  }),
  function_call_output: functionOutput,
  reasoning,
  item_reference: (fields) => ({ type: 'item_reference', id: fields.required('id', id) }),
  mcp_list_tools: (fields) => ({
    type: 'mcp_list_tools',
    ...ownId(fields),
    server_label: fields.required('server_label', nonEmptyString),
    tools: fields.required('tools', array(listedTool, 0, MAX_PARTS)),
    ...some('error', fields.optional('error', errorText)),
  }),
  mcp_call: mcpCall,
  mcp_approval_request: (fields) => ({
    type: 'mcp_approval_request',
    ...ownId(fields),
    server_label: fields.required('server_label', nonEmptyString),
    name: fields.required('name', nonEmptyString),
    arguments: fields.required('arguments', text),
  }),
  mcp_approval_response: (fields) => ({
    type: 'mcp_approval_response',
    ...ownId(fields),
    approval_request_id: fields.required('approval_request_id', id),
    approve: fields.required('approve', boolean),
    ...some('reason', fields.optional('reason', text)),
  }),
  compaction: (fields) => ({
    type: 'compaction',
    ...ownId(fields),
    encrypted_content: fields.required('encrypted_content', atMost(MAX_COMPACTION_CHARS)),
  }),
};

function message(fields: Fields): MessageItem {
  const role = fields.required('role', oneOf(...ROLES));
  const part = role === 'assistant' ? assistantPart : role === 'user' ? userPart : textPart;
  const given = fields.raw('content');
  const path = fields.pathOf('content');
  if (given === undefined) throw missingParameter(path, 'a string or an array of parts');
  let content: readonly MessagePart[];
  if (typeof given === 'string') {
    content = [role === 'assistant' ? outputText(text(given, path)) : inputText(text(given, path))];
  } else if (Array.isArray(given)) {
    content = array<MessagePart>(part, 0, MAX_PARTS)(given, path);
  } else {
    throw invalidType(path, 'a string or an array of parts', given);
  }
  return { type: 'message', ...ownId(fields), role, status: status(fields), content };
}

function functionOutput(fields: Fields): FunctionCallOutputItem {
  return {
    type: 'function_call_output',
    ...ownId(fields),
    call_id: fields.required('call_id', id),
    output: fields.required('output', (value, path) => {
      if (typeof value === 'string') return text(value, path);
      if (!Array.isArray(value)) throw invalidType(path, 'a string or an array of parts', value);
      return array(userPart, 0, MAX_PARTS)(value, path);
    }),
    status: status(fields),
  };
}

function reasoning(fields: Fields): ReasoningItem {
  const textOf =
    <T extends string>(type: T): Parse<{ type: T; text: string }> =>
    (value, path) => {
      const part = fieldsOf(value, path);
      part.required('type', oneOf(type));
      return { type, text: part.required('text', text) };
    };
  return {
    type: 'reasoning',
    ...ownId(fields),
    summary: fields.optional('summary', array(textOf('summary_text'), 0, MAX_PARTS)) ?? [],
    ...some('content', fields.optional('content', array(textOf('reasoning_text'), 0, MAX_PARTS))),
    ...some('encrypted_content', fields.optional('encrypted_content', atMost(MAX_TEXT_CHARS))),
    ...some('status', fields.optional('status', oneOf(...STATUSES))),
  };
}

function mcpCall(fields: Fields): McpCallItem {
  const error = fields.optional('error', (value, path) => {
    if (typeof value === 'string') return text(value, path);
    if (isObject(value)) return value;
    throw invalidType(path, 'a string or an object', value);
  });
  return {
    type: 'mcp_call',
    ...ownId(fields),
    server_label: fields.required('server_label', nonEmptyString),
    name: fields.required('name', nonEmptyString),
    arguments: fields.required('arguments', text),
    output: fields.optional('output', text) ?? null,
    error: error ?? null,
    status: fields.optional('status', oneOf(...STATUSES, 'calling', 'failed')) ?? 'completed',
    approval_request_id: fields.optional('approval_request_id', id) ?? null,
  };
}

function listedTool(value: unknown, path: string): McpListedTool {
  const fields = fieldsOf(value, path);
  return {
    name: fields.required('name', nonEmptyString),
    input_schema: fields.optional('input_schema', object) ?? {},
    ...some('description', fields.optional('description', string)),
    ...some('annotations', fields.optional('annotations', object)),
  };
}

function userPart(value: unknown, path: string): InputTextPart | InputImagePart {
  const fields = fieldsOf(value, path);
  const type = fields.required('type', string);
  if (type === 'input_image') return image(fields);
  if (type === 'input_file') {
    throw unsupportedValue(fields.pathOf('type'), 'files are not read; put their text into the message');
  }
  return textPart(value, path);
}

function textPart(value: unknown, path: string): InputTextPart {
  const fields = fieldsOf(value, path);
  const type = fields.required('type', string);
  if (type !== 'input_text' && type !== 'output_text' && type !== 'text') {
    throw invalidValue(fields.pathOf('type'), `${shortened(type)} is not supported here: use input_text`);
  }
  return inputText(fields.required('text', text));
}

function assistantPart(value: unknown, path: string): OutputTextPart | RefusalPart {
  const fields = fieldsOf(value, path);
  const type = fields.required('type', string);
  if (type === 'refusal') return { type, refusal: fields.required('refusal', text) };
  if (type !== 'output_text' && type !== 'input_text' && type !== 'text') {
    throw invalidValue(fields.pathOf('type'), `${shortened(type)} is not supported here: use output_text or refusal`);
  }
  return outputText(fields.required('text', text));
}

function image(fields: Fields): InputImagePart {
  if (fields.raw('file_id') !== undefined) {
    throw unsupportedValue(fields.pathOf('file_id'), 'there is no file store; send image_url');
  }
  return {
    type: 'input_image',
    image_url: fields.required('image_url', atMost(MAX_IMAGE_URL_CHARS)),
    detail: fields.optional('detail', oneOf('auto', 'low', 'high', 'original')) ?? 'auto',
  };
}

function inputText(value: string): InputTextPart {
  return { type: 'input_text', text: value };
}

function outputText(value: string): OutputTextPart {
  return { type: 'output_text', text: value, annotations: [], logprobs: [] };
}

function status(fields: Fields): ItemStatus {
  return fields.optional('status', oneOf(...STATUSES)) ?? 'completed';
}

function ownId(fields: Fields): { readonly id?: string } {
  return some('id', fields.optional('id', id));
}

function id(value: unknown, path: string): string {
  const given = nonEmptyString(value, path);
  if (given.length > MAX_ID_CHARS) throw invalidValue(path, `must be at most ${MAX_ID_CHARS} characters`);
  return given;
}

function text(value: unknown, path: string): string {
  return atMost(MAX_TEXT_CHARS)(value, path);
}

function atMost(max: number): Parse<string> {
  return (value, path) => {
    const given = string(value, path);
    if (given.length > max) throw invalidValue(path, `must be at most ${max} characters, got ${given.length}`);
    return given;
  };
}

function errorText(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
}

/** A property where there is a value, none where there is none. */
function some<K extends string, T>(name: K, value: T | undefined): { readonly [key in K]?: T } {
  return (value === undefined ? {} : { [name]: value }) as { readonly [key in K]?: T };
}
