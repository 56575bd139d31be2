/** `tsserve serve [MODEL]`: listens first, so that /health answers while the model loads, then loads it. */

import { readFile } from 'node:fs/promises';
import type { Server } from 'node:http';
import { hostname, networkInterfaces } from 'node:os';

import { Option, type Command } from 'commander';

import { createRegistry } from '../app/registry.js';
import type { ModelRegistry } from '../app/types.js';
import { unreadVariables } from '../chat/template-defaults.js';
import { createNativeEngine } from '../engine/native.js';
import {
  KV_CACHE_TYPES,
  QUANTIZATIONS,
  type Device,
  type Dtype,
  type Engine,
  type KvCacheType,
  type LoadOptions,
  type Quantization,
} from '../engine/types.js';
import { createApp } from '../http/app.js';
import { Drain } from '../http/drain.js';
import { createLogger, LOG_FORMATS, type LogFormat, type LogLevel } from '../http/logger.js';
import { closeServer, createHttpServer, listen } from '../http/server.js';
import { sweepUploads } from '../http/uploads.js';
import type { McpPool } from '../mcp/client-pool.js';
import { reasoningSwitch } from '../protocol/reasoning-switch.js';
import { CliFailure, systemCode } from './failure.js';
import { plural } from './format.js';
import { openMcpServers } from './mcp-servers.js';
import { ProgressLine } from './progress.js';
import { type OpenResponses, openResponses } from './responses-file.js';
import { curlLine, describeModel, serverUrl, transcribeLine } from './serve-report.js';
import { byteSize, collect, collectList, collectOrigins, decimal, jsonObject, wholeNumber } from './values.js';

interface ServeFlags {
  readonly host: string;
  readonly port: number;
  readonly device: Device;
  readonly dtype: Dtype;
  readonly quantization?: Quantization;
  readonly maxModelLen?: number;
  readonly maxNumSeqs?: number;
  readonly maxBatchTokens?: number;
  readonly kvCacheMemory?: number;
  readonly kvCacheType?: KvCacheType;
  readonly threads?: number;
  readonly speculation: 'on' | 'off';
  readonly servedModelName?: string;
  readonly defaultSeed?: number;
  readonly reasoning: 'auto' | 'on' | 'off';
  readonly chatTemplateKwargs?: Readonly<Record<string, unknown>>;
  readonly modelTimeout: number;
  readonly maxLoadedModels?: number;
  readonly memoryBudget?: number;
  readonly download: boolean;
  readonly apiKey?: readonly string[];
  readonly apiKeyFile?: string;
  readonly allowUnauthenticated?: boolean;
  readonly enableCors?: boolean;
  readonly allowedHosts?: readonly string[];
  readonly allowedOrigins?: readonly string[];
  readonly strict?: boolean;
  readonly maxUpload?: number;
  readonly drainTimeout: number;
  readonly mcpConfig?: string;
  readonly mcpAllowLoopback?: boolean;
  readonly mcpAllowPrivate?: boolean;
  readonly responsesStore?: string;
  readonly logLevel: LogLevel;
  readonly logFormat: LogFormat;
  readonly logPrompts?: boolean;
}

/** How long an orderly end may take before the process ends anyway. */
const closeMs = 1500;

