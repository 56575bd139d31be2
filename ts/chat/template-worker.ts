/** The worker that renders chat templates: code from model repositories, kept off the event loop. */

import { parentPort, workerData } from 'node:worker_threads';
import { renderTemplate, type TemplateInput } from './template-render.js';

export interface WorkerOptions {
  /** Longest rendered text in UTF-16 units. */
  readonly maxOutput: number;
}

export interface RenderJob {
  readonly id: number;
  readonly input: TemplateInput;
}

export type WorkerMessage =
  | { readonly type: 'ready' }
  | { readonly type: 'rendered'; readonly id: number; readonly text: string }
  | { readonly type: 'failed'; readonly id: number; readonly error: string; readonly message: string };

const port = parentPort;
if (port) {
  const { maxOutput } = workerData as WorkerOptions;
  const post = (message: WorkerMessage): void => port.postMessage(message);
  port.on('message', ({ id, input }: RenderJob) => {
    try {
      post({ type: 'rendered', id, text: renderTemplate(input, maxOutput) });
    } catch (error) {
      const { name, message } = error instanceof Error ? error : { name: 'Error', message: String(error) };
      post({ type: 'failed', id, error: name, message });
    }
  });
  post({ type: 'ready' });
}
