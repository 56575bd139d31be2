/** Every bound of the MCP client. */

export interface McpLimits {
  /** Connections that are open at once, over all servers. @default 32 */
  readonly maxConnections: number;
  /** Milliseconds after which an unused connection is closed. @default 60 000 */
  readonly idleMs: number;
  /** Milliseconds to connect. @default 20 000 */
  readonly connectMs: number;
  /** Milliseconds to list the tools of one server. @default 30 000 */
  readonly listMs: number;
  /** Milliseconds that a list is used for, if the server does not say. @default 60 000 */
  readonly listTtlMs: number;
  /** Pages of one list. @default 16 */
  readonly maxPages: number;
  /** Tools of one server; a longer list is an error, since nobody could say which to leave out. @default 256 */
  readonly maxTools: number;
  /** Characters of one tool's description; the rest is cut off. @default 4096 */
  readonly maxDescription: number;
  /** Characters of one tool's schema as JSON; a tool with more is left out. @default 65 536 */
  readonly maxSchema: number;
  /** Milliseconds without progress until a call has failed. @default 60 000 */
  readonly callMs: number;
  /** Milliseconds until a call has failed, whatever progress it reports. @default 600 000 */
  readonly callTotalMs: number;
  /** Bytes of one message of a server. @default 8 MiB */
  readonly maxMessageBytes: number;
  /** Characters of a call's output; the rest is cut off. @default 65 536 */
  readonly maxOutput: number;
  /** Milliseconds between two reports of progress; what comes faster is dropped. @default 100 */
  readonly progressMs: number;
}

export const DEFAULT_MCP_LIMITS: McpLimits = {
  maxConnections: 32,
  idleMs: 60_000,
  connectMs: 20_000,
  listMs: 30_000,
  listTtlMs: 60_000,
  maxPages: 16,
  maxTools: 256,
  maxDescription: 4096,
  maxSchema: 65_536,
  callMs: 60_000,
  callTotalMs: 600_000,
  maxMessageBytes: 8 * 1024 * 1024,
  maxOutput: 65_536,
  progressMs: 100,
};
