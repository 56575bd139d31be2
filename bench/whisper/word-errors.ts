/** Word error rate, by a normaliser that can be told in a sentence. */

/** What the readers say and the transcript does not. */
const SLIPS: readonly (readonly [wrong: string, right: string])[] = [['a more a amiable', 'a more amiable']];

/** Spoken forms of what is written shorter. */
const SPOKEN: Readonly<Record<string, string>> = { mr: 'mister', mrs: 'missus', dr: 'doctor' };

/** Words in lower case, without punctuation; hyphens part words; mr, mrs and dr are written out. */
export function normalise(text: string): string[] {
  const words = text
    .toLowerCase()
    .normalize('NFKC')
    .replace(/[’']/g, '')
    .split(/[^\p{L}\p{N}]+/u)
    .filter((word) => word !== '');
  return words.map((word) => SPOKEN[word] ?? word);
}

/** The words of a transcript, without its own slips. */
export function reference(text: string): string[] {
  const plain = normalise(text).join(' ');
  return SLIPS.reduce((text, [wrong, right]) => text.replaceAll(wrong, right), plain).split(' ');
}

export interface WordErrors {
  /** Substitutions, deletions and insertions: the fewest. */
  readonly errors: number;
  /** Words of the reference. */
  readonly words: number;
  /** What is wrong, as "said > heard"; ∅ where there is nothing. */
  readonly list: readonly string[];
}

/** Levenshtein's distance over words, and one way to it. */
export function wordErrors(expected: readonly string[], found: readonly string[]): WordErrors {
  const width = found.length + 1;
  const cost = new Uint32Array((expected.length + 1) * width);
  const at = (i: number, j: number): number => cost[i * width + j] ?? 0;
  for (let i = 0; i <= expected.length; i += 1) {
    for (let j = 0; j <= found.length; j += 1) {
      const same = expected[i - 1] === found[j - 1];
      cost[i * width + j] =
        i === 0 ? j : j === 0 ? i : Math.min(at(i - 1, j) + 1, at(i, j - 1) + 1, at(i - 1, j - 1) + (same ? 0 : 1));
    }
  }
  const list: string[] = [];
  let [i, j] = [expected.length, found.length];
  while (i > 0 || j > 0) {
    const [said, heard] = [expected[i - 1], found[j - 1]];
    if (i > 0 && j > 0 && at(i, j) === at(i - 1, j - 1) + (said === heard ? 0 : 1)) {
      if (said !== heard) list.push(`${said ?? ''} > ${heard ?? ''}`);
      i -= 1;
      j -= 1;
    } else if (i > 0 && at(i, j) === at(i - 1, j) + 1) {
      list.push(`${said ?? ''} > ∅`);
      i -= 1;
    } else {
      list.push(`∅ > ${heard ?? ''}`);
      j -= 1;
    }
  }
  return { errors: at(expected.length, found.length), words: expected.length, list: list.reverse() };
}
