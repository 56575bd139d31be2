/** Calls that wait for the user's word. */

import type { McpRequireApproval, McpToolFilter } from '../protocol/mcp.js';
import { matches, type McpToolInfo } from './tool.js';

/** In doubt a call waits: a filter without conditions frees nothing, and `always` goes before `never`. */
export function needsApproval(policy: McpRequireApproval, tool: McpToolInfo): boolean {
  if (policy === 'always' || policy === 'never') return policy === 'always';
  const named = (filter: McpToolFilter | undefined): boolean =>
    filter !== undefined && Object.keys(filter).length > 0 && matches(filter, tool);
  return named(policy.always) || !named(policy.never);
}

/** A call that was held back: the item `mcp_approval_request`. */
export interface ApprovalRequest {
  /** `mcpr_…`. */
  readonly id: string;
  readonly serverLabel: string;
  /** The tool's own name. */
  readonly name: string;
  /** A JSON string, as the model wrote it. */
  readonly arguments: string;
}

/** The item `mcp_approval_response`. */
export interface ApprovalAnswer {
  readonly approvalRequestId: string;
  readonly approve: boolean;
  readonly reason?: string;
}

/** An answered call that no call of the conversation goes back to. */
export interface ApprovalDecision extends ApprovalRequest {
  readonly approve: boolean;
  /** The answer was acted on before, and what became of the call is not in the conversation: it is not run. */
  readonly spent?: true;
  readonly reason?: string;
}

export interface ApprovalHistory {
  readonly requests: readonly ApprovalRequest[];
  readonly answers: readonly ApprovalAnswer[];
  /** `approval_request_id` of every `mcp_call` of the conversation: those were run, and are not run again. */
  readonly executed: readonly string[];
}

export interface ApprovalState {
  /** To be acted on, in the order of the requests. */
  readonly decisions: readonly ApprovalDecision[];
  /** Answers to nothing that was asked: the request is wrong. */
  readonly unknown: readonly string[];
}

/** What is to be done after a conversation with these items. Of several answers to one request the last one counts. */
export function pendingApprovals({ requests, answers, executed }: ApprovalHistory): ApprovalState {
  const asked = new Map(requests.map((request) => [request.id, request]));
  const done = new Set(executed);
  const answered = new Map(answers.map((answer) => [answer.approvalRequestId, answer]));
  return {
    decisions: [...asked.values()].flatMap((request) => {
      const answer = answered.get(request.id);
      if (answer === undefined || done.has(request.id)) return [];
      const { approve, reason } = answer;
      return [{ ...request, approve, ...(reason === undefined ? {} : { reason }) }];
    }),
    unknown: [...answered.keys()].filter((id) => !asked.has(id)),
  };
}

/** The id of the call that an approval leads to. The same approval always leads to the same call. */
export function callIdOfApproval(approvalRequestId: string): string {
  return `mcp_${approvalRequestId.replace(/^mcpr_/, '')}`;
}

/** What the model is told of a call that was allowed and lost. */
export const SPENT_TEXT = 'This call was allowed before. It is not run again, and its result is not known.';

/** What the model is told instead of a result. */
export function denialText(reason: string | undefined): string {
  const why = reason === undefined || reason === '' ? '' : ` Their reason: ${reason}`;
  return `The user did not allow this call, and it was not run.${why}`;
}
