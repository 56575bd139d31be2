/** Repeated measurements as a median and its spread. */

export interface Figure {
  readonly median: number;
  readonly min: number;
  readonly max: number;
  readonly runs: number;
}

export function figure(values: readonly number[]): Figure {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (index: number): number => sorted[index] ?? NaN;
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? at(middle) : (at(middle - 1) + at(middle)) / 2;
  return { median, min: at(0), max: at(sorted.length - 1), runs: sorted.length };
}

/** Runs `measure` once unrecorded, so that pages and pools are warm, then `runs` times. */
export async function repeat(runs: number, measure: () => Promise<number>): Promise<Figure> {
  await measure();
  const values: number[] = [];
  for (let i = 0; i < runs; i += 1) values.push(await measure());
  return figure(values);
}

export function median(values: readonly number[]): number {
  return figure(values).median;
}

/** The value below which a share of the values lies, by the nearest rank. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? NaN;
}

/** Where the median lies in 95 % of samples drawn again from these; the same for the same values. */
export function medianInterval(values: readonly number[]): readonly [low: number, high: number] {
  if (values.length === 0) return [NaN, NaN];
  let state = 0x9e3779b9;
  const below = (limit: number): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % limit;
  };
  const medians = Array.from({ length: 2000 }, () => median(values.map(() => values[below(values.length)] ?? NaN)));
  return [percentile(medians, 0.025), percentile(medians, 0.975)];
}
