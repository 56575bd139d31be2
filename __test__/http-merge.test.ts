import { expect } from 'chai';

import { mergeConcurrently } from '../ts/http/merge.js';

/** Sources that yield at once, and remember whether they were left. */
function counting(length: number, left: string[], name: string): () => AsyncGenerator<string> {
  return async function* () {
    let done = false;
    try {
      for (let i = 0; i < length; i++) yield `${name}${i}`;
      done = true;
    } finally {
      if (!done) left.push(name);
    }
  };
}

describe('merged sources', () => {
  it('are all read, each in its own order', async () => {
    const left: string[] = [];
    const sources = ['a', 'b', 'c'].map((name) => counting(4, left, name));
    for (const limit of [1, 2, 3, 9]) {
      const seen: string[] = [];
      for await (const value of mergeConcurrently(sources, limit, () => left.push('all'))) seen.push(value);
      for (const name of ['a', 'b', 'c']) {
        expect(seen.filter((value) => value.startsWith(name))).to.deep.equal([0, 1, 2, 3].map((i) => `${name}${i}`));
      }
      expect(left).to.deep.equal([]);
    }
  });

  it('are none for none', async () => {
    for await (const value of mergeConcurrently([], 4, () => undefined)) expect.fail(String(value));
  });

  it('are all left when the reader leaves, those that wait for their turn too', async () => {
    const left: string[] = [];
    const sources = ['a', 'b', 'c', 'd'].map((name) => counting(100, left, name));
    for await (const value of mergeConcurrently(sources, 3, () => left.push('told'))) {
      if (value.endsWith('2')) break;
    }
    // The fourth was never begun.
    expect(left).to.have.members(['told', 'a', 'b', 'c']);
  });

  it('are all left when one fails, and fail as it did', async () => {
    const left: string[] = [];
    const fails = async function* (): AsyncGenerator<string> {
      yield 'f';
      throw new RangeError('first');
    };
    const sources = [counting(1000, left, 'a'), fails, counting(1000, left, 'b')];
    let failure: unknown;
    try {
      for await (const value of mergeConcurrently(sources, 3, () => left.push('told'))) expect(value).to.be.a('string');
    } catch (error) {
      failure = error;
    }
    expect(failure).to.be.instanceOf(RangeError).with.property('message', 'first');
    expect(left).to.have.members(['told', 'a', 'b']);
  });
});
