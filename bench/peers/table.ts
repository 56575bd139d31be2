/** Results for a terminal. */

import { contenderNames } from './contenders.js';
import {
  chatFigure,
  chatRatio,
  ratioTo,
  residentBudget,
  shareOf,
  speedOf,
  type ModelResults,
  type Ratio,
  type Results,
} from './results.js';

export const peerNames = contenderNames.filter((name) => name !== 'tsserve');

export function resultsTable({ machine, models }: Results): string {
  const lines = [`${machine.cpu}, ${machine.cores} cores, ${machine.threads} threads, Node ${machine.node}`];
  for (const [id, model] of Object.entries(models)) lines.push('', ...modelLines(id, model));
  return `${lines.join('\n')}\n`;
}

function modelLines(id: string, model: ModelResults): string[] {
  const lines = [`${id}: ${model.weightFormat}, ${megabytes(model.weightBytes)}`];
  for (const name of contenderNames) {
    const about = model.contenders[name];
    if (about !== undefined) lines.push(`  ${name}: ${about}`);
  }
  for (const [name, speed] of Object.entries(model.speeds)) {
    lines.push(`${name}, tok/s (${speed.rounds.length} rounds)`);
    for (const contender of contenderNames) {
      const figure = speedOf(speed, contender);
      if (figure === undefined) continue;
      const share = `${percent(shareOf(speed, contender))} of the limit`;
      const spread = `${digits(figure.min)} to ${digits(figure.max)}`;
      lines.push(`  ${contender.padEnd(16)} ${digits(figure.median).padStart(8)} (${spread}), ${share}`);
    }
    for (const peer of peerNames) {
      const ratio = ratioTo(speed, peer);
      if (ratio !== undefined) lines.push(`  over ${peer.padEnd(16)} ${times(ratio)}`);
    }
  }
  for (const [name, chat] of Object.entries(model.chats)) {
    lines.push(name);
    for (const contender of contenderNames) {
      const rate = chatFigure(chat, contender, 'tokensPerSecond');
      if (rate === undefined) continue;
      const part = (key: 'firstP50' | 'firstP99' | 'betweenP50' | 'betweenP99'): string =>
        digits(chatFigure(chat, contender, key) ?? NaN);
      const first = `first text ${part('firstP50')} / ${part('firstP99')} ms`;
      const between = `between ${part('betweenP50')} / ${part('betweenP99')} ms (p50 / p99)`;
      lines.push(`  ${contender.padEnd(16)} ${digits(rate).padStart(8)} tok/s, ${first}, ${between}`);
    }
    const total = chatRatio(chat, 'llama.cpp', 'tokensPerSecond');
    const first = chatRatio(chat, 'llama.cpp', 'firstP50');
    if (total !== undefined && first !== undefined)
      lines.push(`  over llama.cpp   total ${times(total)}, first text ${times(first)}`);
  }
  return [...lines, ...footprintLines(model)];
}

function footprintLines({ footprint, weightBytes }: ModelResults): string[] {
  if (footprint === undefined) return [];
  const lines = ['start and memory'];
  for (const name of contenderNames) {
    const server = footprint.servers[name];
    if (server === undefined) continue;
    const start = `/health after ${digits(server.toHealth)} ms, ready after ${digits(server.toReady)} ms`;
    const memory = `${megabytes(server.residentReady)} resident, ${megabytes(server.residentUsed)} after chats`;
    lines.push(`  ${name.padEnd(16)} ${start}, ${memory}, idle CPU ${percent(server.idleCpu)}`);
  }
  return [...lines, `  budget of tsserve: ${megabytes(residentBudget(weightBytes, footprint.kvBytes))}`];
}

export function times({ median, low, high }: Ratio): string {
  return `${median.toFixed(2)}x (95 %: ${low.toFixed(2)} to ${high.toFixed(2)})`;
}

export function digits(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

export function percent(share: number | undefined): string {
  return share === undefined ? '-' : `${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %`;
}

export function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(0)} MB`;
}
