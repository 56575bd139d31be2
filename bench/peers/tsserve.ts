/** tsserve through its engine, in this process. */

import { createNativeEngine } from '../../ts/engine/native.js';
import type { LoadedModel } from '../../ts/engine/types.js';
import { GenerationBench } from '../generation.js';
import { maxContext, maxSequences, type Conditions, type Contender } from './contenders.js';
import type { Workload } from './roofline.js';

export interface Tsserve extends Contender {
  readonly model: LoadedModel;
}

export async function openTsserve({ model: path, threads, generated, kvCacheType }: Conditions): Promise<Tsserve> {
  const engine = createNativeEngine();
  const model = await engine.load({
    model: path,
    device: 'cpu',
    threads,
    kvCacheType,
    maxNumSeqs: maxSequences,
    maxModelLen: maxContext,
    prefixCache: false,
    // What is drafted depends on the text, and the peers' benches draft nothing.
    speculation: false,
  });
  const bench = new GenerationBench(engine, model);
  const measure = (work: Workload): Promise<number> => {
    switch (work.kind) {
      case 'decode':
        return bench.decode(work.depth, generated);
      case 'prefill':
        return bench.prefill(work.length);
      case 'batch':
        return bench.batch(work.size, generated);
    }
  };
  return {
    name: 'tsserve',
    about: `${model.dtype}, ${model.cpuLevel}, ${model.kvCacheType ?? kvCacheType} KV`,
    model,
    measure,
    prepare: async (work) => {
      await measure(work);
    },
    close: () => engine.close(),
  };
}
