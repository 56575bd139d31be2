/**
 * What `tsserve serve` does. It listens with as little of the program as that takes, lets the model load in native code,
 * and imports the rest meanwhile.
 */

import { setImmediate } from 'node:timers/promises';

import { createRegistry } from '../app/registry.js';
import type { ModelLease, ModelRegistry } from '../app/types.js';
import { unreadVariables } from '../chat/template-defaults.js';
import { createNativeEngine } from '../engine/native.js';
import type { Engine, LoadOptions } from '../engine/types.js';
import { createAccessCheck } from '../http/access.js';
import { Drain } from '../http/drain.js';
import { FrontDoor } from '../http/front-door.js';
import { createLogger, warnOnce } from '../http/logger.js';
import { closeServer, listen } from '../http/server.js';
import { reasoningSwitch } from '../protocol/reasoning-switch.js';
import { CliFailure, systemCode } from './failure.js';
import { plural } from './format.js';
import { ProgressLine } from './progress.js';
import { readAccess } from './serve-access.js';
import type { OpenApp } from './serve-app.js';
import type { ServeFlags } from './serve.js';
import { curlLine, describeModel, serverUrl, transcribeLine } from './serve-report.js';

/** How long an orderly end may take before the process ends anyway. */
const closeMs = 1500;

export async function serve(model: string | undefined, flags: ServeFlags, version: string): Promise<void> {
  const access = await readAccess(flags);
  if (flags.servedModelName !== undefined && model === undefined) {
    throw new CliFailure('--served-model-name names a MODEL: name one to serve', 2);
  }
  const logger = createLogger(flags.logLevel, undefined, flags.logFormat);
  const engine = createNativeEngine();
  const drain = new Drain();
  const defaults = loadDefaults(flags);
  const { servedModelName, modelTimeout, maxLoadedModels, memoryBudget } = flags;
  const templateVariables = templateDefaults(flags);
  const registry = createRegistry({
    engine,
    createLocalModel: async (options) => (await import('../chat/local-model.js')).createLocalModel(options),
    pinned: model === undefined ? undefined : { ...defaults, model },
    defaults,
    servedModelName,
    modelTimeout,
    templateVariables,
    ...(maxLoadedModels === undefined ? {} : { maxLoadedModels }),
    ...(memoryBudget === undefined ? {} : { memoryBudget }),
    ...(model === undefined && { logger }),
  });
  const hasKeys = access.apiKeys.length > 0;
  const { allowedHosts } = access;
  const checkAccess = hasKeys ? undefined : createAccessCheck({ allowedHosts, allowedOrigins: [] });
  const door = new FrontDoor({ registry, drain, warnOnce: warnOnce(logger), checkAccess });
  const open = async (): Promise<OpenApp> => {
    const { openApp } = await importApp();
    return openApp(flags, { access, registry, logger, drain, version });
  };
  const stop = stopSignal();
  let opened: OpenApp | undefined;
  try {
    // A file that a flag names may be unusable, which is said before anybody is let in and anything is loaded.
    if (namesFiles(flags)) opened = await open();
    const { port } = await listen(door.server, flags).catch((error: unknown) => {
      throw new CliFailure(listenSentence(flags, error), 1, { cause: error });
    });
    const loading = model === undefined ? undefined : loadPinned(registry, stop);
    // It may fail before anybody waits for it.
    loading?.catch(() => undefined);
    opened ??= await open();
    stop.throwIfAborted();
    door.open(opened.app);
    const url = serverUrl({ host: flags.host, port });
    say(`tsserve ${version} listens on ${url}`);
    if (loading === undefined) await sayWhatIsListed(registry);
    else sayWhatIsLoaded(await loading, { url, needsKey: hasKeys, templateVariables });
    await aborted(stop);
  } catch (error) {
    if (!stop.aborted) throw error;
  } finally {
    if (stop.reason === 'SIGTERM') await finishAnswers(drain, flags.drainTimeout);
    await closeAll({ door, opened, registry, engine });
  }
  // A load that is under way in native code would keep the process alive.
  process.exit(0);
}

function namesFiles({ mcpConfig, responsesStore = 'off' }: ServeFlags): boolean {
  return mcpConfig !== undefined || (responsesStore !== 'off' && responsesStore !== 'memory');
}

/**
 * Most of the program, in pieces of some tens of milliseconds: while one is imported nothing else is done on this thread
 * (newer versions of Node even read files that way), and /health is answered in between.
 */
