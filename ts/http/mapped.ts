/** One stream of values → another, as cheaply as that goes: it is passed for every token. */

/**
 * What `map` makes of each value of `source`. An async generator would do the same with several promises more for each.
 * The source is begun at once, and left when the reader leaves or `map` throws.
 */
export function mapped<In, Out>(
  source: AsyncIterable<In>,
  map: (value: In) => Out,
): AsyncIterableIterator<Out, undefined> {
  const values = source[Symbol.asyncIterator]();
  const leave = async (): Promise<void> => {
    await values.return?.();
  };
  const leaveFor = async (error: unknown): Promise<never> => {
    // What went wrong first is what is told.
    await leave().catch(() => undefined);
    throw error;
  };
  const toResult = (result: IteratorResult<In, unknown>): IteratorResult<Out, undefined> | Promise<never> => {
    if (result.done === true) return { done: true, value: undefined };
    try {
      return { done: false, value: map(result.value) };
    } catch (error) {
      return leaveFor(error);
    }
  };
  return {
    next: () => values.next().then(toResult),
    return: async () => {
      await leave();
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}
