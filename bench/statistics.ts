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
