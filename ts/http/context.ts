/** What every part of the HTTP layer knows about the request at hand. */

import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';

import type { ModelRegistry } from '../app/types.js';
import type { Usage } from '../engine/types.js';
import type { ParseOptions } from '../protocol/field-table.js';
import type { Drain } from './drain.js';
import type { HttpLimits } from './limits.js';
import type { Logger } from './logger.js';
import type { McpServices } from './mcp.js';
import type { ResponseServices } from './responses/services.js';
import type { Metrics } from './metrics.js';
import type { Route } from './routes/route.js';
import type { TranscriptionSlots } from './transcription-slots.js';

/** What requests share. */
export interface Services {
  readonly registry: ModelRegistry;
  readonly limits: HttpLimits;
  /** Unknown fields are errors. */
  readonly strict: boolean;
  readonly logger: Logger;
  /** Logs each distinct message once. */
  readonly warnOnce: (message: string) => void;
  readonly routes: readonly Route[];
  readonly responses: ResponseServices;
  /** Undefined: tools of type `mcp` are refused. */
  readonly mcp: McpServices | undefined;
  /** Whether routes that are not open ask for a key. */
  readonly hasKeys: boolean;
  readonly metrics: Metrics;
  readonly drain: Drain;
  readonly transcriptions: TranscriptionSlots;
  /** What models are asked goes to the log. */
  readonly logPrompts: boolean;
}

/** On whose behalf a model is asked: what `RequestContext` is to it. */
export interface Asker {
  readonly services: Services;
  /** Request id, for the log. */
  readonly id: string;
  readonly signal: AbortSignal;
  readonly caller: string | undefined;
  model?: string | undefined;
}

/** A caller's own id is kept if it is short and harmless in a log and a header. */
const SANE_REQUEST_ID = /^[A-Za-z0-9._:-]{1,128}$/;

export function requestIdOf({ headers }: IncomingMessage): string {
  const given = headers['x-request-id'];
  return typeof given === 'string' && SANE_REQUEST_ID.test(given) ? given : randomUUID();
}

export class RequestContext {
  readonly id: string;
  /** Aborts when the client goes away before its answer is complete. */
  readonly signal: AbortSignal;
  /** Stands for the API key that was shown; undefined without keys. */
  caller: string | undefined;
  /** Path of the route that answers; undefined if there is none. */
  route: string | undefined;
  /** Own id of the model that was acquired. */
  model: string | undefined;
  /** The request's field that holds the prompt, once a route knows. */
  promptParam: string | undefined;
  /** Code of the error that was sent, for the log. */
  failure: string | undefined;
  /** Tokens of a finished generation, for the log. */
  usage: Usage | undefined;
  /** Length of a recording that was transcribed, for the log. */
  audioSeconds: number | undefined;
  private readonly startedAt = performance.now();

  constructor(
    readonly req: IncomingMessage,
    readonly res: ServerResponse,
    /** Path parameters come with the route. */
    readonly services: Services,
  ) {
    this.id = requestIdOf(req);
    const controller = new AbortController();
    this.signal = controller.signal;
    res.once('close', () => {
      if (!res.writableFinished) controller.abort();
    });
  }

  get elapsedMs(): number {
    return Math.round(performance.now() - this.startedAt);
  }

  /** How this request's body is to be parsed. @param endpoint for the log */
  parseOptions(endpoint: string): ParseOptions {
    const { strict, warnOnce } = this.services;
    return {
      strict,
      // The name may be a client's own text: quoted and cut, it stays one short line.
      warn: (field) => warnOnce(`${endpoint}: ${JSON.stringify(field.slice(0, 80))} has no effect`),
    };
  }
}
