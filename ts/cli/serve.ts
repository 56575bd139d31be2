/** `tsserve serve [MODEL]`: its flags. What it does is `serve-run.ts`. */

import { Option, type Command } from 'commander';

import {
  KV_CACHE_TYPES,
  QUANTIZATIONS,
  type Device,
  type Dtype,
  type KvCacheType,
  type Quantization,
} from '../engine/types.js';
import { LOG_FORMATS, type LogFormat, type LogLevel } from '../http/logger.js';
import { serve } from './serve-run.js';
import { byteSize, collect, collectList, collectOrigins, decimal, jsonObject, wholeNumber } from './values.js';

export interface ServeFlags {
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

export function addServeCommand(program: Command, version: string): void {
  program
    .command('serve')
    .summary('serve a model behind the OpenAI API')
    .description(
      'Serves MODEL behind the OpenAI API: a local folder, .gguf or ggml .bin, repo, repo@revision or repo:FILE.\n' +
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
