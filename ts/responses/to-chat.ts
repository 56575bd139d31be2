/** Items → messages, tools and settings of a chat request. */

import type { ChatMessage, ChatRequest, ContentPart, ResponseFormat, ToolCall, ToolChoice } from '../chat/types.js';
import { callIdOfApproval } from '../mcp/approval.js';
import { unsupportedValue } from '../protocol/errors.js';
import type { ContextItem, McpCallItem, MessageItem, MessagePart, ReasoningItem } from '../protocol/response-items.js';
import type { ResponseTextFormat, ResponseTool, ResponseToolChoice } from '../protocol/response-tools.js';
import type { CreateResponse } from '../protocol/responses.js';
import { decodeReasoning } from './compaction.js';

export interface ToChatOptions {
  /** What the model knows an MCP tool as; with it, calls that wait for approval are shown too. @default its bare name */
  readonly mcpName?: (serverLabel: string, name: string) => string;
}

/** @param items the whole conversation, without references and compactions */
export function toChatRequest(
  request: CreateResponse,
  items: readonly ContextItem[],
  options: ToChatOptions = {},
): ChatRequest {
  const { instructions, sampling, maxOutputTokens, stop, stopTokenIds, ignoreEos, logprobs, cacheSalt } = request;
  const tools = request.tools.flatMap(toToolDefinition);
  const choice = toToolChoice(request.toolChoice, request.tools);
  const format = toResponseFormat(request.format);
  const hasTools = request.tools.length > 0;
  return {
    messages: [
      ...(instructions === undefined ? [] : [{ role: 'system', content: instructions } as const]),
      ...toMessages(items, options),
    ],
    // Under `none` the model is not even told of them.
    ...(tools.length === 0 || choice === 'none' ? {} : { tools }),
    ...(hasTools ? { toolChoice: choice, parallelToolCalls: request.parallelToolCalls } : {}),
    ...(format === undefined ? {} : { responseFormat: format }),
    sampling,
    ...(maxOutputTokens === undefined ? {} : { maxTokens: maxOutputTokens }),
    ...(stop.length === 0 ? {} : { stop }),
    ...(stopTokenIds.length === 0 ? {} : { stopTokenIds }),
    ...(ignoreEos ? { ignoreEos } : {}),
    ...(logprobs === undefined ? {} : { logprobs }),
    templateVariables: request.templateVariables,
    ...(cacheSalt === undefined ? {} : { cacheSalt }),
  };
}

/**
 * Reasoning, text and calls that follow each other are one message of the assistant, as chat templates expect it;
 * every output of a tool is a message of its own.
 */
export function toMessages(items: readonly ContextItem[], { mcpName }: ToChatOptions = {}): ChatMessage[] {
  const messages: ChatMessage[] = [];
  let turn = new AssistantTurn();
  const executed = new Set(items.map((item) => (item.type === 'mcp_call' ? item.approval_request_id : null)));
  const flush = (): void => {
    const message = turn.message();
    if (message !== undefined) messages.push(message);
    turn = new AssistantTurn();
  };
  for (const item of items) {
    switch (item.type) {
      case 'message':
        if (item.role === 'assistant') {
          if (turn.hasSpoken) flush();
          turn.speak(textOf(item));
        } else {
          flush();
          messages.push({ role: item.role, content: toContent(item.content) });
        }
        break;
      case 'reasoning':
        if (turn.hasSpoken) flush();
        turn.think(reasoningOf(item));
        break;
      case 'function_call':
        // Half a call is no call, and templates refuse it.
        if (item.status !== 'incomplete') {
          turn.call({ id: item.call_id, name: item.name, arguments: item.arguments });
        }
        break;
      case 'function_call_output':
        flush();
        messages.push({ role: 'tool', toolCallId: item.call_id, content: toContent(item.output) });
        break;
      case 'mcp_call': {
        const result = mcpResult(item);
        if (result === undefined) break;
        const id = item.id ?? `${item.server_label}.${item.name}`;
        turn.call({ id, name: mcpName?.(item.server_label, item.name) ?? item.name, arguments: item.arguments });
        flush();
        messages.push({ role: 'tool', toolCallId: id, content: result });
        break;
      }
      case 'mcp_approval_request': {
        const { id = '', server_label: label, name } = item;
        // Whoever names the tools also says what became of the call.
        if (mcpName === undefined || executed.has(id)) break;
        turn.call({ id: callIdOfApproval(id), name: mcpName(label, name), arguments: item.arguments });
        break;
      }
      case 'mcp_list_tools':
      case 'mcp_approval_response':
        break;
      case 'compaction':
        throw new TypeError('compactions are unfolded before');
    }
  }
  flush();
  return messages;
}

