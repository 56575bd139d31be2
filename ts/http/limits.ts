/** Every bound of the HTTP layer. */

export interface HttpLimits {
  /** Bytes of a JSON body; images travel inside. @default 32 MiB */
  readonly maxBodyBytes: number;
  /** Nesting of a JSON body. @default 64 */
  readonly maxJsonDepth: number;
  /** A silent stream gets a comment after this many milliseconds, and again. @default 10 000 */
  readonly keepAliveMs: number;
}

export const DEFAULT_LIMITS: HttpLimits = {
  maxBodyBytes: 32 * 1024 * 1024,
  maxJsonDepth: 64,
  keepAliveMs: 10_000,
};
