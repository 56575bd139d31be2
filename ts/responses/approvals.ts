/**
 * Answers to approval requests: each request can be answered once, whoever posts the answer how often, also over a restart.
 * An answer is taken before anything is run; if nothing comes of it, it is given back.
 */

import { type ApprovalDecision, pendingApprovals } from '../mcp/approval.js';
import type { ToolLoopEvent } from '../mcp/loop-events.js';
import { ApiError, invalidValue } from '../protocol/errors.js';
import type { ContextItem } from '../protocol/response-items.js';
import type { CallerStore } from './store.js';

export type ApprovalClaims = Pick<CallerStore, 'claimApproval' | 'releaseApproval'>;

/** What one response has taken and not acted on yet. */
export class HeldClaims {
  private readonly ids = new Set<string>();

  constructor(private readonly claims: ApprovalClaims) {}

  take(id: string): boolean {
    if (!this.claims.claimApproval(id)) return false;
    this.ids.add(id);
    return true;
  }

  /** From the moment a call is announced its answer counts as used: it may be running. */
  async *watch(events: AsyncGenerator<ToolLoopEvent, void>): AsyncGenerator<ToolLoopEvent, void> {
    for await (const event of events) {
      if (event.type === 'mcp_call_started' && event.approvalRequestId !== undefined) {
        this.ids.delete(event.approvalRequestId);
      } else if (event.type === 'approval_denied') {
        this.ids.delete(event.request.id);
      }
      yield event;
    }
  }

  release(): void {
    for (const id of this.ids) this.claims.releaseApproval(id);
    this.ids.clear();
  }
}

/**
 * Takes the answers that are to be acted on. An answer is new if it stands in the request's own input and the assistant
 * has not gone on after it there; others are history, which clients that keep it themselves send every time.
 * @param items the whole conversation, `input` its end
 * @throws ApiError 400 for a new answer to what was answered before; nothing is taken then
 */
export function claimAnswers(
  decisions: readonly ApprovalDecision[],
  items: readonly ContextItem[],
  input: readonly ContextItem[],
  held: HeldClaims,
): ApprovalDecision[] {
  const fresh = newAnswers(input);
  const requestedHere = new Set(input.flatMap((item) => (item.type === 'mcp_approval_request' ? [item.id] : [])));
  const executed = new Set(items.map((item) => (item.type === 'mcp_call' ? item.approval_request_id : null)));
  try {
    for (const id of fresh) if (executed.has(id)) throw answeredBefore(id);
    return decisions.map((decision) => {
      const { id, approve } = decision;
      const isNew = fresh.has(id);
      // Nothing is run for it: told again as often as the conversation is read, and on a client's own word.
      if (!approve && (!isNew || requestedHere.has(id))) return decision;
      if (held.take(id)) return decision;
      if (isNew) throw answeredBefore(id);
      return { ...decision, spent: true };
    });
  } catch (error) {
    held.release();
    throw error;
  }
}

function newAnswers(input: readonly ContextItem[]): Set<string> {
  const last = input.findLastIndex(
    (item) =>
      (item.type === 'message' && item.role === 'assistant') ||
      item.type === 'function_call' ||
      item.type === 'reasoning' ||
      item.type === 'mcp_call' ||
      item.type === 'mcp_approval_request',
  );
  return new Set(
    input.slice(last + 1).flatMap((item) => (item.type === 'mcp_approval_response' ? [item.approval_request_id] : [])),
  );
}

function answeredBefore(id: string): ApiError {
  const shown = JSON.stringify(id.slice(0, 80));
  return new ApiError({
    status: 400,
    type: 'invalid_request_error',
    code: 'approval_already_answered',
    param: 'input',
    message: `the approval request ${shown} was already answered: a call is approved once`,
  });
}

/** What was answered and has no call yet. @throws ApiError 400 for an answer to a request that is not in the conversation */
export function decisionsOf(items: readonly ContextItem[]): readonly ApprovalDecision[] {
  const { decisions, unknown } = pendingApprovals({
    requests: items.flatMap((item) =>
      item.type === 'mcp_approval_request' && item.id !== undefined
        ? [{ id: item.id, serverLabel: item.server_label, name: item.name, arguments: item.arguments }]
        : [],
    ),
    answers: items.flatMap((item) =>
      item.type === 'mcp_approval_response'
        ? [{ approvalRequestId: item.approval_request_id, approve: item.approve, ...reasonOf(item) }]
        : [],
    ),
    executed: items.flatMap((item) =>
      item.type === 'mcp_call' && item.approval_request_id !== null ? [item.approval_request_id] : [],
    ),
  });
  const [first] = unknown;
  if (first !== undefined) {
    const shownId = JSON.stringify(first.slice(0, 80));
    throw invalidValue('input', `answers the approval request ${shownId}, which is not part of the conversation`);
  }
  return decisions;
}

function reasonOf({ reason }: { readonly reason?: string }): { readonly reason?: string } {
  return reason === undefined ? {} : { reason };
}
