/** MCP servers in this process, and a model that uses their tools. */

import { fromJsonSchema, McpServer as SdkServer } from '@modelcontextprotocol/server';

import type { ChatEvent, ChatMessage, ChatRequest } from '../../ts/chat/types.js';
import type { McpServer } from '../../ts/mcp/tool.js';
import { inMemory } from './mcp-servers.js';
import { asChat, call } from './response-events.js';
import { content, finished, started } from './scripted-events.js';

/** What a tool may do besides answering. */
export interface ToolContext {
  readonly signal: AbortSignal;
  /** Tells the client how far it is. */
  readonly progress: (done: number) => Promise<void>;
}

export type Run = (args: Record<string, unknown>, context: ToolContext) => Promise<string> | string;

export function toolServer(label: string, tools: Record<string, Run>): McpServer {
  return inMemory(label, () => {
    const made = new SdkServer({ name: label, version: '1' });
    const inputSchema = fromJsonSchema<Record<string, unknown>>({ type: 'object' });
    for (const [name, run] of Object.entries(tools)) {
      made.registerTool(name, { inputSchema }, async (args, { mcpReq }) => {
        const token = mcpReq._meta?.progressToken;
        const progress = async (done: number): Promise<void> => {
          if (token === undefined) return;
          await mcpReq.notify({ method: 'notifications/progress', params: { progressToken: token, progress: done } });
        };
        return { content: [{ type: 'text', text: await run(args, { signal: mcpReq.signal, progress }) }] };
      });
    }
    return made;
  });
}

/** A server `calc` whose `add` notes what it was asked. */
export function calculator(asked: unknown[]): McpServer {
  return toolServer('calc', {
    add: (args) => {
      asked.push(args);
      return String(Number(args['a']) + Number(args['b']));
    },
  });
}

/** Its `add` waits; `stopped` is told that the call was cancelled. */
export function waitingCalculator(began: () => void, stopped: () => void): McpServer {
  return toolServer('calc', {
    add: (_args, { signal }) => {
      began();
      return new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => {
          stopped();
          reject(new Error('told to stop'));
        });
      });
    },
  });
}

/** As a request offers it. */
export function mcpTool(label: string, more: object = {}): object {
  return { type: 'mcp', server_label: label, require_approval: 'never', ...more };
}

export const ADD = call(0, 'add', ['{"a":1,', '"b":2}']);

function textOf({ content: text }: Pick<ChatMessage, 'content'>): string {
  return typeof text === 'string' ? text : JSON.stringify(text);
}

/** Adds, then says what the tool said last. */
export function adds({ messages }: ChatRequest): ChatEvent[] {
  const last = messages.at(-1)!;
  if (last.role === 'tool') return [started, content(`it is ${textOf(last)}`), finished()];
  return asChat([started, ...ADD, finished()]);
}

/** What the model was told, in short. */
export function told({ messages }: ChatRequest): string[] {
  return messages.map(({ role, content: text, toolCalls }) =>
    toolCalls === undefined
      ? `${role}: ${textOf({ content: text })}`
      : `${role} calls ${toolCalls.map((made) => made.name).join(', ')}`,
  );
}
