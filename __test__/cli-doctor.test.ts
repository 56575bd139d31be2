import { expect } from 'chai';

import { describeMachine, examine } from '../ts/cli/doctor.js';
import type { LoadOptions } from '../ts/engine/types.js';
import { runCli } from './helpers/cli.js';
import { scriptedMachine, ScriptedEngine } from './helpers/scripted-engine.js';

const packed = {
  id: 'small',
  weightFormat: 'Q4_1 + Q8_0 (GGUF)',
  dtype: 'packed',
  cpuLevel: 'avx2',
  threads: 2,
  bytesPerToken: 96_000_000,
  operationsPerPromptToken: 300_000_000,
  answerTokenSeconds: 1 / 250,
  promptTokenSeconds: 1 / 2000,
};

const machineText = `processor     Scripted CPU
cores         2 of 4 usable, no quota
kernels       avx2 (also here: scalar; TSSERVE_CPU=NAME forces one)
memory        16.00 GB, 12.00 GB free
bandwidth     40 GB/s, read by 2 threads
integer peak  1.5 T 8-bit operations/s, by 2 threads`;

const note =
  'One answer at a short context. Limits and speeds are measured one after the other: where neighbours are busy, either may be too low.';

describe('tsserve doctor', () => {
  it('says what the machine can do', async () => {
    const engine = new ScriptedEngine();
    expect(await examine(engine, undefined, { download: true })).to.equal(machineText);
    expect(engine.loads).to.deep.equal([]);
    const small = {
      threads: 1,
      quota: 1.5,
      level: 'scalar',
      levels: ['scalar'],
      bandwidth: 9.876e9,
      integerPeak: 4.2e9,
    };
    const text = describeMachine(scriptedMachine(small));
    expect(text).to.include('1 of 4 usable, a quota of 1.5\n').and.include('scalar (the only level here)\n');
    expect(text).to.include(' 9.88 GB/s, read by 1 thread\n').and.include(' 4.2 G 8-bit operations/s, by 1 thread');
  });

  it("says a model's limits and what was measured of it", async () => {
    const engine = new ScriptedEngine({ model: packed });
    expect(await examine(engine, 'small', { download: false })).to.equal(`${machineText}

small
weights       Q4_1 + Q8_0 (GGUF); avx2, packed, 2 threads
answers       96 MB per token: at most 417 tokens/s, measured 250 (60 %)
prompts       0.3 G operations per token: at most 5000 tokens/s, measured 2000 (40 %)
${note}`);
    const asked: LoadOptions = { model: 'small', device: 'cpu', maxNumSeqs: 1, noDownload: true };
    expect(engine.loads).to.deep.equal([asked]);
  });

  it('says of a model in another type what it can', async () => {
    const engine = new ScriptedEngine({
      model: { id: 'wide', bytesPerToken: 400_000_000, warnings: ['computed in f32 by the slower general path: why'] },
    });
    expect(await examine(engine, 'wide', { download: true })).to.equal(`${machineText}

wide
weights       f32 (safetensors); scalar, f32, 1 thread
answers       400 MB per token: at most 100 tokens/s
prompts       not computed in 8-bit integers
warning: computed in f32 by the slower general path: why
${note}`);
  });

  it('takes the higher of two measurements, before the load and after it', async () => {
    const machines = [scriptedMachine({ bandwidth: 10e9, integerPeak: 3e12 }), scriptedMachine({ bandwidth: 48e9 })];
    const engine = new ScriptedEngine({ model: packed });
    engine.measureMachine = () => Promise.resolve(machines.shift()!);
    const text = await examine(engine, 'small', { download: true });
    expect(text)
      .to.include(': at most 500 tokens/s, measured 250')
      .and.include(': at most 10000 tokens/s, measured 2000');
    expect(machines).to.deep.equal([]);
  });

  it('answers as JSON', async () => {
    const json = async (name?: string): Promise<unknown> =>
      JSON.parse(await examine(new ScriptedEngine({ model: packed }), name, { json: true, download: true }));
    const machine = JSON.parse(JSON.stringify(scriptedMachine())) as unknown;
    expect(await json()).to.deep.equal({ machine });
    const { answerTokenSeconds, promptTokenSeconds, ...facts } = packed;
    const measured = { answers: 1 / answerTokenSeconds, prompts: 1 / promptTokenSeconds };
    expect(await json('small')).to.deep.equal({
      machine,
      model: {
        ...facts,
        warnings: [],
        tokensPerSecond: { limit: { answers: 40e9 / 96e6, prompts: 5000 }, measured },
      },
    });
  });

  it('measures this machine, and refuses an instruction set that it does not know', async () => {
    const { stdout, code } = await runCli(['doctor', '--json'], '', { TSSERVE_CPU: 'scalar' });
    expect(code).to.equal(0);
    const { machine } = JSON.parse(stdout) as { machine: ReturnType<typeof scriptedMachine> };
    expect(machine.level).to.equal('scalar');
    expect(machine.levels).to.include('scalar');
    expect(machine.threads).to.be.within(1, machine.cores);
    expect(machine.freeMemory).to.be.within(1e6, machine.memory);
    expect(machine.bandwidth).to.be.within(1e8, 1e13);
    expect(machine.integerPeak).to.be.within(1e7, 1e15);
    const unknown = await runCli(['doctor'], '', { TSSERVE_CPU: 'mmx' });
    expect(unknown.stderr).to.match(/^tsserve: TSSERVE_CPU=mmx names no instruction set: use scalar.*\n$/);
    expect(unknown).to.include({ code: 1, stdout: '' });
  }).timeout(60_000);
});
