/** Keeps what a server was told in confidence out of what it says in public. */

import type { McpServer } from './tool.js';

/** Shorter values ("1", "true") are no secrets, and would be found everywhere. */
const SHORTEST = 8;

/** Replaces the server's headers, token, environment and address parameters wherever they stand in a text. */
export function secretCleaner(server: McpServer): (text: string) => string {
  const secrets = secretsOf(server)
    .filter((secret) => secret.length >= SHORTEST)
    .sort((a, b) => b.length - a.length);
  return (text) => secrets.reduce((cleaned, secret) => cleaned.replaceAll(secret, '[redacted]'), text);
}

function secretsOf({ reach }: McpServer): string[] {
  if (reach.type === 'custom') return [];
  if (reach.type === 'stdio') return Object.values(reach.env);
  const headers = Object.values(reach.headers ?? {}).flatMap((value) => [value, value.replace(/^\S+\s+/, '')]);
  return [
    ...headers,
    ...(reach.authorization === undefined ? [] : [reach.authorization]),
    ...reach.url.searchParams.values(),
  ];
}
