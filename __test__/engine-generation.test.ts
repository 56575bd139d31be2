import { expect } from 'chai';
import { GenerationQueue } from '../ts/engine/generation.js';
import { EngineError, type GenerationEvent } from '../ts/engine/types.js';
import { rejection } from './helpers/rejection.js';

const delta = (text: string, nTokens = 1): GenerationEvent => ({ type: 'delta', pieces: [{ text }], nTokens });
const finished: GenerationEvent = {
  type: 'finished',
  reason: 'stop',
  usage: { promptTokens: 1, cachedTokens: 0, completionTokens: 2 },
  timings: { queued: 0, prefill: 0, decode: 0 },
};

function open(options: { credit?: number; signal?: AbortSignal } = {}): {
  queue: GenerationQueue;
  grants: number[];
  cancels: () => number;
} {
  const grants: number[] = [];
  let cancels = 0;
  const queue = new GenerationQueue({
    credit: 8,
    onGrant: (tokens) => grants.push(tokens),
    onCancel: () => (cancels += 1),
    ...options,
  });
  return { queue, grants, cancels: () => cancels };
}

async function collect(queue: GenerationQueue): Promise<GenerationEvent[]> {
  const events: GenerationEvent[] = [];
  for await (const event of queue) events.push(event);
  return events;
}

describe('engine: GenerationQueue', () => {
  it('gives what was pushed, in order, and ends with finished', async () => {
    const { queue, cancels } = open();
    queue.push([{ type: 'started', promptTokens: 1, cachedTokens: 0 }, delta('a')]);
    const reading = collect(queue);
    queue.push([delta('b')]);
    queue.push([finished, delta('never')]);
    const events = await reading;
    expect(events.map((event) => event.type)).to.deep.equal(['started', 'delta', 'delta', 'finished']);
    expect(cancels()).to.equal(0);
  });

  it('wakes a reader that waits', async () => {
    const { queue } = open();
    const next = queue[Symbol.asyncIterator]().next();
    queue.push([delta('a')]);
    expect(await next).to.deep.equal({ done: false, value: delta('a') });
  });

  it('grants credit back only for what was read, in lots', async () => {
    const { queue, grants } = open({ credit: 8 });
    queue.push(Array.from({ length: 8 }, (_, i) => delta(String(i))));
    expect(grants).to.deep.equal([]);
    const reader = queue[Symbol.asyncIterator]();
    await reader.next();
    expect(grants).to.deep.equal([]);
    await reader.next();
    expect(grants).to.deep.equal([2]);
    for (let i = 0; i < 6; i += 1) await reader.next();
    expect(grants.reduce((sum, n) => sum + n, 0)).to.equal(8);
  });

  it('counts tokens, not events', async () => {
    const { queue, grants } = open({ credit: 8 });
    queue.push([delta('abc', 3), delta('', 0)]);
    await queue[Symbol.asyncIterator]().next();
    expect(grants).to.deep.equal([3]);
  });

  it('keeps only the newest unread prefill progress', async () => {
    const { queue } = open();
    for (let computed = 1; computed <= 100; computed += 1) queue.push([{ type: 'prefill', computed }]);
    queue.push([finished]);
    expect(await collect(queue)).to.deep.equal([{ type: 'prefill', computed: 100 }, finished]);
  });

  it('cancels when the loop is left early', async () => {
    const { queue, cancels } = open();
    queue.push([delta('a'), delta('b')]);
    for await (const event of queue) {
      expect(event.type).to.equal('delta');
      break;
    }
    expect(cancels()).to.equal(1);
    queue.push([delta('late')]);
  });

  it('does not cancel when the loop is left after the end', async () => {
    const { queue, cancels } = open();
    queue.push([finished]);
    for await (const event of queue) if (event.type === 'finished') break;
    expect(cancels()).to.equal(0);
  });

  it('throws cancelled on abort, at a waiting reader too, and drops what is queued', async () => {
    const abort = new AbortController();
    const { queue, cancels } = open({ signal: abort.signal });
    const reader = queue[Symbol.asyncIterator]();
    const next = reader.next();
    abort.abort(new Error('why'));
    const error = await rejection(next, EngineError);
    expect(error.code).to.equal('cancelled');
    expect((error.cause as Error).message).to.equal('why');
    expect(cancels()).to.equal(1);
    queue.push([delta('late')]);
    expect((await reader.next()).done).to.equal(true);
  });

  it('is born cancelled under an aborted signal, without telling the engine', async () => {
    const { queue, cancels } = open({ signal: AbortSignal.abort() });
    expect((await rejection(collect(queue), EngineError)).code).to.equal('cancelled');
    expect(cancels()).to.equal(0);
  });

  it('lets go of the signal at the end', async () => {
    const abort = new AbortController();
    const { queue, cancels } = open({ signal: abort.signal });
    queue.push([delta('a'), finished]);
    abort.abort();
    expect(cancels()).to.equal(0);
    expect(await collect(queue)).to.have.length(2);
  });

  it('throws a failure after what came before it', async () => {
    const { queue } = open();
    queue.push([delta('a')]);
    queue.fail(new EngineError('internal', 'broke'));
    const reader = queue[Symbol.asyncIterator]();
    expect((await reader.next()).done).to.equal(false);
    expect((await rejection(reader.next(), EngineError)).message).to.equal('broke');
    expect((await reader.next()).done).to.equal(true);
  });

  it('can be read once, by one reader', async () => {
    const { queue } = open();
    const reader = queue[Symbol.asyncIterator]();
    void reader.next();
    expect((await rejection(reader.next(), EngineError)).code).to.equal('invalid_request');
    expect(() => queue[Symbol.asyncIterator]()).to.throw(EngineError);
  });
});