async function importApp(): Promise<typeof import('./serve-app.js')> {
  await letIn();
  await import('../chat/local-model.js');
  await letIn();
  await import('express');
  await letIn();
  await import('../http/metrics.js');
  await letIn();
  await import('../http/routes/index.js');
  await letIn();
  return import('./serve-app.js');
}

/** A connection is accepted in one turn of the event loop, read in the next, and answered in the one after. */
async function letIn(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await setImmediate();
}

function loadDefaults(flags: ServeFlags): Omit<LoadOptions, 'model'> {
  const { device, dtype, quantization, maxModelLen, maxNumSeqs, maxBatchTokens, threads, defaultSeed } = flags;
  const { kvCacheMemory, kvCacheType } = flags;
  const limits = { maxModelLen, maxNumSeqs, maxBatchTokens, kvCacheMemory, threads };
  const speculation = flags.speculation === 'on';
  return { device, dtype, quantization, kvCacheType, ...limits, speculation, defaultSeed, noDownload: !flags.download };
}

/** `--reasoning` says it in the words of every family; it goes before what is said in one family's words. */
function templateDefaults({ reasoning, chatTemplateKwargs }: ServeFlags): Readonly<Record<string, unknown>> {
  return { ...chatTemplateKwargs, ...(reasoning === 'auto' ? {} : reasoningSwitch(reasoning === 'on')) };
}

function listenSentence({ host, port }: ServeFlags, error: unknown): string {
  switch (systemCode(error)) {
    case 'EADDRINUSE':
      return `port ${port} on ${host} is taken: stop what runs there, or choose another one with --port`;
    case 'EACCES':
      return `port ${port} needs rights that this user does not have: choose one above 1023 with --port`;
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return `${host} is not an address of this machine: choose another one with --host`;
    default:
      return `port ${port} on ${host} cannot be listened on: ${error instanceof Error ? error.message : String(error)}`;
  }
}

function loadPinned(registry: ModelRegistry, signal: AbortSignal): Promise<ModelLease> {
  const progress = new ProgressLine(process.stderr);
  // Never released: the model stays as long as the server does.
  return registry
    .acquire(undefined, { signal, onProgress: (made) => progress.update(made) })
    .finally(() => progress.end());
}

interface LoadedFacts {
  readonly url: string;
  readonly needsKey: boolean;
  readonly templateVariables: Readonly<Record<string, unknown>>;
}

function sayWhatIsLoaded({ model }: ModelLease, { url, needsKey, templateVariables }: LoadedFacts): void {
  say(describeModel(model.info));
  const unread = unreadVariables(model.info, templateVariables);
  if (unread.length > 0) say(`its chat template does not read ${unread.join(', ')}: that has no effect`);
  const line =
    model.info.kind === 'speech'
      ? transcribeLine(url, model.id, needsKey)
      : curlLine(url, model.id, model.info.chatTemplate !== undefined, needsKey);
  say(`try:\n  ${line}`);
}

async function sayWhatIsListed(registry: ModelRegistry): Promise<void> {
  const models = await registry.list();
  say(`no model is named: one is loaded when a request names it (${plural(models.length, 'model')} in the cache)`);
  for (const { id } of models.slice(0, 20)) say(`  ${id}`);
}

/** Aborts on the first Ctrl-C or TERM, with the signal's name; a second one ends the process where it stands. */
function stopSignal(): AbortSignal {
  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.on(name, () => {
      if (stop.signal.aborted) process.exit(130);
      stop.abort(name);
    });
  }
  return stop.signal;
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}

/** After TERM the server still listens, to send new requests elsewhere, until the running answers are out. */
async function finishAnswers(drain: Drain, seconds: number): Promise<void> {
  if (drain.requests > 0) say(`finishing ${plural(drain.requests, 'request')}, for at most ${seconds} s`);
  const left = await drain.begin(seconds * 1000);
  if (left > 0) say(`ending ${plural(left, 'request')} that took too long`);
}

interface Open {
  readonly door: FrontDoor;
  /** Undefined if it did not come to that. */
  readonly opened: OpenApp | undefined;
  readonly registry: ModelRegistry;
  readonly engine: Engine;
}

/** Closing the sockets aborts what runs; the engine then frees what it holds. */
async function closeAll({ door, opened, registry, engine }: Open): Promise<void> {
  door.close();
  const closed = closeServer(door.server)
    // Processes of MCP servers end with ours.
    .then(() => opened?.mcp.close())
    .then(() => opened?.responses.close())
    .then(() => registry.close())
    .then(() => engine.close());
  const late = new Promise<void>((resolve) => setTimeout(resolve, closeMs).unref());
  await Promise.race([closed, late]);
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}
