import { expect } from 'chai';

import { defaultMemoryBudget, planRoom, type Occupant } from '../ts/app/room.js';

const occupant = (key: string, lastUsed: number, given: Partial<Occupant> = {}): Occupant => ({
  key,
  lastUsed,
  bytes: 100,
  busy: false,
  ...given,
});

describe('app: room for another model', () => {
  const limits = { maxModels: 3, maxBytes: 1000 };

  it('evicts nobody while there is room', () => {
    expect(planRoom([], 1000, limits)).to.deep.equal({ fits: true, evict: [] });
    expect(planRoom([occupant('a', 1), occupant('b', 2)], 800, limits)).to.deep.equal({ fits: true, evict: [] });
  });

  it('evicts the least recently used first, and no more than it must', () => {
    const three = [occupant('new', 9), occupant('old', 1), occupant('middle', 5)];
    expect(planRoom(three, 100, limits)).to.deep.equal({ fits: true, evict: ['old'] });
    expect(planRoom(three, 850, limits)).to.deep.equal({ fits: true, evict: ['old', 'middle'] });
    expect(planRoom(three, 1000, limits)).to.deep.equal({ fits: true, evict: ['old', 'middle', 'new'] });
  });

  it('never evicts one in use', () => {
    const busy = [occupant('old', 1, { busy: true }), occupant('b', 2), occupant('c', 3, { busy: true })];
    expect(planRoom(busy, 100, limits)).to.deep.equal({ fits: true, evict: ['b'] });
    expect(planRoom(busy, 850, limits)).to.deep.equal({ fits: false, limit: 'memory', busy: ['old', 'c'] });
    expect(planRoom(busy, 1, { ...limits, maxModels: 2 })).to.deep.equal({
      fits: false,
      limit: 'models',
      busy: ['old', 'c'],
    });
  });

  it('refuses what would not fit alone, whoever leaves', () => {
    expect(planRoom([occupant('a', 1)], 1001, limits)).to.include({ fits: false, limit: 'never' });
  });

  it('has a budget on every machine', () => {
    expect(defaultMemoryBudget())
      .to.be.greaterThan(2 ** 28)
      .and.lessThan(2 ** 50);
  });
});
