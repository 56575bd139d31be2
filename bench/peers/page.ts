/** docs/performance.md and its plots, from nothing but the samples of a run. */

import { median } from '../statistics.js';
import { contenderNames } from './contenders.js';
import {
  chatFigure,
  chatRatio,
  ratioTo,
  residentBudget,
  shareOf,
  speedOf,
  type ModelResults,
  type Results,
  type Speed,
} from './results.js';
import { barPlot, type Bar, type BarGroup } from './svg.js';
import { digits, megabytes, peerNames, percent, times } from './table.js';

/** Files by their paths under docs/. */
export function performancePages(results: Results): ReadonlyMap<string, string> {
  const files = new Map<string, string>();
  const sections: string[] = [];
  for (const [id, model] of Object.entries(results.models)) {
    const drawn = plots(id, model);
    sections.push(modelSection(id, model, [...drawn.keys()]));
    for (const [name, content] of drawn) files.set(`performance/${name}`, content);
  }
  files.set('performance.md', `${introduction(results)}\n${sections.join('\n')}`);
  return files;
}

function introduction({ machine }: Results): string {
  return `# Performance

Made by \`npm run docs\` from \`docs/performance/results.json\`, which holds every sample. To measure on another machine:
\`npm run bench -- --peers --out docs/performance/results.json\`; [bench/README.md](../bench/README.md) says what is fetched.

Measured on ${machine.cpu}, ${machine.cores} cores, with ${machine.threads} threads and Node ${machine.node}.

## Method

- Each round measures every contender once, one after the other, and the next round turns their order round. Figures are
  medians over the rounds with the least and the most; ratios are medians of the rounds' own ratios, with the 95 % interval
  of a bootstrap. One unrecorded run comes first.
- tsserve is measured through its engine's interface, as a Node program has it: sampling, text and events included, drafting
  and prefix reuse off. llama.cpp is measured by its own \`llama-bench\` and \`llama-batched-bench\`, compiled on this machine,
  without sampling or text, with the faster of its two ways of attention. node-llama-cpp is its prebuilt binary from JavaScript.
- The limit is what the machine allowed at most just before each sample: the weights that a token takes and its keys and
  values over the bandwidth of reading as many bytes with as many threads, or the 8-bit multiplications and additions over
  their peak, whichever takes longer. It counts no attention arithmetic, no norms and no sampling, so nothing reaches it.
- A start is timed from the creation of the process, its files in the page cache: until /health answers at all, and until
  it says that the model is there. It is asked again 2 ms after each answer or refusal.
- Chats share a system prompt of about 330 tokens; each question is new, and each answer has the same number of tokens
  (\`ignore_eos\`, greedy). tsserve runs with its defaults, drafting included; llama-server has a slot and 1024 tokens for
  each user.
`;
}

function modelSection(id: string, model: ModelResults, plotNames: readonly string[]): string {
  const lines = [`## ${id}`, '', `${model.weightFormat}, ${megabytes(model.weightBytes)}.`, ''];
  for (const name of contenderNames) {
    const about = model.contenders[name];
    if (about !== undefined) lines.push(`- ${name}: ${about}`);
  }
  if (Object.keys(model.speeds).length > 0) lines.push('', ...speedTable(model.speeds));
  if (Object.keys(model.chats).length > 0) lines.push('', ...chatTable(model));
  if (model.footprint !== undefined) lines.push('', ...footprintTable(model));
  for (const name of plotNames) lines.push('', `![${name}](performance/${name})`);
  return `${lines.join('\n')}\n`;
}

function speedTable(speeds: Readonly<Record<string, Speed>>): string[] {
  const heads = [
    ...contenderNames.map((name) => `${name}, tok/s`),
    'of the limit',
    ...peerNames.map((name) => `over ${name}`),
  ];
  return table(
    ['', ...heads],
    Object.entries(speeds).map(([name, speed]) => [
      name,
      ...contenderNames.map((contender) => {
        const figure = speedOf(speed, contender);
        return figure === undefined ? '' : `${digits(figure.median)} (${digits(figure.min)} to ${digits(figure.max)})`;
      }),
      percent(shareOf(speed, 'tsserve')),
      ...peerNames.map((peer) => {
        const ratio = ratioTo(speed, peer);
        return ratio === undefined ? '' : times(ratio);
      }),
    ]),
  );
}

