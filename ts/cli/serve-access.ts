/** Who may speak to `tsserve serve`: its keys, and the names it answers to. */

import { readFile } from 'node:fs/promises';
import { hostname, networkInterfaces } from 'node:os';

import { CliFailure, systemCode } from './failure.js';

export interface AccessFlags {
  readonly host: string;
  readonly apiKey?: readonly string[];
  readonly apiKeyFile?: string;
  readonly allowUnauthenticated?: boolean;
  readonly allowedHosts?: readonly string[];
}

export interface Access {
  /** Empty: whoever reaches the server may ask. */
  readonly apiKeys: readonly string[];
  /** Besides loopback ones. */
  readonly allowedHosts: readonly string[];
}

/** @throws CliFailure for keys that cannot be read, and where other machines would need none */
export async function readAccess(flags: AccessFlags): Promise<Access> {
  const apiKeys = await readKeys(flags);
  if (apiKeys.length === 0 && flags.allowUnauthenticated !== true && !isLoopback(flags.host)) {
    throw new CliFailure(
      `${flags.host} can be reached from other machines: give a key with --api-key, or say --allow-unauthenticated`,
    );
  }
  return { apiKeys, allowedHosts: [...(flags.allowedHosts ?? []), ...ownNames(flags.host)] };
}

async function readKeys(flags: AccessFlags): Promise<string[]> {
  const keys = [...(flags.apiKey ?? [])];
  const fromEnvironment = process.env.TSSERVE_API_KEY;
  if (fromEnvironment !== undefined && fromEnvironment !== '') {
    if (fromEnvironment.trim() === '') throw new CliFailure('TSSERVE_API_KEY holds a blank key');
    keys.push(fromEnvironment);
  }
  if (flags.apiKeyFile === undefined) return keys;
  const text = await readFile(flags.apiKeyFile, 'utf8').catch((error: unknown) => {
    throw new CliFailure(
      `the key file ${flags.apiKeyFile ?? ''} cannot be read (${systemCode(error) ?? String(error)})`,
    );
  });
  const fromFile = text.split(/\r?\n/).map((line) => line.trim());
  const found = fromFile.filter((line) => line !== '' && !line.startsWith('#'));
  if (found.length === 0) throw new CliFailure(`the key file ${flags.apiKeyFile} holds no key`);
  return [...keys, ...found];
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(?:\.\d{1,3}){3}$/.test(host);
}

/** What clients may call this machine when it serves others: the address it binds, or all of its own. */
function ownNames(host: string): string[] {
  if (isLoopback(host)) return [];
  const bracketed = (address: string): string => (address.includes(':') ? `[${address}]` : address);
  if (host !== '0.0.0.0' && host !== '::') return [bracketed(host)];
  const addresses = Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map(({ address }) => address));
  return [hostname(), `${hostname()}.local`, ...addresses.map(bracketed)];
}
