/** Several generations → one stream. */

/**
 * Runs up to `limit` sources at a time and yields what they yield, as it comes. A source waits until its last value was
 * taken. When one fails, or the reader leaves, all are left.
 * @param onLeave called before the sources are left early, to wake those that wait for something
 */
export async function* mergeConcurrently<T>(
  sources: readonly (() => AsyncIterable<T>)[],
  limit: number,
  onLeave: () => void,
): AsyncGenerator<T> {
  const offered: { readonly value: T; readonly taken: (more: boolean) => void }[] = [];
  let wake: () => void = () => undefined;
  const failures: unknown[] = [];
  let left = false;
  // A call, since it changes while the workers wait.
  const isLeft = (): boolean => left;
  let next = 0;

  const work = async (): Promise<void> => {
    for (let source = sources[next++]; source !== undefined && !isLeft(); source = sources[next++]) {
      for await (const value of source()) {
        if (isLeft()) return;
        const more = await new Promise<boolean>((taken) => {
          offered.push({ value, taken });
          wake();
        });
        if (!more) return;
      }
    }
  };
  let working = Math.min(Math.max(limit, 1), sources.length);
  const workers = Array.from({ length: working }, () =>
    work()
      .catch((error: unknown) => {
        failures.push(error);
      })
      .finally(() => {
        working--;
        wake();
      }),
  );

  try {
    for (;;) {
      const offer = offered[0];
      if (offer !== undefined) {
        // It stays in the list while the reader has it: the reader may leave here.
        yield offer.value;
        offered.shift();
        offer.taken(true);
      } else if (failures.length > 0) {
        // The others fail after it, because they are told to stop.
        throw failures[0];
      } else if (working === 0) {
        return;
      } else {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    }
  } finally {
    left = true;
    if (working > 0) onLeave();
    for (const offer of offered) offer.taken(false);
    await Promise.all(workers);
  }
}
