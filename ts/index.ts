/**
 * tsserve as a library: language and speech models inside a Node program, or behind its HTTP server.
 *
 * @example
 * import { createEngine } from 'tsserve';
 *
 * await using engine = await createEngine({ model: 'HuggingFaceTB/SmolLM2-135M-Instruct' });
 * for await (const part of engine.chat({ messages: [{ role: 'user', content: 'Say hello.' }] })) {
 *   process.stdout.write(part.text);
 * }
 */

import type { RequestListener, Server } from 'node:http';
import type { ModelEngine } from './app/create-engine.js';
import { createApp, type AppOptions } from './http/app.js';
import { createHttpServer } from './http/server.js';
import type { ResponseStore, StoreOptions } from './responses/store.js';

export { createEngine } from './app/create-engine.js';
export type {
  AnswerPart,
  CallOptions,
  ChatOptions,
  ChatPart,
  ChatResult,
  ChatStream,
  CompletionOptions,
  CompletionResult,
  CompletionStream,
  CreateEngineOptions,
  GenerationOptions,
  ModelEngine,
  ToolCallPart,
} from './app/create-engine.js';
export type { TranscribeOptions, TranscriptPart, TranscriptStream } from './app/transcribe.js';
export type { ListedModel, ModelLease, ModelRegistry, ServedModel } from './app/types.js';
export type {
  ChatMessage,
  ContentPart,
  FinishReason,
  ImagePart,
  ResponseFormat,
  TextPart,
  ToolCall,
  ToolCallEvent,
  ToolChoice,
  ToolDefinition,
} from './chat/types.js';
export type {
  AudioInput,
  BatchedChunking,
  TranscribedSegment,
  TranscribedToken,
  TranscribedWord,
  TranscriptionUsage,
} from './engine/speech.js';
export { EngineError } from './engine/types.js';
export type {
  Device,
  Dtype,
  EngineErrorCode,
  LoadedModel,
  LoadOptions,
  LoadProgress,
  ModelStats,
  SamplingOptions,
  Timings,
  TokenInfo,
  Usage,
} from './engine/types.js';

export { toSrt, toVtt } from './speech/subtitles.js';
export type { Transcript, TranscriptLanguage } from './speech/transcript.js';
export { createMcp } from './http/mcp.js';
export type { McpOptions, McpServices } from './http/mcp.js';
export type { ResponseStore, StoreLimits, StoreOptions } from './responses/store.js';

/** Keeps responses in a file that outlives the process. Loaded when asked for: it brings a native module. */
export async function openResponseStore(path: string, options: StoreOptions = {}): Promise<ResponseStore> {
  const { openSqliteStore } = await import('./responses/sqlite-store.js');
  return openSqliteStore(path, options);
}

/** How the HTTP API answers: keys, origins, limits, logging. */
export type RouterOptions = Omit<AppOptions, 'registry'>;

/**
 * The OpenAI API over an engine, as a request handler: for `node:http`, or to be mounted in an Express app.
 * Closing the engine is the caller's business.
 *
 * @example
 * const app = express();
 * app.use('/ai', createRouter(engine)); // POST /ai/v1/chat/completions
 */
export function createRouter(engine: ModelEngine, options: RouterOptions = {}): RequestListener {
  return createApp({ ...options, registry: engine.models });
}

/**
 * An HTTP server with the OpenAI API over an engine, not listening yet. Closing it leaves the engine open.
 *
 * @example
 * createServer(engine).listen(8000, '127.0.0.1');
 */
export function createServer(engine: ModelEngine, options: RouterOptions = {}): Server {
  return createHttpServer(createApp({ ...options, registry: engine.models }));
}
