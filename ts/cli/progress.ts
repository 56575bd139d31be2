/** Shows how far something is: one line that redraws itself on a terminal, now and then a plain line elsewhere. */

import type { LoadProgress } from '../engine/types.js';
import { formatBytes } from './format.js';

export interface ProgressOutput {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

const barWidth = 24;
const redrawMs = 100;
/** A log wants to know that something goes on, not every step of it; a short load says nothing. */
const lineMs = 2000;

export class ProgressLine {
  readonly #out: ProgressOutput;
  readonly #now: () => number;
  #drawn = false;
  #shownAt: number;

  /** @param now milliseconds of a steady clock */
  constructor(out: ProgressOutput, now: () => number = () => performance.now()) {
    this.#out = out;
    this.#now = now;
    this.#shownAt = now();
  }

  update(progress: LoadProgress): void {
    if (progress.stage === 'resolve') return;
    const { done, total } = progress;
    const share = total > 0 ? Math.min(1, done / total) : 0;
    const name = progress.stage === 'download' ? `downloading ${progress.file}` : 'reading the weights';
    const amount = progress.stage === 'download' ? `  ${formatBytes(done)} of ${formatBytes(total)}` : '';
    this.show(name, share, amount);
  }

  /**
   * @param share 0..1
   * @param note stands behind the share
   */
  show(name: string, share: number, note = ''): void {
    if (this.#out.isTTY === true) this.#draw(name, share, note);
    else this.#line(name, share, note);
  }

  /** Takes the line off the terminal, so that what follows starts clean. */
  end(): void {
    if (this.#drawn) this.#out.write('\r\u001b[2K');
    this.#drawn = false;
  }

  #draw(name: string, share: number, amount: string): void {
    const now = this.#now();
    if (this.#drawn && share < 1 && now - this.#shownAt < redrawMs) return;
    this.#shownAt = now;
    this.#drawn = true;
    const filled = Math.round(share * barWidth);
    const bar = '█'.repeat(filled) + '░'.repeat(barWidth - filled);
    const tail = ` ${bar} ${Math.floor(share * 100)} %${amount}`;
    const room = Math.max(8, (this.#out.columns ?? 80) - tail.length - 1);
    const shown = name.length > room ? `${name.slice(0, room - 1)}…` : name;
    this.#out.write(`\r\u001b[2K${shown}${tail}`);
  }

  #line(name: string, share: number, amount: string): void {
    const now = this.#now();
    if (now - this.#shownAt < lineMs) return;
    this.#shownAt = now;
    this.#out.write(`${name}: ${Math.floor(share * 100)} %${amount}\n`);
  }
}
