/** The error a promise is rejected with, checked to be of that class. */
export async function rejection<T extends Error>(
  promise: Promise<unknown>,
  kind: new (...args: never[]) => T,
): Promise<T> {
  let value: unknown;
  try {
    value = await promise;
  } catch (error) {
    if (error instanceof kind) return error;
    throw error;
  }
  throw new Error(`expected ${kind.name}, got the value ${JSON.stringify(value)}`);
}
