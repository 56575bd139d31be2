/** Every bound of the HTTP layer. */

export interface HttpLimits {
  /** Bytes of a JSON body; images travel inside. @default 32 MiB */
  readonly maxBodyBytes: number;
  /** Nesting of a JSON body. @default 64 */
  readonly maxJsonDepth: number;
  /** Bytes of a recording that is uploaded. @default 512 MiB */
  readonly maxUploadBytes: number;
  /** Fields of a form beside its file. @default 64 */
  readonly maxFormFields: number;
  /** Bytes of one field of a form. @default 1 MiB */
  readonly maxFieldBytes: number;
  /** Transcriptions at once, over all models; the next ones wait. @default 4 */
  readonly maxTranscriptions: number;
  /** Transcriptions that wait or are still uploaded, beyond those that run; more is a 429. @default 16 */
  readonly maxWaitingTranscriptions: number;
  /** Messages or input items of one request. @default 4096 */
  readonly maxMessages: number;
  /** Tools of one request. @default 512 */
  readonly maxTools: number;
  /** A silent stream gets a comment after this many milliseconds, and again. @default 10 000 */
  readonly keepAliveMs: number;
  /** A WebSocket is pinged after so many milliseconds, and ended if the ping before went unanswered. @default 30 000 */
  readonly socketPingMs: number;
  /** A WebSocket without a response under way is closed after so many milliseconds without a frame. @default 900 000 */
  readonly socketIdleMs: number;
}

export const DEFAULT_LIMITS: HttpLimits = {
  maxBodyBytes: 32 * 1024 * 1024,
  maxJsonDepth: 64,
  maxUploadBytes: 512 * 1024 * 1024,
  maxFormFields: 64,
  maxFieldBytes: 1024 * 1024,
  maxTranscriptions: 4,
  maxWaitingTranscriptions: 16,
  maxMessages: 4096,
  maxTools: 512,
  keepAliveMs: 10_000,
  socketPingMs: 30_000,
  socketIdleMs: 15 * 60_000,
};

/** What the server itself holds connections to, before any route. */
export const SERVER_LIMITS = {
  /** Bytes of a request's line and headers; more is a 431. */
  maxHeaderBytes: 16 * 1024,
  /** Milliseconds until all headers are here; later is a 408. */
  headersTimeoutMs: 30_000,
  /** Milliseconds until the whole request is here; later is a 408. */
  requestTimeoutMs: 300_000,
  /** Milliseconds an idle connection stays open; longer than clients keep theirs, so that they close first. */
  keepAliveTimeoutMs: 75_000,
} as const;
