import { expect } from 'chai';

import { mapped } from '../ts/http/mapped.js';

/** Numbers from 0 on; `left` is called when the reader leaves before the last. */
async function* counting(length: number, left: () => void): AsyncGenerator<number> {
  let done = false;
  try {
    for (let i = 0; i < length; i++) yield await Promise.resolve(i);
    done = true;
  } finally {
    if (!done) left();
  }
}

async function readAll<T>(values: AsyncIterable<T>, into: T[]): Promise<void> {
  for await (const value of values) into.push(value);
}

describe('a mapped source', () => {
  it('is read to its end, in order, and then not left', async () => {
    const seen: string[] = [];
    let left = 0;
    const counts = counting(3, () => left++);
    await readAll(
      mapped(counts, (value) => `#${value}`),
      seen,
    );
    expect(seen).to.deep.equal(['#0', '#1', '#2']);
    expect(left).to.equal(0);
  });

  it('is left when the reader leaves', async () => {
    let left = 0;
    const counts = counting(9, () => left++);
    for await (const value of mapped(counts, (number) => number * 2)) if (value === 4) break;
    expect(left).to.equal(1);
    expect(await counts.next()).to.deep.equal({ done: true, value: undefined });
  });

  it('is left when the map throws, and says why', async () => {
    let left = 0;
    const seen: number[] = [];
    const failing = mapped(
      counting(9, () => left++),
      (value) => {
        if (value === 2) throw new Error('no two');
        return value;
      },
    );
    const failure: unknown = await readAll(failing, seen).catch((error: unknown) => error);
    expect(failure).to.be.an('error').with.property('message', 'no two');
    expect(seen).to.deep.equal([0, 1]);
    expect(left).to.equal(1);
  });

  it('passes on how the source fails', async () => {
    const broken = async function* (): AsyncGenerator<number> {
      yield await Promise.resolve(1);
      throw new Error('no more');
    };
    const seen: number[] = [];
    const failure: unknown = await readAll(
      mapped(broken(), (value) => value),
      seen,
    ).catch((error: unknown) => error);
    expect(failure).to.be.an('error').with.property('message', 'no more');
    expect(seen).to.deep.equal([1]);
  });
});
