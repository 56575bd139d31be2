/** Chunks → an answer: each as an event, or all folded into one object. */

import type { RequestContext } from './context.js';
import { ClientGoneError } from './errors.js';
import { reportError, sendJson } from './respond.js';
import { SseStream } from './sse.js';

/**
 * @param chunks left as soon as the client is gone
 * @param fold of a complete list of chunks
 */
export async function answer<Chunk>(
  context: RequestContext,
  stream: boolean,
  chunks: AsyncIterable<Chunk>,
  fold: (chunks: readonly Chunk[]) => unknown,
): Promise<void> {
  if (stream) await streamChunks(context, chunks);
  else sendJson(context, 200, fold(await collect(context, chunks)));
}

async function collect<Chunk>(context: RequestContext, chunks: AsyncIterable<Chunk>): Promise<Chunk[]> {
  const all: Chunk[] = [];
  for await (const chunk of chunks) {
    if (context.signal.aborted) throw new ClientGoneError();
    all.push(chunk);
  }
  return all;
}

/** Each as an event, then the end; an error after the first goes out as an event. */
export async function streamChunks(context: RequestContext, chunks: AsyncIterable<unknown>): Promise<void> {
  using sse = new SseStream(context);
  try {
    for await (const chunk of chunks) await sse.send(chunk);
    await sse.end();
  } catch (error) {
    // Until the status is out the error is an ordinary one.
    if (!sse.started || context.signal.aborted) throw error;
    sse.fail(reportError(context, error).toEnvelope());
  }
}
