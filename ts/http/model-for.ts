/**
 * A model as one request sees it: its cached prefixes are its caller's own, and what it generates is counted. Every route
 * gets its models here, so none can forget either.
 */

import type { ModelLease, ServedModel } from '../app/types.js';
import type { ChatRequest } from '../chat/types.js';
import type { Engine, GenerateRequest } from '../engine/types.js';
import type { Asker } from './context.js';
import { mapped } from './mapped.js';
import type { GenerationMeter, Meter } from './metrics.js';

/** The lease itself, with the model of this request. */
export function leaseFor(context: Asker, lease: ModelLease): ModelLease {
  return { model: modelFor(context, lease.model), [Symbol.dispose]: () => lease[Symbol.dispose]() };
}

function modelFor(context: Asker, model: ServedModel): ServedModel {
  const { metrics } = context.services;
  const meter = (): GenerationMeter => metrics.generation(model.info.id);
  const own = <R extends ChatRequest | GenerateRequest>(request: R): R => {
    const cacheSalt = saltFor(context.caller, request.cacheSalt);
    return cacheSalt === undefined ? request : { ...request, cacheSalt };
  };
  const engine: Engine = {
    load: (options, onProgress, signal) => model.engine.load(options, onProgress, signal),
    unload: (handle) => model.engine.unload(handle),
    generate: (request, signal) => {
      logPrompt(context, () => ('text' in request.prompt ? request.prompt.text : request.prompt.ids));
      return counted(model.engine.generate(own(request), signal), meter());
    },
    transcribe: (request, signal) => {
      logPrompt(context, () => request.prompt ?? '');
      return counted(model.engine.transcribe(request, signal), metrics.transcription(model.info.id));
    },
    tokenize: (handle, text, addSpecialTokens) => model.engine.tokenize(handle, text, addSpecialTokens),
    detokenize: (handle, ids, skipSpecialTokens) => model.engine.detokenize(handle, ids, skipSpecialTokens),
    stats: (handle) => model.engine.stats(handle),
    listCached: () => model.engine.listCached(),
    measureMachine: () => model.engine.measureMachine(),
    close: () => model.engine.close(),
  };
  return {
    ...model,
    engine,
    chat: {
      chat: (request, signal) => {
        logPrompt(context, () => request.messages);
        return watched(model.chat.chat(own(request), signal), meter());
      },
    },
    applyChatTemplate: (request) => model.applyChatTemplate(request),
  };
}

/** Callers with different keys never share a prefix: how fast an answer starts would tell one what another has asked. */
function saltFor(caller: string | undefined, salt: string | undefined): string | undefined {
  if (caller === undefined) return salt;
  // The caller's part has a fixed length, so no two pairs give one salt.
  return salt === undefined ? caller : `${caller}/${salt}`;
}

/** Its events, each shown to the meter, and its `cancel`. */
function counted<Event>(
  source: AsyncIterable<Event> & { cancel(): void },
  meter: Meter<NoInfer<Event>>,
): { [Symbol.asyncIterator](): AsyncIterator<Event, undefined>; cancel(): void } {
  const events = watched(source, meter);
  return { [Symbol.asyncIterator]: () => events, cancel: () => source.cancel() };
}

function watched<Event>(
  events: AsyncIterable<Event>,
  meter: Meter<NoInfer<Event>>,
): AsyncIterableIterator<Event, undefined> {
  return mapped(events, (event) => {
    meter.see(event);
    return event;
  });
}

function logPrompt(context: Asker, prompt: () => unknown): void {
  const { logPrompts, logger } = context.services;
  if (logPrompts) logger.info(`${context.id} prompt ${JSON.stringify(prompt())}`, { requestId: context.id });
}
