/** What the routes of the Responses API share. */

import { ApiError } from '../../protocol/errors.js';
import type { ContextItem } from '../../protocol/response-items.js';
import type { CreateResponse } from '../../protocol/responses.js';
import { BackgroundRuns } from '../../responses/background.js';
import type { ApprovalClaims } from '../../responses/approvals.js';
import { failInterrupted } from '../../responses/interrupted.js';
import { createMemoryStore } from '../../responses/memory-store.js';
import type { ResponseLoop } from '../../responses/run.js';
import { additionOf, type CallerStore, type ResponseStore, type StoredResponse } from '../../responses/store.js';
import type { Logger } from '../logger.js';

export interface LoopRequest {
  readonly request: CreateResponse;
  /** The whole conversation. */
  readonly items: readonly ContextItem[];
  /** Its end: what came with the request. */
  readonly input: readonly ContextItem[];
  /** Undefined: nothing will be run. */
  readonly claims: ApprovalClaims | undefined;
  /** Who asks, if a key was shown: what is not to be shared between callers is kept apart by it. Not the key itself. */
  readonly caller: string | undefined;
}

/** Makes what runs a response's tools; undefined where it has none to run. Throws ApiError for tools it cannot run. */
export type ResponseLoopFactory = (asked: LoopRequest) => ResponseLoop | undefined;

export interface ResponseServices {
  /** Undefined: nothing is stored. */
  readonly kept: KeptResponses | undefined;
  readonly loop: ResponseLoopFactory | undefined;
  /** Which approvals a caller has answered; known without a store, too, for as long as the process lives. */
  readonly claimsOf: (caller: string | undefined) => ApprovalClaims;
}

export interface KeptResponses {
  readonly storeOf: (caller: string | undefined) => CallerStore;
  readonly background: BackgroundRuns;
  readonly locks: ConversationLocks;
}

/** One response at a time adds to a conversation: each follows what the one before has added. */
export class ConversationLocks {
  private readonly held = new Set<string>();

  /** @returns releases it, once or more often @throws ApiError 400 `conversation_locked`, as OpenAI's */
  take(id: string): () => void {
    if (this.held.has(id)) {
      throw new ApiError({
        status: 400,
        type: 'invalid_request_error',
        code: 'conversation_locked',
        param: 'conversation',
        message: 'another response is under way in this conversation; send this one when it has ended',
      });
    }
    this.held.add(id);
    let mine = true;
    return () => {
      if (mine) this.held.delete(id);
      mine = false;
    };
  }
}

export function createResponses(
  store: ResponseStore | undefined,
  loop: ResponseLoopFactory | undefined,
  logger: Logger,
): ResponseServices {
  if (store === undefined) {
    const answered = createMemoryStore();
    return { kept: undefined, loop, claimsOf: (caller) => answered.of(caller) };
  }
  failInterrupted(store);
  const background = new BackgroundRuns((id, error) => {
    const detail = error instanceof Error ? (error.stack ?? error.message) : String(error);
    logger.error(`the end of ${id} is not stored: ${detail}`);
  });
  const storeOf = (caller: string | undefined): CallerStore => store.of(caller);
  return { kept: { storeOf, background, locks: new ConversationLocks() }, loop, claimsOf: storeOf };
}

/** Before anybody hears of it: what a client knows of is there, whatever happens to us. */
export function keepEnd(store: CallerStore, request: CreateResponse, ended: StoredResponse): void {
  if (request.store) {
    store.put(ended);
    return;
  }
  // `store: false` is about the response; whoever names a conversation wants it to go on.
  const addition = additionOf(ended);
  if (addition !== undefined) store.conversations.append(addition.id, addition.items);
}
