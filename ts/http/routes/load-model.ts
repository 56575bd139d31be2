import type { LoadProgress } from '../../engine/types.js';
import {
  LOAD_MODEL_FIELDS,
  type LoadEvent,
  parseLoadModelRequest,
  type ResetResult,
} from '../../protocol/load-model.js';
import { ApiError } from '../../protocol/errors.js';
import { acquireModel } from '../acquire.js';
import { readJson } from '../body.js';
import type { RequestContext } from '../context.js';
import { reportError, sendJson } from '../respond.js';
import { SseStream } from '../sse.js';
import type { Route } from './route.js';

const PATH = '/load_model';

/** Weights are told in hundredths: the engine knows a share, clients want whole numbers. */
const WEIGHT_STEPS = 100;

export const loadModel: Route = {
  method: 'POST',
  path: PATH,
  summary: 'load a model, with its progress as events',
  body: { fields: LOAD_MODEL_FIELDS, required: [] },
  answer: { event: 'LoadEvent' },
  async handle(context) {
    const id = parseLoadModelRequest(await readJson(context), context.parseOptions(PATH));
    const { registry } = context.services;
    const known = id === undefined ? (await registry.list())[0] : await registry.find(id);
    const model = id ?? known?.id ?? '';
    const cached = known?.state === 'ready';
    using sse = new SseStream(context);
    const events = new LoadEvents(model, sse);
    try {
      const lease = await acquireModel(context, id, (progress) => events.progress(progress));
      lease[Symbol.dispose]();
      await events.last({ status: 'ready', model, cached });
    } catch (error) {
      if (context.signal.aborted) throw error;
      // No model was named where none is the one: a mistake in the request, before anything was looked for.
      if (id === undefined && !sse.started && error instanceof ApiError) throw error;
      const { message, code } = reportError(context, error);
      await events.last({ status: 'error', model, message, code });
    }
    context.res.end();
  },
};

export const reset: Route = {
  method: 'POST',
  path: '/reset',
  summary: 'unload the models that nobody uses',
  answer: { json: 'Reset' },
  async handle(context: RequestContext) {
    const result: ResetResult = { status: 'ok', unloaded: await context.services.registry.unloadIdle() };
    sendJson(context, 200, result);
  },
};

/** Progress comes as it likes; events go out in order, and to a slow client only the newest of a stage. */
class LoadEvents {
  private readonly queue: LoadEvent[] = [];
  private sending: Promise<void> | undefined;
  private started = false;
  private percent = 0;

  constructor(
    private readonly model: string,
    private readonly sse: SseStream,
  ) {}

  progress(progress: LoadProgress): void {
    if (!this.started) {
      this.started = true;
      this.add({ status: 'loading', model: this.model, stage: 'processor' });
      this.add({ status: 'loading', model: this.model, stage: 'config' });
    }
    if (progress.stage === 'download') {
      const { done: current, total } = progress;
      this.add({ status: 'loading', model: this.model, stage: 'download', progress: { current, total } });
    } else if (progress.stage === 'weights') {
      const share = progress.total > 0 ? progress.done / progress.total : 0;
      this.weights(Math.min(Math.floor(share * WEIGHT_STEPS), WEIGHT_STEPS));
    }
  }

  async last(event: LoadEvent): Promise<void> {
    // Whatever the last share was, the weights are complete when the model is.
    if (event.status === 'ready' && this.started) this.weights(WEIGHT_STEPS);
    this.add(event);
    await this.sending;
  }

  private weights(current: number): void {
    if (current <= this.percent) return;
    this.percent = current;
    this.add({ status: 'loading', model: this.model, stage: 'weights', progress: { current, total: WEIGHT_STEPS } });
  }

  private add(event: LoadEvent): void {
    const last = this.queue.at(-1);
    if (last?.status === 'loading' && event.status === 'loading' && last.stage === event.stage) this.queue.pop();
    this.queue.push(event);
    this.sending ??= this.send();
    // Whoever awaits the last event hears of the failure.
    this.sending.catch(() => undefined);
  }

  private async send(): Promise<void> {
    for (let event = this.queue.shift(); event !== undefined; event = this.queue.shift()) await this.sse.send(event);
    this.sending = undefined;
  }
}
