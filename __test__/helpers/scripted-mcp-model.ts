/** A model that plays its answers turn by turn, and MCP servers in memory, for tests of the tool loop. */

import { fromJsonSchema, McpServer as SdkServer } from '@modelcontextprotocol/server';

import type { ChatEvent, ChatRequest, ToolCallEvent } from '../../ts/chat/types.js';

export type Event = ChatEvent | ToolCallEvent;

const timings = { queued: 0, prefill: 1, decode: 2 };

export function finished(reason: 'stop' | 'length' | 'tool_calls'): Event {
  return { type: 'finished', reason, usage: { promptTokens: 10, cachedTokens: 4, completionTokens: 5 }, timings };
}

/** An answer in text. */
export function says(text: string): Event[] {
  return [{ type: 'content', text }, finished('stop')];
}

/** An answer that calls tools: name and arguments, in pairs. */
export function calls(...pairs: readonly (readonly [string, object])[]): Event[] {
  const events = pairs.flatMap(([name, args], index): Event[] => [
    { type: 'tool_call', index, id: `call_${index}`, name },
    { type: 'tool_call_arguments', index, delta: JSON.stringify(args) },
    { type: 'tool_call_done', index },
  ]);
  return [...events, finished('tool_calls')];
}

/** Plays one answer per turn and keeps what it was asked. */
export class ScriptedModel {
  readonly requests: ChatRequest[] = [];
  left = 0;

  constructor(private readonly answers: readonly (readonly Event[] | ((request: ChatRequest) => readonly Event[]))[]) {}

  async *chat(request: ChatRequest): AsyncGenerator<Event> {
    const answer = this.answers[this.requests.length];
    this.requests.push(request);
    if (answer === undefined) throw new Error('the model was asked more often than the script has answers');
    let whole = false;
    try {
      yield* typeof answer === 'function' ? answer(request) : answer;
      whole = true;
    } finally {
      if (!whole) this.left++;
    }
  }

  last(): ChatRequest {
    return this.requests.at(-1)!;
  }
}

export const anyArguments = fromJsonSchema<Record<string, unknown>>({ type: 'object' });

type ToolResult = { content: { type: 'text'; text: string }[]; isError?: boolean };

export function server(
  tools: Record<string, (args: Record<string, unknown>) => Promise<ToolResult | string> | ToolResult | string>,
) {
  return (): SdkServer => {
    const made = new SdkServer({ name: 'test', version: '1' });
    for (const [name, run] of Object.entries(tools)) {
      const annotations = { readOnlyHint: name.startsWith('get') };
      made.registerTool(name, { inputSchema: anyArguments, annotations }, async (args) => {
        const result = await run(args);
        return typeof result === 'string' ? { content: [{ type: 'text', text: result }] } : result;
      });
    }
    return made;
  };
}