export function addServeCommand(program: Command, version: string): void {
  program
    .command('serve')
    .summary('serve a model behind the OpenAI API')
    .description(
      'Serves MODEL behind the OpenAI API: a local folder, a local .gguf, repo, repo@revision or repo:file.gguf.\n' +
        'A language model answers, a speech model transcribes (/v1/audio/transcriptions).\n' +
        'Without MODEL, the supported models of the cache are listed, and models load when a request names them.',
    )
    .argument('[model]', 'the model to serve')
    .optionsGroup('Listening:')
    .option('--host <address>', 'address to listen on', '127.0.0.1')
    .option('--port <n>', 'port to listen on; 0 takes a free one', wholeNumber(0, 65_535), 8000)
    .option('--api-key <key>', 'key that requests must carry; may be repeated (or TSSERVE_API_KEY)', collect)
    .option('--api-key-file <path>', 'file with one key per line')
    .option('--allow-unauthenticated', 'serve other machines without a key')
    .option('--enable-cors', 'let web pages of any origin call the API')
    .option('--allowed-hosts <list>', 'further Host names to answer to', collectList)
    .option('--allowed-origins <list>', 'web origins that may call the API', collectOrigins)
    .option('--drain-timeout <seconds>', 'time that a TERM signal gives to running answers', decimal(0, 86_400), 30)
    .option('--strict', 'refuse unknown fields of requests instead of ignoring them')
    .option('--max-upload <size>', 'largest recording that is taken, like 100M (default: 512M)', byteSize)
    .option('--responses-store <where>', 'a file, memory, or off (default: a file in the folder of your data)')
    .optionsGroup('MCP:')
    .option('--mcp-config <file>', 'MCP servers that requests may name, in the form {"mcpServers": {…}}')
    .option('--mcp-allow-loopback', 'let requests name MCP servers on this machine')
    .option('--mcp-allow-private', 'let requests name MCP servers in private networks')
    .optionsGroup('Model:')
    .addOption(choice('--device <name>', 'where to compute', ['auto', 'cpu', 'cuda', 'metal'], 'auto'))
    .addOption(
      choice(
        '--dtype <name>',
        'number format to compute in; on the CPU auto keeps weights as they are stored, f32 is exact and slower',
        ['auto', 'f32', 'f16', 'bf16'],
        'auto',
      ),
    )
    .addOption(
      new Option('--quantization <name>', 'quantise unquantised weights at load, on the CPU').choices(QUANTIZATIONS),
    )
    .option(
      '--max-model-len <n>',
      "longest sequence in tokens (default: the model's, cut to what fits)",
      wholeNumber(1),
    )
    .option('--max-num-seqs <n>', 'sequences that run at once (default: 16)', wholeNumber(1, 4096))
    .option(
      '--max-batch-tokens <n>',
      'tokens computed per step, over all sequences (default: 512)',
      wholeNumber(1, 1 << 20),
    )
    .option(
      '--kv-cache-memory <size>',
      'memory for the KV cache, like 512M or 2G (default: from free memory)',
      byteSize,
    )
    .addOption(
      new Option(
        '--kv-cache-type <name>',
        'how keys and values are kept, on the CPU: q8_0 takes half the memory of f16',
      ).choices(KV_CACHE_TYPES),
    )
    .option('--threads <n>', 'compute threads (default: the cores this process may use)', wholeNumber(1, 1024))
    .addOption(choice('--speculation <mode>', 'verify drafted tokens; answers stay the same', ['on', 'off'], 'on'))
    .option('--served-model-name <name>', 'name that the model answers to')
    .option('--default-seed <n>', 'seed for requests without one', wholeNumber(0))
    .addOption(choice('--reasoning <when>', 'whether models think aloud first', ['auto', 'on', 'off'], 'auto'))
    .option('--chat-template-kwargs <json>', 'variables for chat templates, where a request does not say', jsonObject)
    .option('--model-timeout <seconds>', 'unload a model unused for so long; 0 never does', decimal(0, 1e7), 300)
    .option('--max-loaded-models <n>', 'models loaded at once (default: no limit)', wholeNumber(1, 1024))
    .option(
      '--memory-budget <size>',
      'memory that models loaded on demand may take together (default: most of it)',
      byteSize,
    )
    .option('--no-download', 'never fetch from the hub')
    .optionsGroup('Output:')
    .addOption(choice('--log-level <level>', 'what to log', ['silent', 'error', 'warn', 'info', 'debug'], 'info'))
    .addOption(choice('--log-format <format>', 'lines for people or JSON for programs', LOG_FORMATS, 'text'))
    .option('--log-prompts', 'log what models are asked')
    .action((model: string | undefined, flags: ServeFlags) => serve(model, flags, version));
}

function choice(flags: string, description: string, choices: readonly string[], value: string): Option {
  return new Option(flags, description).choices(choices).default(value);
}

