/** Renders chat templates in a worker, under a time limit and a size limit. */

import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { EngineError } from '../engine/types.js';
import type { TemplateInput } from './template-render.js';
import type { WorkerMessage, WorkerOptions } from './template-worker.js';

export type { TemplateInput } from './template-render.js';

export interface TemplateRendererOptions {
  /** Milliseconds one rendering may take. @default 2000 */
  readonly timeoutMs?: number;
  /** Longest rendered prompt in UTF-16 units. @default 8388608 */
  readonly maxOutput?: number;
}

export interface TemplateRenderer {
  /** The prompt. Throws EngineError `template_error` (with the template's own words), `cancelled` or `closed`. */
  render(input: TemplateInput, signal?: AbortSignal): Promise<string>;
  /** Stops the worker; what waits fails with `closed`. */
  close(): Promise<void>;
}

const DEFAULT_TIMEOUT_MS = 2000;
const DEFAULT_MAX_OUTPUT = 8 * 1024 * 1024;
/** Starting the worker is not the template's time, but it must end too. */
const START_TIMEOUT_MS = 30_000;
/** Heap of the worker. The interpreter stops a template far below it. */
const MAX_HEAP_MB = 512;

/** One warm worker, started by the first rendering and replaced when a template has to be stopped. */
export function createTemplateRenderer(options: TemplateRendererOptions = {}): TemplateRenderer {
  return new WorkerRenderer(options.timeoutMs ?? DEFAULT_TIMEOUT_MS, options.maxOutput ?? DEFAULT_MAX_OUTPUT);
}

interface Job {
  readonly id: number;
  readonly input: TemplateInput;
  readonly resolve: (text: string) => void;
  readonly reject: (error: EngineError) => void;
}

class WorkerRenderer implements TemplateRenderer {
  readonly #timeoutMs: number;
  readonly #maxOutput: number;
  #worker: Worker | undefined;
  #ready = false;
  #queue: Job[] = [];
  #running: Job | undefined;
  #timer: NodeJS.Timeout | undefined;
  #nextId = 1;
  #closed = false;

  constructor(timeoutMs: number, maxOutput: number) {
    this.#timeoutMs = timeoutMs;
    this.#maxOutput = maxOutput;
  }

  async render(input: TemplateInput, signal?: AbortSignal): Promise<string> {
    if (this.#closed) throw closed();
    if (signal?.aborted === true) throw cancelled(signal);
    let onAbort: (() => void) | undefined;
    try {
      return await new Promise<string>((resolve, reject) => {
        const job: Job = { id: this.#nextId++, input, resolve, reject };
        onAbort = () => {
          // A rendering under way ends by itself soon; only its result is dropped.
          this.#queue = this.#queue.filter((other) => other !== job);
          if (signal) reject(cancelled(signal));
        };
        signal?.addEventListener('abort', onAbort, { once: true });
        this.#queue.push(job);
        this.#pump();
      });
    } finally {
      if (onAbort) signal?.removeEventListener('abort', onAbort);
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const jobs = this.#running ? [this.#running, ...this.#queue] : this.#queue;
    this.#queue = [];
    this.#running = undefined;
    for (const job of jobs) job.reject(closed());
    await this.#stop();
  }

  #pump(): void {
    if (this.#running) return;
    if (this.#queue.length === 0) {
      // Nothing to do: the worker alone must not keep a finished script alive.
      this.#worker?.unref();
      return;
    }
    if (!this.#worker) {
      this.#start();
      return;
    }
    this.#worker.ref();
    if (!this.#ready) return;
    const job = this.#queue.shift() as Job;
    this.#running = job;
    this.#arm(this.#timeoutMs, () => {
      void this.#replace(`the chat template took longer than ${this.#timeoutMs} ms to render`);
    });
    try {
      this.#worker.postMessage({ id: job.id, input: job.input });
    } catch (error) {
      // Only plain data can be posted; a variable that is a function, say, is the caller's mistake.
      this.#settle((running) => {
        running.reject(
          new EngineError('invalid_request', (error as Error).message, 'templateVariables', { cause: error }),
        );
      });
    }
  }

