/** What the server counts, for Prometheus. */

import { Counter, Gauge, Histogram, Registry } from 'prom-client';

import type { ModelRegistry, ModelStatus } from '../app/types.js';
import type { ChatEvent } from '../chat/types.js';
import type { TranscriptionEvent } from '../engine/speech.js';
import type { GenerationEvent } from '../engine/types.js';

/** Seconds: from a short prompt on a fast machine to a long one on a slow one. */
const FIRST_TOKEN_BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120];
const INTER_TOKEN_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2, 2.5];
const REQUEST_BUCKETS = [0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600];

export interface RequestSample {
  readonly method: string;
  /** The route's path, never the request's: what clients send must not make new series. */
  readonly route: string;
  readonly status: number;
  /** The model's own id; empty where none was asked for. */
  readonly model: string;
  readonly seconds: number;
}

/** Is shown the events of one request. */
export interface Meter<Event> {
  see(event: Event): void;
}

export type GenerationMeter = Meter<ChatEvent | GenerationEvent>;

/** How many transcriptions there are. */
export interface TranscriptionCounts {
  readonly running: number;
  readonly waiting: number;
}

/** All names start with `tsserve_`. Series are made by route, status and loaded model, so their number is bounded. */
export class Metrics {
  private readonly registry = new Registry();
  private readonly requests = new Counter({
    name: 'tsserve_requests_total',
    help: 'Requests by route, status and model; status 499: the client went away',
    labelNames: ['method', 'route', 'status', 'model'],
    registers: [this.registry],
  });
  private readonly seconds = new Histogram({
    name: 'tsserve_request_seconds',
    help: 'Time from a request to the end of its answer',
    labelNames: ['route'],
    buckets: REQUEST_BUCKETS,
    registers: [this.registry],
  });
  private readonly firstToken = new Histogram({
    name: 'tsserve_time_to_first_token_seconds',
    help: 'Time from the start of a generation to its first output',
    labelNames: ['model'],
    buckets: FIRST_TOKEN_BUCKETS,
    registers: [this.registry],
  });
  private readonly interToken = new Histogram({
    name: 'tsserve_inter_token_seconds',
    help: 'Time between outputs of a generation',
    labelNames: ['model'],
    buckets: INTER_TOKEN_BUCKETS,
    registers: [this.registry],
  });
  private readonly promptTokens = this.modelCounter(
    'tsserve_prompt_tokens_total',
    'Prompt tokens, cached ones included',
  );
  private readonly cachedTokens = this.modelCounter(
    'tsserve_prefix_hit_tokens_total',
    'Prompt tokens that were found in the prefix cache',
  );
  private readonly completionTokens = this.modelCounter('tsserve_completion_tokens_total', 'Generated tokens');

  private readonly audioSeconds = this.modelCounter('tsserve_audio_seconds_total', 'Seconds of recordings transcribed');

  /** @param requestsRunning how many requests are under way */
  constructor(models: ModelRegistry, requestsRunning: () => number, transcriptions: TranscriptionCounts) {
    const registers = [this.registry];
    for (const state of ['running', 'waiting'] as const) {
      new Gauge({
        name: `tsserve_transcriptions_${state}`,
        help: state === 'running' ? 'Transcriptions under way' : 'Transcriptions that wait or are still uploaded',
        registers,
        collect() {
          this.set(transcriptions[state]);
        },
      });
    }
    new Gauge({
      name: 'tsserve_http_requests_running',
      help: 'Requests whose answers are not out',
      registers,
      collect() {
        this.set(requestsRunning());
      },
    });
    new Gauge({
      name: 'tsserve_resident_memory_bytes',
      help: 'Memory of the process',
      registers,
      collect() {
        this.set(process.memoryUsage.rss());
      },
    });
    const ofModels = (name: string, help: string, value: (status: ModelStatus) => number): void => {
      new Gauge({
        name,
        help,
        labelNames: ['model'],
        registers,
        collect() {
          this.reset();
          for (const status of models.loaded()) this.set({ model: status.info.id }, value(status));
        },
      });
    };
    ofModels('tsserve_model_loaded', 'Models in memory', () => 1);
    ofModels('tsserve_model_bytes', 'Weights and KV cache', ({ info }) => info.weightBytes + info.kvBytes);
    ofModels('tsserve_sequences_running', 'Sequences that are computed', ({ stats }) => stats.running);
    ofModels('tsserve_sequences_waiting', 'Sequences in the queue', ({ stats }) => stats.waiting);
    ofModels('tsserve_kv_blocks', 'Blocks of the KV cache', ({ stats }) => stats.totalBlocks);
    ofModels(
      'tsserve_kv_blocks_free',
      'Blocks of the KV cache that no sequence holds',
      ({ stats }) => stats.freeBlocks,
    );
    ofModels('tsserve_kv_use_ratio', 'Share of the KV cache that sequences hold, 0 to 1', ({ stats }) =>
      stats.totalBlocks === 0 ? 0 : 1 - stats.freeBlocks / stats.totalBlocks,
    );
    const countsOfModels = (name: string, help: string, value: (status: ModelStatus) => number): void => {
      new Counter({
        name,
        help,
        labelNames: ['model'],
        registers,
        collect() {
          this.reset();
          for (const status of models.loaded()) this.inc({ model: status.info.id }, value(status));
        },
      });
    };
    countsOfModels('tsserve_drafted_tokens_total', 'Tokens drafted and verified', ({ stats }) => stats.draftedTokens);
    countsOfModels(
      'tsserve_accepted_tokens_total',
      'Drafted tokens that are in answers',
      ({ stats }) => stats.acceptedTokens,
    );
  }

  readonly contentType = Registry.PROMETHEUS_CONTENT_TYPE;

  /** The text that Prometheus reads. */
  text(): Promise<string> {
    return this.registry.metrics();
  }

  request({ method, route, status, model, seconds }: RequestSample): void {
    this.requests.inc({ method, route, status: String(status), model });
    this.seconds.observe({ route }, seconds);
  }

  /** @param model its own id */
  generation(model: string): GenerationMeter {
    const firstToken = this.firstToken.labels(model);
    const interToken = this.interToken.labels(model);
    let last = performance.now();
    let begun = false;
    return {
      see: (event) => {
        switch (event.type) {
          case 'started':
          case 'prefill':
          case 'prompt':
            return;
          case 'finished':
            this.promptTokens.inc({ model }, event.usage.promptTokens);
            this.cachedTokens.inc({ model }, event.usage.cachedTokens);
            this.completionTokens.inc({ model }, event.usage.completionTokens);
            return;
          default: {
            const now = performance.now();
            (begun ? interToken : firstToken).observe((now - last) / 1000);
            begun = true;
            last = now;
          }
        }
      },
    };
  }

  /** Seconds are counted as they are done, so that a transcription that is left counts for what it took. */
  transcription(model: string): Meter<TranscriptionEvent> {
    let duration = 0;
    let done = 0;
    const reach = (seconds: number): void => {
      if (seconds > done) this.audioSeconds.inc({ model }, seconds - done);
      done = Math.max(done, seconds);
    };
    return {
      see: (event) => {
        if (event.type === 'started') duration = event.duration;
        else if (event.type === 'progress') reach(Math.min(event.seconds, duration));
        else if (event.type === 'finished') {
          reach(duration);
          this.completionTokens.inc({ model }, event.usage.textTokens);
        }
      },
    };
  }

  private modelCounter(name: string, help: string): Counter<'model'> {
    return new Counter({ name, help, labelNames: ['model'], registers: [this.registry] });
  }
}
