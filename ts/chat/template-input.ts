/** Messages and tools → what a Hugging Face chat template expects, as `transformers serve` prepares them. */

import { createHash } from 'node:crypto';

import { EngineError, type LoadedModel } from '../engine/types.js';
import {
  adaptMessages,
  adaptTemplateMessages,
  effortVariables,
  givenArguments,
  toolVariables,
} from './template-dialect.js';
import type { TemplateInput } from './template-render.js';
import type { ChatMessage, ChatRequest, ContentPart, ToolCall, ToolDefinition } from './types.js';

/**
 * The template's input for one request to a text model. Throws EngineError `invalid_request`: no template, an empty
 * conversation, a picture, tool-call arguments that are not JSON, nothing to continue.
 */
export function toTemplateInput(info: LoadedModel, request: ChatRequest): TemplateInput {
  const { messages, tools = [], continueFinalMessage = false } = request;
  if (messages.length === 0) throw invalid('messages must not be empty');
  if (continueFinalMessage && messages.at(-1)?.role !== 'assistant') {
    throw invalid('only an assistant message can be continued');
  }
  const template = chooseTemplate(info, tools);
  // Before anything is moved, so that errors name the place in the request.
  checkMessages(messages);
  const adapted = adaptMessages(template, info.family, messages).map((message) => toTemplateMessage(template, message));
  return {
    template,
    messages: adaptTemplateMessages(template, adapted, tools),
    tools: tools.length > 0 ? tools.map(toTemplateTool) : undefined,
    addGenerationPrompt: (request.addGenerationPrompt ?? true) && !continueFinalMessage,
    continueFinalMessage,
    specialTokens: info.specialTokens,
    variables: {
      ...toolVariables(template, tools, request.templateVariables),
      ...effortVariables(template, info.family, request.templateVariables),
    },
  };
}

/** Of several named templates `tool_use` serves requests with tools, `default` the others. */
export function chooseTemplate(info: LoadedModel, tools: ChatRequest['tools']): string {
  const named = info.chatTemplates;
  const forTools = tools && tools.length > 0 ? named?.['tool_use'] : undefined;
  const template = forTools ?? info.chatTemplate ?? named?.['default'];
  if (template !== undefined) return template;
  throw new EngineError(
    'invalid_request',
    `the model ${info.id} has no chat template: it can only complete text, with /v1/completions`,
    'messages',
  );
}

function checkMessages(messages: readonly ChatMessage[]): void {
  for (const [index, { content, toolCalls = [] }] of messages.entries()) {
    if (Array.isArray(content) && content.some((part: ContentPart) => part.type !== 'text')) {
      throw new EngineError('invalid_request', 'this model takes text only, no images', `messages[${index}].content`);
    }
    for (const call of toolCalls) checkArguments(call, index);
  }
}

function toTemplateMessage(template: string, message: ChatMessage): Record<string, unknown> {
  const out: Record<string, unknown> = {
    role: toTemplateRole(template, message.role),
    content: toContent(template, message),
  };
  if (message.name !== undefined) out['name'] = message.name;
  if (message.reasoning !== undefined) {
    out['reasoning_content'] = message.reasoning;
    // gpt-oss calls it by another name.
    if (/\bmessage(\.thinking|\[['"]thinking)/.test(template)) out['thinking'] = message.reasoning;
  }
  if (message.toolCalls && message.toolCalls.length > 0) {
    out['tool_calls'] = message.toolCalls.map((call) => toTemplateCall(template, call));
  }
  if (message.toolCallId !== undefined) out['tool_call_id'] = toTemplateId(template, message.toolCallId);
  return out;
}

/** `developer` is OpenAI's newer word for `system`; a template that does not know it would drop or refuse the message. */
function toTemplateRole(template: string, role: ChatMessage['role']): string {
  return role === 'developer' && !template.includes('developer') ? 'system' : role;
}

/** Some templates show calls only where the content is none. */
function toContent(template: string, message: ChatMessage): string | null {
  const asksForNone = /and message(\['content'\]|\.content) is none/.test(template);
  return message.content === null && message.toolCalls !== undefined && asksForNone ? null : toText(message.content);
}

/** A text model's template gets one string; `transformers serve` joins parts with a space. */
function toText(content: string | readonly ContentPart[] | null): string {
  if (content === null) return '';
  if (typeof content === 'string') return content;
  return content.map((part) => (part.type === 'text' ? part.text : '')).join(' ');
}

function toTemplateCall(template: string, call: ToolCall): Record<string, unknown> {
  const given = givenArguments(call);
  // Where a template adds them to text they must be text: the model's own, so that its tokens are found in the cache.
  const asText = /\+\s*tool(_call)?(\['function'\]|\.function)?(\['arguments'\]|\.arguments)(?!\s*\|)/.test(template);
  return {
    id: toTemplateId(template, call.id),
    type: 'function',
    // Templates go through the arguments as a mapping; on the wire they are a JSON string.
    function: { name: call.name, arguments: asText ? given : (JSON.parse(given) as unknown) },
  };
}

/** Mistral's templates refuse ids that are not nine letters and digits; the same id always becomes the same. */
function toTemplateId(template: string, id: string): string {
  if (!/length\s*!=\s*9/.test(template) || /^[A-Za-z0-9]{9}$/.test(id)) return id;
  return createHash('sha256').update(id).digest('hex').slice(0, 9);
}

function checkArguments(call: ToolCall, index: number): void {
  const fail = (what: string, cause?: unknown): EngineError =>
    new EngineError(
      'invalid_request',
      `the arguments of the tool call ${call.name} are ${what}`,
      `messages[${index}].tool_calls`,
      { cause },
    );
  let given: unknown;
  try {
    given = JSON.parse(givenArguments(call));
  } catch (error) {
    throw fail('not JSON', error);
  }
  if (typeof given !== 'object' || given === null || Array.isArray(given)) throw fail('not a JSON object');
}

function toTemplateTool(tool: ToolDefinition): Record<string, unknown> {
  const { name, description, parameters, strict } = tool;
  return {
    type: 'function',
    function: {
      name,
      ...(description === undefined ? {} : { description }),
      ...(parameters === undefined ? {} : { parameters }),
      ...(strict === undefined ? {} : { strict }),
    },
  };
}

function invalid(message: string): EngineError {
  return new EngineError('invalid_request', message, 'messages');
}
