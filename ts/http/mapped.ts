/**
 * What comes of a source, value by value. An async generator would do the same with several promises more for each, but it
 * would close the source if `map` threw: here that must not.
 */
export function mapped<In, Out>(
  source: AsyncIterable<In>,
  map: (value: In) => Out,
): AsyncIterableIterator<Out, undefined> {
  const values = source[Symbol.asyncIterator]();
  const done = { done: true, value: undefined } as const;
  const toResult = (result: IteratorResult<In, unknown>): IteratorResult<Out, undefined> =>
    result.done === true ? done : { done: false, value: map(result.value) };
  return {
    next: () => values.next().then(toResult),
    return: async () => {
      await values.return?.();
      return done;
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}