function chatTable({ chats }: ModelResults): string[] {
  const rows = Object.entries(chats).flatMap(([name, chat]) =>
    contenderNames.flatMap((contender) => {
      const rate = chatFigure(chat, contender, 'tokensPerSecond');
      if (rate === undefined) return [];
      const both = (low: 'firstP50' | 'betweenP50', high: 'firstP99' | 'betweenP99'): string =>
        `${digits(chatFigure(chat, contender, low) ?? NaN)} / ${digits(chatFigure(chat, contender, high) ?? NaN)}`;
      const ratio = contender === 'tsserve' ? chatRatio(chat, 'llama.cpp', 'tokensPerSecond') : undefined;
      const over = ratio === undefined ? '' : times(ratio);
      return [[name, contender, digits(rate), both('firstP50', 'firstP99'), both('betweenP50', 'betweenP99'), over]];
    }),
  );
  const heads = ['', '', 'tok/s in all', 'first text, ms, p50 / p99', 'between, ms, p50 / p99', 'total over llama.cpp'];
  return table(heads, rows);
}

function footprintTable({ footprint, weightBytes }: ModelResults): string[] {
  if (footprint === undefined) return [];
  const rows = contenderNames.flatMap((name) => {
    const server = footprint.servers[name];
    if (server === undefined) return [];
    const start = [`${digits(server.toHealth)} ms`, `${digits(server.toReady)} ms`];
    return [[name, ...start, megabytes(server.residentReady), megabytes(server.residentUsed), percent(server.idleCpu)]];
  });
  const budget = megabytes(residentBudget(weightBytes, footprint.kvBytes));
  return [
    ...table(['server', '/health after', 'model ready after', 'resident', 'after chats', 'idle CPU'], rows),
    '',
    `tsserve's budget is ${budget}: 1.15 times the weights, a KV cache of ${megabytes(footprint.kvBytes)}, and 80 MB.`,
  ];
}

function plots(id: string, { speeds, chats }: ModelResults): ReadonlyMap<string, string> {
  const files = new Map<string, string>();
  const speedGroups = Object.entries(speeds).map(([label, speed]): BarGroup => {
    const limits = speed.rounds.flatMap((round) => (round.tsserve === undefined ? [] : [round.tsserve.limit]));
    const bars = contenderNames.flatMap((series): Bar[] => {
      const figure = speedOf(speed, series);
      if (figure === undefined) return [];
      const bar = { series, value: figure.median, low: figure.min, high: figure.max };
      // In prefill the limit is several times what anyone reaches: it would only make the bars short.
      return [label.startsWith('decode') ? { ...bar, limit: median(limits) } : bar];
    });
    return { label, bars };
  });
  const decode = speedGroups.filter(({ label }) => label.startsWith('decode'));
  const many = speedGroups.filter(({ label }) => !label.startsWith('decode'));
  if (decode.length > 0) files.set(`${id}-decode.svg`, plot(`${id}: decode; the red line is the limit`, decode));
  if (many.length > 0) files.set(`${id}-many.svg`, plot(`${id}: prompts and sequences at once`, many));
  const chatGroups = Object.entries(chats).map(([label, chat]): BarGroup => {
    const bars = contenderNames.flatMap((series): Bar[] => {
      const rates = chat.rounds.flatMap((round) => round[series]?.tokensPerSecond ?? []);
      if (rates.length === 0) return [];
      return [{ series, value: median(rates), low: Math.min(...rates), high: Math.max(...rates) }];
    });
    return { label: label.replace('prefix cache', 'cache'), bars };
  });
  if (chatGroups.length > 0)
    files.set(`${id}-chats.svg`, plot(`${id}: chats over HTTP, all users together`, chatGroups));
  return files;
}

function plot(title: string, groups: readonly BarGroup[]): string {
  return barPlot(title, 'tokens per second', contenderNames, groups);
}

function table(heads: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  return [line(heads), line(heads.map(() => '---')), ...rows.map(line)];
}