/** @throws ApiError for the first picture: all models read text only, so far */
export function refuseImages(request: ChatRequest, model: string): void {
  for (const { content } of request.messages) {
    if (content === null || typeof content === 'string') continue;
    if (content.some(({ type }) => type === 'image')) {
      throw unsupportedValue('input', `it holds an image, and '${model}' reads text only`);
    }
  }
}

class AssistantTurn {
  private reasoning: string[] = [];
  private content: string | null = null;
  private readonly calls: ToolCall[] = [];

  get hasSpoken(): boolean {
    return this.content !== null || this.calls.length > 0;
  }

  think(text: string): void {
    if (text !== '') this.reasoning.push(text);
  }

  speak(text: string): void {
    this.content = text;
  }

  call(call: ToolCall): void {
    this.calls.push(call);
  }

  /** Undefined if nothing was said: reasoning alone, cut off, tells the next turn nothing. */
  message(): ChatMessage | undefined {
    if (!this.hasSpoken) return undefined;
    return {
      role: 'assistant',
      content: this.content,
      ...(this.reasoning.length === 0 ? {} : { reasoning: this.reasoning.join('\n') }),
      ...(this.calls.length === 0 ? {} : { toolCalls: this.calls }),
    };
  }
}

function textOf({ content }: MessageItem): string {
  return content.map((part) => (part.type === 'refusal' ? part.refusal : 'text' in part ? part.text : '')).join('');
}

function reasoningOf({ content = [], encrypted_content: encoded, summary }: ReasoningItem): string {
  if (content.length > 0) return content.map(({ text }) => text).join('');
  return decodeReasoning(encoded ?? '') ?? summary.map(({ text }) => text).join('\n');
}

/** One text is a string: that is what most templates know. */
function toContent(content: string | readonly MessagePart[]): string | readonly ContentPart[] {
  if (typeof content === 'string') return content;
  const parts = content.map((part): ContentPart =>
    part.type === 'input_image'
      ? { type: 'image', url: part.image_url }
      : { type: 'text', text: part.type === 'refusal' ? part.refusal : part.text },
  );
  const [first] = parts;
  if (first === undefined) return '';
  return parts.length === 1 && first.type === 'text' ? first.text : parts;
}

/** Undefined for a call without any outcome. */
function mcpResult({ output, error }: McpCallItem): string | undefined {
  if (error !== null) return typeof error === 'string' ? error : JSON.stringify(error);
  return output ?? undefined;
}

function toToolDefinition(tool: ResponseTool): NonNullable<ChatRequest['tools']>[number][] {
  if (tool.type !== 'function') return [];
  const { name, description, parameters, strict } = tool;
  return [
    {
      name,
      ...(description === null ? {} : { description }),
      ...(parameters === null ? {} : { parameters }),
      ...(strict === null ? {} : { strict }),
    },
  ];
}

/** Choices of MCP tools are the loop's: it knows their names. */
function toToolChoice(choice: ResponseToolChoice, tools: readonly ResponseTool[]): ToolChoice {
  if (typeof choice === 'string') return choice;
  if (choice.type === 'function') return { name: choice.name };
  if (choice.type === 'mcp') return 'required';
  const allowed = choice.tools.flatMap((tool) => (tool.type === 'function' ? [tool.name] : []));
  const everything = tools.every((tool) => tool.type === 'function' && allowed.includes(tool.name));
  return everything ? choice.mode : { allowed, mode: choice.mode };
}

function toResponseFormat(format: ResponseTextFormat): ResponseFormat | undefined {
  if (format.type !== 'json_schema') return format.type === 'text' ? undefined : format;
  const { type, name, schema, strict } = format;
  return { type, name, schema, strict };
}
