/** MCP in a response: the rules of `ToolSession`, shown through the response's machine. */

import type { ChatRequest } from '../chat/types.js';
import { type ApprovalDecision, callIdOfApproval } from '../mcp/approval.js';
import type { McpPool } from '../mcp/client-pool.js';
import { errorText } from '../mcp/errors.js';
import { historyName } from '../mcp/history.js';
import type { ToolLoopEvent } from '../mcp/loop-events.js';
import type { McpToolInfo, RequestedServer } from '../mcp/tool.js';
import type { LoopToolChoice } from '../mcp/tool-choice.js';
import { type SessionCall, ToolSession } from '../mcp/tool-session.js';
import type { ResponseEvent } from '../protocol/response-events.js';
import type { ContextItem, McpListedTool } from '../protocol/response-items.js';
import type { AllowedTool, ResponseToolChoice } from '../protocol/response-tools.js';
import { type ApprovalClaims, claimAnswers, decisionsOf, HeldClaims } from './approvals.js';
import type { CallRoute, ResponseMachine, Turn, TurnCall } from './event-machine.js';
import type { LoopContext, ResponseLoop } from './run.js';

export interface McpLoopOptions {
  readonly pool: McpPool;
  readonly servers: readonly RequestedServer[];
  /** The conversation: what was listed, asked and answered before. */
  readonly items: readonly ContextItem[];
  readonly toolChoice: ResponseToolChoice;
  readonly maxTurns?: number | undefined;
  readonly maxToolCalls?: number | undefined;
  /** The request's own input, the end of `items`. */
  readonly input: readonly ContextItem[];
  /** Which approvals were answered; undefined: nothing will be run, and all are as they look. */
  readonly claims: ApprovalClaims | undefined;
}

/** @throws ApiError 400 for an answer to an approval that nobody asked for, or that was answered before */
export function createMcpLoop(options: McpLoopOptions): ResponseLoop {
  const { items, input, claims } = options;
  const decisions = decisionsOf(items);
  if (claims === undefined) return new McpLoop(options, decisions, undefined);
  const held = new HeldClaims(claims);
  return new McpLoop(options, claimAnswers(decisions, items, input, held), held);
}

class McpLoop implements ResponseLoop {
  readonly mcpName = historyName;
  private readonly disposed = new AbortController();
  private session: ToolSession | undefined;

  constructor(
    private readonly options: McpLoopOptions,
    private readonly approvals: readonly ApprovalDecision[],
    private readonly held: HeldClaims | undefined,
  ) {}

  offer({ request, signal }: Omit<LoopContext, 'machine'>): Promise<ChatRequest> {
    return this.open(request, signal).offer();
  }

  async *begin({ machine, request, signal }: LoopContext): AsyncGenerator<ResponseEvent, ChatRequest> {
    const session = this.open(request, signal);
    this.session = session;
    const events = session.begin();
    yield* shown(this.held === undefined ? events : this.held.watch(events), machine);
    return session.nextRequest() ?? request;
  }

  private open(request: ChatRequest, signal: AbortSignal): ToolSession {
    const { pool, servers, items, toolChoice, maxTurns, maxToolCalls } = this.options;
    return new ToolSession(
      request,
      {
        pool,
        servers,
        knownTools: listsOf(items),
        approvals: this.approvals,
        toolChoice: toLoopChoice(toolChoice),
        ...(maxTurns === undefined ? {} : { maxTurns }),
        ...(maxToolCalls === undefined ? {} : { maxToolCalls }),
      },
      AbortSignal.any([signal, this.disposed.signal]),
    );
  }

  route(name: string): CallRoute {
    const kind = this.begun().kindOf(name);
    if (kind.type === 'function' || kind.type === 'unknown') return { kind: kind.type };
    const { server, tool } = kind.offered;
    return { kind: kind.type, serverLabel: server.label, name: tool.name };
  }

