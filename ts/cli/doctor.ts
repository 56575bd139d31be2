/** `tsserve doctor [MODEL]`: what this machine's CPU can do, and how fast MODEL could be on it at most. */

import type { Command } from 'commander';

import { requireKind } from '../app/model-kind.js';
import { createNativeEngine } from '../engine/native.js';
import type { Engine, LoadedModel, MachineReport } from '../engine/types.js';
import { formatBytes, plural } from './format.js';
import { ProgressLine } from './progress.js';

interface DoctorFlags {
  readonly json?: boolean;
  readonly download: boolean;
}

/** Tokens per second. What is unset has no limit that was measured, or was not measured. */
export interface ModelSpeeds {
  readonly answers?: number;
  readonly prompts?: number;
}

export function addDoctorCommand(program: Command): void {
  program
    .command('doctor')
    .summary('say what the CPU can do, and how fast a model could be')
    .description(
      "Measures this machine's CPU: instruction set, memory bandwidth, integer operations.\n" +
        'With MODEL, loads it and says how many tokens per second follow from these at most.',
    )
    .argument('[model]', 'the model to load, named as for serve')
    .option('--json', 'as JSON')
    .option('--no-download', 'never fetch from the hub')
    .action(async (model: string | undefined, flags: DoctorFlags) => {
      const engine = createNativeEngine();
      try {
        process.stdout.write(`${await examine(engine, model, flags)}\n`);
      } finally {
        await engine.close();
      }
    });
}

/** The whole report, without its last line break. */
export async function examine(engine: Engine, name: string | undefined, flags: DoctorFlags): Promise<string> {
  const before = await engine.measureMachine();
  const model = name === undefined ? undefined : await load(engine, name, flags);
  const machine = model === undefined ? before : better(before, await engine.measureMachine());
  if (flags.json === true) {
    return JSON.stringify({ machine, ...(model !== undefined && { model: modelFacts(machine, model) }) }, undefined, 2);
  }
  const parts = [describeMachine(machine), ...(model === undefined ? [] : [describeLimits(machine, model)])];
  return parts.join('\n\n');
}

/** Neighbours only make a peak look lower: of two measurements, one on each side of the load, the higher one counts. */
function better(before: MachineReport, after: MachineReport): MachineReport {
  return {
    ...before,
    bandwidth: Math.max(before.bandwidth, after.bandwidth),
    integerPeak: Math.max(before.integerPeak, after.integerPeak),
  };
}

/** One sequence on the CPU: no more memory than it takes. */
async function load(engine: Engine, model: string, flags: DoctorFlags): Promise<LoadedModel> {
  const line = new ProgressLine(process.stderr);
  const options = { model, device: 'cpu', maxNumSeqs: 1, noDownload: !flags.download } as const;
  const loaded = await engine.load(options, (progress) => line.update(progress)).finally(() => line.end());
  // Of tokens per second a recording knows nothing.
  requireKind(loaded, 'text');
  return loaded;
}

/** What the machine allows: every token of an answer reads the weights, every token of a prompt multiplies them. */
export function speedLimits(machine: MachineReport, model: LoadedModel): ModelSpeeds {
  const operations = model.operationsPerPromptToken;
  return {
    answers: machine.bandwidth / model.bytesPerToken,
    ...(operations !== undefined && { prompts: machine.integerPeak / operations }),
  };
}

function measuredSpeeds({ answerTokenSeconds, promptTokenSeconds }: LoadedModel): ModelSpeeds {
  return {
    ...(answerTokenSeconds !== undefined && { answers: 1 / answerTokenSeconds }),
    ...(promptTokenSeconds !== undefined && { prompts: 1 / promptTokenSeconds }),
  };
}

function modelFacts(machine: MachineReport, model: LoadedModel): object {
  const { id, weightFormat, dtype, cpuLevel, threads, bytesPerToken, operationsPerPromptToken, warnings } = model;
  return {
    ...{ id, weightFormat, dtype, cpuLevel, threads, bytesPerToken, operationsPerPromptToken, warnings },
    tokensPerSecond: { limit: speedLimits(machine, model), measured: measuredSpeeds(model) },
  };
}

export function describeMachine(machine: MachineReport): string {
  const { processor, cores, threads, quota, level, levels, bandwidth, integerPeak, memory, freeMemory } = machine;
  const others = levels.filter((name) => name !== level);
  const forced =
    others.length === 0 ? 'the only level here' : `also here: ${others.join(', ')}; TSSERVE_CPU=NAME forces one`;
  return rows([
    ['processor', processor],
    ['cores', `${threads} of ${cores} usable, ${quota === undefined ? 'no quota' : `a quota of ${round(quota)}`}`],
    ['kernels', `${level} (${forced})`],
    ['memory', `${formatBytes(memory)}, ${formatBytes(freeMemory)} free`],
    ['bandwidth', `${round(bandwidth / 1e9)} GB/s, read by ${plural(threads, 'thread')}`],
    ['integer peak', `${formatOperations(integerPeak)} 8-bit operations/s, by ${plural(threads, 'thread')}`],
  ]);
}

export function describeLimits(machine: MachineReport, model: LoadedModel): string {
  const limits = speedLimits(machine, model);
  const measured = measuredSpeeds(model);
  const { operationsPerPromptToken: operations } = model;
  const prompts =
    operations === undefined
      ? `not computed in 8-bit integers${speed(undefined, measured.prompts)}`
      : `${formatOperations(operations)} operations per token${speed(limits.prompts, measured.prompts)}`;
  const facts = rows([
    ['weights', `${model.weightFormat}; ${model.cpuLevel}, ${model.dtype}, ${plural(model.threads, 'thread')}`],
    ['answers', `${formatBytes(model.bytesPerToken)} per token${speed(limits.answers, measured.answers)}`],
    ['prompts', prompts],
  ]);
  const warnings = model.warnings.map((warning) => `warning: ${warning}`);
  return [
    model.id,
    facts,
    ...warnings,
    'One answer at a short context. Limits and speeds are measured one after the other: where neighbours are busy, either may be too low.',
  ].join('\n');
}

function speed(limit: number | undefined, measured: number | undefined): string {
  const share = limit === undefined || measured === undefined ? '' : ` (${Math.round((100 * measured) / limit)} %)`;
  return [
    limit === undefined ? '' : `: at most ${round(limit)} tokens/s`,
    measured === undefined ? '' : `, measured ${round(measured)}${limit === undefined ? ' tokens/s' : share}`,
  ].join('');
}

function rows(table: readonly (readonly [string, string])[]): string {
  return table.map(([name, value]) => `${name.padEnd(13)} ${value}`).join('\n');
}

function formatOperations(count: number): string {
  return count < 1e12 ? `${round(count / 1e9)} G` : `${round(count / 1e12)} T`;
}

/** Three digits at least below 1000, as many as a measurement deserves. */
function round(value: number): string {
  return value >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
}