async function serve(model: string | undefined, flags: ServeFlags, version: string): Promise<void> {
  const apiKeys = await readKeys(flags);
  if (apiKeys.length === 0 && flags.allowUnauthenticated !== true && !isLoopback(flags.host)) {
    throw new CliFailure(
      `${flags.host} can be reached from other machines: give a key with --api-key, or say --allow-unauthenticated`,
    );
  }
  if (flags.servedModelName !== undefined && model === undefined) {
    throw new CliFailure('--served-model-name names a MODEL: name one to serve', 2);
  }
  const logger = createLogger(flags.logLevel, undefined, flags.logFormat);
  const mcp = await openMcpServers(flags, version, logger);
  const responses = await openResponses(flags.responsesStore, logger);
  const engine = createNativeEngine();
  const drain = new Drain();
  const defaults = loadDefaults(flags);
  const { servedModelName, modelTimeout, maxLoadedModels, memoryBudget } = flags;
  const pinned = model === undefined ? undefined : { ...defaults, model };
  const templateVariables = templateDefaults(flags);
  const registry = createRegistry({
    engine,
    pinned,
    defaults,
    servedModelName,
    modelTimeout,
    templateVariables,
    ...(maxLoadedModels === undefined ? {} : { maxLoadedModels }),
    ...(memoryBudget === undefined ? {} : { memoryBudget }),
    ...(model === undefined && { logger }),
  });
  const app = createApp({
    registry,
    apiKeys,
    cors: flags.enableCors ?? false,
    strict: flags.strict ?? false,
    ...(flags.maxUpload === undefined ? {} : { limits: { maxUploadBytes: flags.maxUpload } }),
    allowedHosts: [...(flags.allowedHosts ?? []), ...ownNames(flags.host)],
    allowedOrigins: flags.allowedOrigins ?? [],
    logger,
    logPrompts: flags.logPrompts ?? false,
    drain,
    mcp,
    responses: responses.store,
  });
  const server = createHttpServer(app);
  const { port } = await listen(server, flags).catch((error: unknown) => {
    responses.close();
    throw new CliFailure(listenSentence(flags, error), 1, { cause: error });
  });
  const url = serverUrl({ host: flags.host, port });
  const stop = stopSignal();
  // What a process that was killed has left behind.
  void sweepUploads();
  say(`tsserve ${version} listens on ${url}`);
  try {
    if (model === undefined) await sayWhatIsListed(registry);
    else await loadPinned(registry, url, apiKeys.length > 0, stop, templateVariables);
    await aborted(stop);
  } catch (error) {
    if (!stop.aborted) throw error;
  } finally {
    if (stop.reason === 'SIGTERM') await finishAnswers(drain, flags.drainTimeout);
    await closeAll({ server, mcp: mcp.pool, responses, registry, engine });
  }
  // A load that is under way in native code would keep the process alive.
  process.exit(0);
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

async function readKeys(flags: ServeFlags): Promise<string[]> {
  const keys = [...(flags.apiKey ?? [])];
  const fromEnvironment = process.env.TSSERVE_API_KEY;
  if (fromEnvironment !== undefined && fromEnvironment !== '') {
    if (fromEnvironment.trim() === '') throw new CliFailure('TSSERVE_API_KEY holds a blank key');
    keys.push(fromEnvironment);
  }
  if (flags.apiKeyFile === undefined) return keys;
  const text = await readFile(flags.apiKeyFile, 'utf8').catch((error: unknown) => {
    throw new CliFailure(
      `the key file ${flags.apiKeyFile ?? ''} cannot be read (${systemCode(error) ?? String(error)})`,
    );
  });
  const fromFile = text.split(/\r?\n/).map((line) => line.trim());
  const found = fromFile.filter((line) => line !== '' && !line.startsWith('#'));
  if (found.length === 0) throw new CliFailure(`the key file ${flags.apiKeyFile} holds no key`);
  return [...keys, ...found];
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(?:\.\d{1,3}){3}$/.test(host);
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

async function loadPinned(
  registry: ModelRegistry,
  url: string,
  needsKey: boolean,
  signal: AbortSignal,
  templateVariables: Readonly<Record<string, unknown>>,
): Promise<void> {
  const progress = new ProgressLine(process.stderr);
  // Never released: the model stays as long as the server does.
  const { model } = await registry
    .acquire(undefined, { signal, onProgress: (made) => progress.update(made) })
    .finally(() => progress.end());
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

/** What clients may call this machine when it serves others: the address it binds, or all of its own. */
function ownNames(host: string): string[] {
  if (isLoopback(host)) return [];
  const bracketed = (address: string): string => (address.includes(':') ? `[${address}]` : address);
  if (host !== '0.0.0.0' && host !== '::') return [bracketed(host)];
  const addresses = Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map(({ address }) => address));
  return [hostname(), `${hostname()}.local`, ...addresses.map(bracketed)];
}

/** After TERM the server still listens, to send new requests elsewhere, until the running answers are out. */
async function finishAnswers(drain: Drain, seconds: number): Promise<void> {
  if (drain.requests > 0) say(`finishing ${plural(drain.requests, 'request')}, for at most ${seconds} s`);
  const left = await drain.begin(seconds * 1000);
  if (left > 0) say(`ending ${plural(left, 'request')} that took too long`);
}

interface Open {
  readonly server: Server;
  readonly mcp: McpPool;
  readonly responses: OpenResponses;
  readonly registry: ModelRegistry;
  readonly engine: Engine;
}

/** Closing the sockets aborts what runs; the engine then frees what it holds. */
async function closeAll({ server, mcp, responses, registry, engine }: Open): Promise<void> {
  const closed = closeServer(server)
    // Processes of MCP servers end with ours.
    .then(() => mcp.close())
    .then(() => responses.close())
    .then(() => registry.close())
    .then(() => engine.close());
  const late = new Promise<void>((resolve) => setTimeout(resolve, closeMs).unref());
  await Promise.race([closed, late]);
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}
