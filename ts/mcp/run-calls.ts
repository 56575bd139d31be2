/** Runs the calls of one turn side by side and reports them in their order. */

import type { McpPool } from './client-pool.js';
import { executionError } from './errors.js';
import type { ToolLoopEvent } from './loop-events.js';
import type { OfferedTool } from './naming.js';
import type { McpOutcome } from './tool.js';

export interface RunnableCall {
  readonly id: string;
  /** Undefined: not to be run, and why. */
  readonly offered: OfferedTool | undefined;
  readonly refusal?: string;
  /** A JSON string. */
  readonly arguments: string;
}

/**
 * Progress comes when it comes; the ends of the calls in their order.
 * @param parallel calls under way at once
 * @returns the outcomes, in the calls' order
 * @throws EngineError `cancelled`
 */
export async function* runCalls(
  calls: readonly RunnableCall[],
  pool: McpPool,
  parallel: number,
  signal: AbortSignal,
): AsyncGenerator<ToolLoopEvent, McpOutcome[]> {
  const outcomes: (McpOutcome | undefined)[] = calls.map(() => undefined);
  const progress: ToolLoopEvent[] = [];
  let failure: { readonly error: unknown } | undefined;
  let wake: () => void = () => undefined;
  let started = 0;

  const work = async (): Promise<void> => {
    for (let at = started++; at < calls.length && failure === undefined; at = started++) {
      const call = calls[at];
      if (call === undefined) return;
      outcomes[at] = await runCall(call, pool, signal, (event) => {
        progress.push(event);
        wake();
      });
      wake();
    }
  };
  for (let worker = 0; worker < Math.min(parallel, calls.length); worker++) {
    work().catch((error: unknown) => {
      failure ??= { error };
      wake();
    });
  }

  for (let next = 0; next < calls.length;) {
    const changed = new Promise<void>((resolve) => {
      wake = resolve;
    });
    yield* progress.splice(0);
    const outcome = outcomes[next];
    const call = calls[next];
    if (outcome !== undefined && call !== undefined) {
      next++;
      yield outcome.ok
        ? { type: 'mcp_call_completed', id: call.id, output: outcome.output }
        : { type: 'mcp_call_failed', id: call.id, error: outcome.error };
    } else if (failure !== undefined) {
      throw failure.error;
    } else if (progress.length === 0) {
      await changed;
    }
  }
  return outcomes.filter((outcome) => outcome !== undefined);
}

async function runCall(
  call: RunnableCall,
  pool: McpPool,
  signal: AbortSignal,
  report: (event: ToolLoopEvent) => void,
): Promise<McpOutcome> {
  const { id, offered } = call;
  if (offered === undefined) return { ok: false, error: executionError(call.refusal ?? 'this tool is not available') };
  const args = argumentsOf(call.arguments);
  if (args === undefined) return { ok: false, error: executionError('the arguments must be a JSON object') };
  let reported = Number.NEGATIVE_INFINITY;
  return pool.callTool(offered.server, offered.tool.name, args, {
    signal,
    onProgress: (progress) => {
      const now = performance.now();
      if (now - reported < pool.limits.progressMs) return;
      reported = now;
      report({ type: 'mcp_call_progress', id, progress });
    },
  });
}

function argumentsOf(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = text.trim() === '' ? {} : JSON.parse(text);
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Readonly<Record<string, unknown>>)
      : undefined;
  } catch {
    return undefined;
  }
}
