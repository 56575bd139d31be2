import { expect } from 'chai';

import { clips } from '../bench/whisper/speech.js';
import { normalise, reference, wordErrors } from '../bench/whisper/word-errors.js';

describe('bench: word errors', () => {
  it('compares words without case, punctuation and hyphens', () => {
    expect(normalise(' And Mr. Dashwood’s "ill-disposed" MAN.')).to.deep.equal(
      'and mister dashwoods ill disposed man'.split(' '),
    );
    expect(reference('had he married a more a amiable woman')).to.deep.equal(
      'had he married a more amiable woman'.split(' '),
    );
  });

  it('counts the fewest substitutions, deletions and insertions', () => {
    const errors = (expected: string, found: string) => wordErrors(normalise(expected), normalise(found));
    expect(errors('a b c', 'a b c')).to.deep.equal({ errors: 0, words: 3, list: [] });
    expect(errors('a b c', 'a x c')).to.deep.equal({ errors: 1, words: 3, list: ['b > x'] });
    expect(errors('a b c', 'a c')).to.deep.equal({ errors: 1, words: 3, list: ['b > ∅'] });
    expect(errors('a b', 'a y b z')).to.deep.equal({ errors: 2, words: 2, list: ['∅ > y', '∅ > z'] });
    expect(errors('', 'a b')).to.deep.include({ errors: 2, words: 0 });
    expect(errors('a b', '')).to.deep.include({ errors: 2, words: 2 });
  });

  it('knows what the clips say', async () => {
    const all = await clips();
    expect(all.map(({ words }) => words.length)).to.deep.equal([22, 8, 14, 18, 8]);
    expect(all.reduce((sum, { seconds }) => sum + seconds, 0)).to.be.closeTo(24.7, 0.1);
  });
});