  #start(): void {
    const worker = openWorker({ maxOutput: this.#maxOutput });
    this.#worker = worker;
    this.#ready = false;
    this.#arm(START_TIMEOUT_MS, () => {
      void this.#replace('the template worker did not start');
    });
    worker.on('message', (message: WorkerMessage) => {
      if (worker === this.#worker) this.#onMessage(message);
    });
    // Out of memory, mostly: the limits of the worker's heap end up here.
    worker.on('error', (error: NodeJS.ErrnoException) => {
      if (worker !== this.#worker) return;
      const reason = error.code === 'ERR_WORKER_OUT_OF_MEMORY' ? 'needs too much memory' : `broke: ${error.message}`;
      void this.#replace(`the chat template ${reason}`);
    });
    worker.on('exit', () => {
      if (worker === this.#worker) void this.#replace('the template worker ended');
    });
  }

  #onMessage(message: WorkerMessage): void {
    if (message.type === 'ready') {
      this.#disarm();
      this.#ready = true;
      this.#pump();
      return;
    }
    if (message.id !== this.#running?.id) return;
    this.#settle((job) => {
      if (message.type === 'rendered') job.resolve(message.text);
      else job.reject(templateError(message.error, message.message));
    });
  }

  #settle(how: (job: Job) => void): void {
    this.#disarm();
    const job = this.#running;
    this.#running = undefined;
    if (job) how(job);
    this.#pump();
  }

  /** Stops the worker; the job it was at fails, the others go to a new worker. A worker that cannot start fails all. */
  async #replace(reason: string): Promise<void> {
    const error = new EngineError(this.#ready ? 'template_error' : 'internal', reason);
    const failed = this.#ready ? [] : this.#queue;
    if (!this.#ready) this.#queue = [];
    const stopped = this.#stop();
    this.#settle((job) => {
      job.reject(error);
    });
    for (const job of failed) job.reject(error);
    await stopped;
  }

  async #stop(): Promise<void> {
    this.#disarm();
    const worker = this.#worker;
    this.#worker = undefined;
    this.#ready = false;
    await worker?.terminate();
  }

  #arm(ms: number, onTimeout: () => void): void {
    this.#disarm();
    this.#timer = setTimeout(onTimeout, ms);
  }

  #disarm(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}

/**
 * `dist/` holds the worker as .js. Run from source (the tests, under tsx) it is .ts, and a worker does not inherit
 * the loader that reads it, so there it is registered first.
 */
function openWorker(workerData: WorkerOptions): Worker {
  const options = { workerData, resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MB } };
  if (!import.meta.url.endsWith('.ts')) {
    const url = new URL('./template-worker.js', import.meta.url);
    // Flags of the process (--input-type, --test) are not for the worker; a template has no use for the environment.
    return new Worker(url, { ...options, execArgv: [], env: {} });
  }
  const loader = createRequire(import.meta.url).resolve('tsx/cjs/api');
  const worker = fileURLToPath(new URL('./template-worker.ts', import.meta.url));
  const start = `require(${JSON.stringify(loader)}).register(); require(${JSON.stringify(worker)});`;
  return new Worker(start, { ...options, execArgv: [], eval: true });
}

/** `name`: of the error in the worker (see `jinja/errors.ts`). */
function templateError(name: string, message: string): EngineError {
  switch (name) {
    case 'TemplateRaised':
      return new EngineError('template_error', `the chat template refused the conversation: ${message}`, 'messages');
    case 'TemplateSyntaxError':
      return new EngineError('template_error', `the chat template cannot be read: ${message}`);
    default:
      return new EngineError('template_error', `the chat template failed: ${message}`, 'messages');
  }
}

function closed(): EngineError {
  return new EngineError('closed', 'the template renderer is closed');
}

function cancelled(signal: AbortSignal): EngineError {
  return new EngineError('cancelled', 'the rendering was aborted', undefined, { cause: signal.reason });
}