  async *next(turn: Turn, { machine }: LoopContext): AsyncGenerator<ResponseEvent, ChatRequest | undefined> {
    // An answer that was cut off is over; its calls stay open, which makes them incomplete.
    if (turn.reason === 'length') return undefined;
    const session = this.begun();
    const calls = turn.calls.map((call): SessionCall => {
      const { name, arguments: args } = call;
      return { id: idOf(call), name, arguments: args, kind: session.kindOf(name) };
    });
    const message = {
      role: 'assistant',
      content: turn.content === '' && calls.length > 0 ? null : turn.content,
      ...(turn.reasoning === '' ? {} : { reasoning: turn.reasoning }),
      ...(calls.length === 0
        ? {}
        : { toolCalls: calls.map(({ id, name, arguments: args }) => ({ id, name, arguments: args })) }),
    } as const;
    const end = yield* shown(session.endTurn(message, calls, turn.reason), machine);
    return end === undefined ? session.nextRequest() : undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.disposed.abort();
    this.held?.release();
  }

  private begun(): ToolSession {
    if (this.session === undefined) throw new TypeError('the loop has not begun');
    return this.session;
  }
}

/** As a later request will name it. */
function idOf({ route, itemId, callId }: TurnCall): string {
  if (route.kind === 'mcp') return itemId;
  return route.kind === 'approval' ? callIdOfApproval(itemId) : callId;
}

/** What the machine makes of the session's events. Calls and approval requests of a turn it has shown by itself. */
async function* shown<R>(
  events: AsyncGenerator<ToolLoopEvent, R>,
  machine: ResponseMachine,
): AsyncGenerator<ResponseEvent, R> {
  const approved = new Map<string, Extract<ToolLoopEvent, { type: 'mcp_call_started' }>>();
  try {
    for (;;) {
      const step = await events.next();
      if (step.done === true) return step.value;
      const event = step.value;
      switch (event.type) {
        case 'list_tools_finished':
          yield* machine.listedTools(event.serverLabel, event.tools.map(toListedTool));
          break;
        case 'list_tools_failed':
          yield* machine.listedTools(event.serverLabel, [], errorText(event.error));
          break;
        case 'mcp_call_started':
          approved.set(event.id, event);
          break;
        case 'mcp_call_arguments': {
          const call = approved.get(event.id);
          if (call === undefined) break;
          const { id, serverLabel, name, approvalRequestId = '' } = call;
          yield* machine.openMcpCall({ id, serverLabel, name, arguments: event.arguments, approvalRequestId }).events;
          break;
        }
        case 'mcp_call_completed':
          yield* machine.mcpAnswered(event.id, { output: event.output });
          break;
        case 'mcp_call_failed':
          yield* machine.mcpAnswered(event.id, { error: event.error });
          break;
        default:
      }
    }
  } finally {
    await events.return(undefined as R);
  }
}

function toListedTool({ name, description, inputSchema, annotations }: McpToolInfo): McpListedTool {
  return {
    name,
    input_schema: inputSchema,
    ...(description === undefined ? {} : { description }),
    ...(annotations === undefined ? {} : { annotations }),
  };
}

/** The last list of each server that the conversation holds. */
function listsOf(items: readonly ContextItem[]): Map<string, readonly McpToolInfo[]> {
  const lists = new Map<string, readonly McpToolInfo[]>();
  for (const item of items) {
    if (item.type !== 'mcp_list_tools' || item.error !== undefined) continue;
    lists.set(
      item.server_label,
      item.tools.map(({ input_schema: inputSchema, ...tool }) => ({ ...tool, inputSchema })),
    );
  }
  return lists;
}

function toLoopChoice(choice: ResponseToolChoice): LoopToolChoice {
  if (typeof choice === 'string') return choice;
  if (choice.type !== 'allowed_tools') {
    const one = toChoice(choice);
    return typeof one === 'string' ? { name: one } : one;
  }
  return { allowed: choice.tools.map(toChoice), mode: choice.mode };
}

/** A function's name, or tools of a server. */
function toChoice(tool: AllowedTool): string | { readonly serverLabel: string; readonly name?: string } {
  if (tool.type === 'function') return tool.name;
  return { serverLabel: tool.server_label, ...(tool.name === undefined ? {} : { name: tool.name }) };
}
