/** Why a guarded fetch came to nothing. Messages name hosts, never paths, queries or headers: those may hold secrets. */

export type GuardedFetchErrorCode =
  /** Not http(s), or with a password in it. */
  | 'invalid_url'
  /** An address that is not the public internet's. */
  | 'blocked_address'
  /** To nowhere, to plain http, in circles, or with a body to another origin. */
  | 'redirect_refused'
  | 'too_large'
  | 'timeout'
  | 'bad_response'
  | 'network';

export class GuardedFetchError extends Error {
  override readonly name = 'GuardedFetchError';

  constructor(
    readonly code: GuardedFetchErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}
