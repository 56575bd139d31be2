/** What a run with peers leaves: every sample, so that tables, plots and the page are made from it alone. */

import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';

import { figure, median, medianInterval, type Figure } from '../statistics.js';
import type { ContenderName } from './contenders.js';
import type { Peaks } from './roofline.js';

export interface Results {
  readonly machine: { readonly cpu: string; readonly cores: number; readonly node: string; readonly threads: number };
  readonly models: Readonly<Record<string, ModelResults>>;
}

export interface ModelResults {
  readonly weightFormat: string;
  readonly weightBytes: number;
  /** Who was measured, in which version and settings. */
  readonly contenders: Readonly<Partial<Record<ContenderName, string>>>;
  /** Speeds of the engines, by name. */
  readonly speeds: Readonly<Record<string, Speed>>;
  /** Chat over HTTP, by name. */
  readonly chats: Readonly<Record<string, Chat>>;
  readonly footprint?: Footprint;
}

/** One kind of work, measured in rounds: each contender once per round, their order turned round in every other one. */
export interface Speed {
  readonly date: string;
  readonly rounds: readonly Readonly<Partial<Record<ContenderName, Sample>>>[];
}

export interface Sample extends Peaks {
  /** Tokens per second, and what the machine allowed at most just before. */
  readonly value: number;
  readonly limit: number;
}

export interface Chat {
  readonly date: string;
  readonly users: number;
  readonly prefixCache: boolean;
  readonly rounds: readonly Readonly<Partial<Record<ContenderName, ChatSample>>>[];
}

/** Milliseconds, but for the rate. */
export interface ChatSample {
  readonly tokensPerSecond: number;
  readonly firstP50: number;
  readonly firstP99: number;
  readonly betweenP50: number;
  readonly betweenP99: number;
}

/** What a server takes: medians of several starts. Bytes and milliseconds; CPU as a share of one core. */
export interface Footprint {
  readonly date: string;
  readonly servers: Readonly<Partial<Record<ContenderName, ServerFootprint>>>;
  /** Bytes of tsserve's KV cache, all of which may come to be used. */
  readonly kvBytes: number;
}

export interface ServerFootprint {
  readonly toHealth: number;
  readonly toReady: number;
  readonly residentReady: number;
  /** After chats of 8 users. */
  readonly residentUsed: number;
  readonly idleCpu: number;
}

export async function readResults(path: string): Promise<Results | undefined> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as Results;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

export async function writeResults(path: string, results: Results): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, `${JSON.stringify(results, undefined, 1)}\n`);
}

/** What is newly measured takes the place of what was known by the same name. */
export function merge(known: Results | undefined, fresh: Results): Results {
  const models: Record<string, ModelResults> = { ...known?.models };
  for (const [id, model] of Object.entries(fresh.models)) {
    const before = models[id];
    models[id] = {
      ...before,
      ...model,
      contenders: { ...before?.contenders, ...model.contenders },
      speeds: { ...before?.speeds, ...model.speeds },
      chats: { ...before?.chats, ...model.chats },
    };
  }
  return { machine: fresh.machine, models };
}

/** tsserve over a peer, round by round. */
export interface Ratio {
  readonly median: number;
  readonly low: number;
  readonly high: number;
}

export function speedOf({ rounds }: Speed, name: ContenderName): Figure | undefined {
  return some(rounds.map((round) => round[name]?.value));
}

/** The share of the limit, as a median over the rounds. */
export function shareOf({ rounds }: Speed, name: ContenderName): number | undefined {
  return some(rounds.map((round) => quotient(round[name]?.value, round[name]?.limit)))?.median;
}

export function ratioTo({ rounds }: Speed, peer: ContenderName): Ratio | undefined {
  return ratio(rounds.map((round) => quotient(round.tsserve?.value, round[peer]?.value)));
}

export function chatFigure({ rounds }: Chat, name: ContenderName, part: keyof ChatSample): number | undefined {
  return some(rounds.map((round) => round[name]?.[part]))?.median;
}

export function chatRatio({ rounds }: Chat, peer: ContenderName, part: keyof ChatSample): Ratio | undefined {
  return ratio(rounds.map((round) => quotient(round.tsserve?.[part], round[peer]?.[part])));
}

/** The most that tsserve may hold: 1.15 times its weights, its KV cache, and 80 MB. */
export function residentBudget(weightBytes: number, kvBytes: number): number {
  return weightBytes * 1.15 + kvBytes + 80e6;
}

function quotient(above: number | undefined, below: number | undefined): number | undefined {
  return above === undefined || below === undefined ? undefined : above / below;
}

function ratio(values: readonly (number | undefined)[]): Ratio | undefined {
  const known = values.filter((value) => value !== undefined);
  if (known.length === 0) return undefined;
  const [low, high] = medianInterval(known);
  return { median: median(known), low, high };
}

function some(values: readonly (number | undefined)[]): Figure | undefined {
  const known = values.filter((value) => value !== undefined);
  return known.length === 0 ? undefined : figure(known);
}
