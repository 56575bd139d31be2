/** Grouped horizontal bars with their spread, as SVG that reads on light and dark ground. */

export interface BarGroup {
  readonly label: string;
  readonly bars: readonly Bar[];
}

export interface Bar {
  readonly series: string;
  readonly value: number;
  /** Least and most. */
  readonly low: number;
  readonly high: number;
  /** Where the limit was: drawn as a line across the bar. */
  readonly limit?: number;
}

const colours = ['#2563eb', '#d97706', '#6b7280'];
const layout = { width: 760, label: 150, value: 90, bar: 16, gap: 14, top: 58 };

/** `series` fixes the colours, so that they mean the same in every plot. */
export function barPlot(title: string, unit: string, series: readonly string[], groups: readonly BarGroup[]): string {
  const all = groups.flatMap(({ bars }) => bars);
  const most = Math.max(...all.flatMap(({ high, limit }) => [high, limit ?? 0]));
  const room = layout.width - layout.label - layout.value;
  const x = (value: number): number => layout.label + (value / most) * room;
  const parts: string[] = [];
  let y = layout.top;
  for (const { label, bars } of groups) {
    const middle = y + (bars.length * layout.bar) / 2 + 4;
    parts.push(text(layout.label - 8, middle, label, 'text-anchor="end"'));
    for (const bar of bars) {
      parts.push(...drawBar(bar, y, x, colours[series.indexOf(bar.series)] ?? '#000'));
      y += layout.bar;
    }
    y += layout.gap;
  }
  const height = y;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${layout.width} ${height}" width="${layout.width}" height="${height}" font-family="system-ui, sans-serif" font-size="12">`,
    `<title>${escape(title)}</title>`,
    `<rect width="${layout.width}" height="${height}" fill="#fff"/>`,
    text(12, 20, `${title} (${unit})`, 'font-size="14" font-weight="600"'),
    ...legend(
      series.filter((name) => all.some((bar) => bar.series === name)),
      series,
    ),
    ...parts,
    '</svg>',
    '',
  ].join('\n');
}

function drawBar({ value, low, high, limit }: Bar, y: number, x: (value: number) => number, colour: string): string[] {
  const middle = y + layout.bar / 2 - 1;
  const parts = [
    `<rect x="${layout.label}" y="${y}" width="${round(x(value) - layout.label)}" height="${layout.bar - 2}" fill="${colour}"/>`,
    `<path d="M${round(x(low))} ${middle}H${round(x(high))}" stroke="#111"/>`,
    text(layout.width - layout.value + 8, y + layout.bar - 4, short(value)),
  ];
  if (limit !== undefined)
    parts.push(`<path d="M${round(x(limit))} ${y - 1}v${layout.bar}" stroke="#dc2626" stroke-width="2"/>`);
  return parts;
}

function legend(shown: readonly string[], series: readonly string[]): string[] {
  return shown.flatMap((name, i) => {
    const x = 12 + i * 140;
    const colour = colours[series.indexOf(name)] ?? '#000';
    return [`<rect x="${x}" y="32" width="12" height="12" fill="${colour}"/>`, text(x + 18, 42, name)];
  });
}

function text(x: number, y: number, content: string, attributes = ''): string {
  const extra = attributes === '' ? '' : ` ${attributes}`;
  return `<text x="${round(x)}" y="${round(y)}" fill="#111"${extra}>${escape(content)}</text>`;
}

function escape(content: string): string {
  return content.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

function short(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}
