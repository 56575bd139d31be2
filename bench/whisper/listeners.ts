/** Who transcribes: tsserve in this process, the others in processes of their own that answer over stdout. */

import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { createNativeEngine } from '../../ts/engine/native.js';
import type { Engine, LoadedModel, Quantization } from '../../ts/engine/types.js';

export const MODES = ['greedy', 'batched', 'beam 5'] as const;
export type Mode = (typeof MODES)[number];

export interface Heard {
  readonly text: string;
  /** Seconds until all was there, and until the first segment was. */
  readonly seconds: number;
  readonly firstSegment: number;
}

export interface Listener {
  readonly name: string;
  readonly about: string;
  readonly modes: readonly Mode[];
  listen(path: string, mode: Mode): Promise<Heard>;
  close(): Promise<void>;
}

export async function openTsserve(model: string, threads: number, quantization?: Quantization): Promise<Listener> {
  const engine = createNativeEngine();
  const loaded = await engine.load({ model, device: 'cpu', threads, ...(quantization && { quantization }) });
  return {
    name: 'tsserve',
    about: `${loaded.weightFormat}, ${loaded.dtype}, ${loaded.cpuLevel}`,
    modes: MODES,
    listen: (path, mode) => listen(engine, loaded, path, mode),
    close: () => engine.close(),
  };
}

async function listen(engine: Engine, model: LoadedModel, path: string, mode: Mode): Promise<Heard> {
  const start = performance.now();
  const events = engine.transcribe({
    model: model.handle,
    audio: { path },
    language: 'en',
    ...(mode === 'batched' && { chunking: { type: 'batched' } }),
    ...(mode === 'beam 5' && { beamSize: 5 }),
  });
  let text = '';
  let firstSegment = NaN;
  for await (const event of events) {
    if (event.type !== 'segment') continue;
    if (Number.isNaN(firstSegment)) firstSegment = (performance.now() - start) / 1000;
    text += event.segment.text;
  }
  return { text, seconds: (performance.now() - start) / 1000, firstSegment };
}

/** faster-whisper in int8 on the same file of weights, by a Python that has it. */
export function openFasterWhisper(python: string, model: string, threads: number): Promise<Listener> {
  const script = fileURLToPath(new URL('./faster_whisper_worker.py', import.meta.url));
  return openWorker('faster-whisper', python, [script, model, String(threads)], MODES);
}

/** whisper.cpp, built for this machine, on the same weights, in f16. */
export function openWhisperCpp(program: string, model: string, threads: number): Promise<Listener> {
  return openWorker('whisper.cpp', program, [model, String(threads)], ['greedy', 'beam 5']);
}

interface Answer extends Partial<Heard> {
  readonly about?: string;
  readonly error?: string;
}

/** Milliseconds for one recording: many times what the slowest takes. */
const ANSWER_TIMEOUT = 600_000;

async function openWorker(
  name: string,
  command: string,
  args: readonly string[],
  modes: readonly Mode[],
): Promise<Listener> {
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout });
  const ask = async (question?: object): Promise<Answer> => {
    const timer = setTimeout(() => child.kill('SIGKILL'), ANSWER_TIMEOUT);
    try {
      const answer = Promise.race([once(lines, 'line'), once(lines, 'close').then(() => [undefined])]);
      if (question !== undefined) child.stdin.write(`${JSON.stringify(question)}\n`);
      const [line] = (await answer) as [string | undefined];
      if (line === undefined) throw new Error(`${name} ended`);
      return JSON.parse(line) as Answer;
    } finally {
      clearTimeout(timer);
    }
  };
  const { about = '' } = await ask();
  return {
    name,
    about,
    modes,
    listen: async (path, mode) => {
      const { text, seconds, firstSegment, error } = await ask({ path, mode });
      if (text === undefined || seconds === undefined || firstSegment === undefined)
        throw new Error(`${name}: ${error ?? 'no answer'}`);
      return { text, seconds, firstSegment };
    },
    close: () => end(child),
  };
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill('SIGKILL');
  await ended;
}
