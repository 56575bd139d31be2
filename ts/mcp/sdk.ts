/** MCP's SDK, loaded with the first connection: it takes longer to load than all else that a server needs to listen. */

export type Sdk = typeof import('@modelcontextprotocol/client') & typeof import('@modelcontextprotocol/client/stdio');

let sdk: Sdk | undefined;

export async function loadSdk(): Promise<Sdk> {
  sdk ??= {
    ...(await import('@modelcontextprotocol/client')),
    ...(await import('@modelcontextprotocol/client/stdio')),
  };
  return sdk;
}

/** Undefined before the first connection: nothing can be an error of the SDK's then. */
export function loadedSdk(): Sdk | undefined {
  return sdk;
}
