/** A request → the events of its response: model, context, machine and store put together. */

import { EngineError, type Usage } from '../../engine/types.js';
import { unsupportedValue } from '../../protocol/errors.js';
import { isTerminalEvent, type ResponseEvent } from '../../protocol/response-events.js';
import type { ResponseError } from '../../protocol/response-object.js';
import type { CreateResponse } from '../../protocol/responses.js';
import type { ApprovalClaims } from '../../responses/approvals.js';
import { encodeReasoning } from '../../responses/compaction.js';
import type { ResponseContext } from '../../responses/context.js';
import { toEcho } from '../../responses/echo.js';
import { ResponseMachine, unixSeconds } from '../../responses/event-machine.js';
import { newId } from '../../responses/ids.js';
import { type ResponseLoop, runResponse } from '../../responses/run.js';
import type { StoredResponse } from '../../responses/store.js';
import { refuseImages, toChatRequest } from '../../responses/to-chat.js';
import { acquireModelFor } from '../acquire.js';
import type { Services } from '../context.js';
import { isUnexpected, toApiError } from '../errors.js';

/** The request's field that holds the prompt, for errors. */
export const PROMPT_PARAM = 'input';

export interface Creation {
  readonly services: Services;
  readonly request: CreateResponse;
  readonly context: ResponseContext;
  readonly signal: AbortSignal;
  /** `x-request-id`, for the log. */
  readonly requestId: string;
  /** Whose prefixes may be reused; see RequestContext. */
  readonly caller: string | undefined;
  /** Told of the response's end before its last event goes out. */
  readonly onEnd?: (stored: StoredResponse) => void;
  /** Told the model's own id. */
  readonly onModel?: (id: string) => void;
  readonly onUsage?: (usage: Usage) => void;
  /** Told of a failure that the events only summarise. */
  readonly onFailure?: (error: unknown) => void;
}

export class PendingResponse {
  readonly machine: ResponseMachine;
  private readonly loop: ResponseLoop | undefined;
  private readonly unlock: () => void;

  /**
   * Holds its conversation and the approvals that it answers until `events` has ended, or `abandon`.
   * @throws ApiError for tools that cannot be run, a conversation that another response holds, an approval that was
   * answered before
   */
  constructor(private readonly creation: Creation) {
    const { request, services, caller } = creation;
    const { conversation } = request;
    const { kept, claimsOf } = services.responses;
    this.unlock = (conversation === undefined ? undefined : kept?.locks.take(conversation)) ?? (() => undefined);
    try {
      this.loop = loopFor(creation, claimsOf(caller));
    } catch (error) {
      this.unlock();
      throw error;
    }
    this.machine = new ResponseMachine({
      id: newId('resp'),
      createdAt: unixSeconds(),
      echo: toEcho(request, request.model ?? '', undefined),
      route: (name) => this.loop?.route(name) ?? { kind: 'function' },
      ...(request.encryptedReasoning ? { encodeReasoning } : {}),
    });
  }

  /** The request's own items. */
  get input(): ResponseContext['input'] {
    return this.creation.context.input;
  }

  /** For one that is not to run after all. */
  async abandon(): Promise<void> {
    this.unlock();
    await this.loop?.[Symbol.asyncDispose]();
  }

  /**
   * Runs once. What fails before the first event is thrown.
   * @param announced the machine's first events are out
   */
  async *events(announced = false, signal = this.creation.signal): AsyncGenerator<ResponseEvent> {
    const { services, request, context, requestId: id, caller, onEnd, onModel, onUsage } = this.creation;
    const { machine } = this;
    const release = services.drain.hold();
    try {
      await using loop = this.loop;
      using lease = await acquireModelFor('text', { services, signal, id, caller }, request.model);
      const { model } = lease;
      onModel?.(model.info.id);
      machine.describe(toEcho(request, model.id, model.info));
      const chatRequest = toChatRequest(request, context.items, { mcpName: loop?.mcpName });
      refuseImages(chatRequest, model.id);
      const running = runResponse({
        machine,
        chat: model.chat,
        request: chatRequest,
        items: context.items,
        signal,
        ...(loop === undefined ? {} : { loop }),
        announced,
        truncate: request.truncation === 'auto',
        countTokens: async (text) => (await model.engine.tokenize(model.info.handle, text, false)).length,
        describe: (error) => this.describe(error),
      });
      for await (const event of running) {
        if (isTerminalEvent(event)) {
          onUsage?.(machine.usage);
          onEnd?.({ response: event.response, input: context.input });
          // Who has heard of the end may go on. In the background it is stored by whoever takes the event.
          if (!request.background) this.unlock();
        }
        yield event;
      }
    } catch (error) {
      // A response that was announced has no other way to say it.
      if (!announced || signal.aborted || machine.isTerminal) throw error;
      yield* machine.fail(this.describe(error));
    } finally {
      this.unlock();
      release();
    }
  }

  private describe(error: unknown): ResponseError {
    const { services, requestId, onFailure } = this.creation;
    onFailure?.(error);
    return toResponseError(services, requestId, error);
  }
}

/** What runs the request's tools. @param claims undefined: nothing will be run @throws ApiError for tools that cannot be run */
export function loopFor(
  { services, request, context, caller }: Pick<Creation, 'services' | 'request' | 'context' | 'caller'>,
  claims: ApprovalClaims | undefined,
): ResponseLoop | undefined {
  const { items, input } = context;
  const loop = services.responses.loop?.({ request, items, input, claims, caller });
  const index = request.tools.findIndex(({ type }) => type === 'mcp');
  if (index >= 0 && loop === undefined) throw unsupportedValue(`tools[${index}].type`, 'no MCP tools are run here');
  return loop;
}

/** The few codes a response may carry; what is not sent goes to the log. */
export function toResponseError(services: Services, requestId: string, error: unknown): ResponseError {
  if (isUnexpected(error)) {
    services.logger.error(`${requestId} ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
  }
  const { status, message } = toApiError(error, { requestId, promptParam: PROMPT_PARAM });
  const code = status === 429 ? 'rate_limit_exceeded' : status < 500 ? 'invalid_prompt' : 'server_error';
  return { code, message };
}

export function unfinished(): EngineError {
  return new EngineError('internal', 'the response ended without a last event');
}
