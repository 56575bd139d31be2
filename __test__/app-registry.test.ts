import { expect } from 'chai';
import { createRegistry, type RegistryOptions } from '../ts/app/registry.js';
import { createLocalModel } from '../ts/chat/local-model.js';
import type { ModelRegistry } from '../ts/app/types.js';
import { EngineError, type LoadProgress } from '../ts/engine/types.js';
import { rejection } from './helpers/rejection.js';
import { ScriptedEngine, type ScriptedEngineOptions } from './helpers/scripted-engine.js';

interface Gate {
  readonly opened: Promise<void>;
  open(): void;
}

function gate(): Gate {
  let open: () => void = () => undefined;
  const opened = new Promise<void>((resolve) => (open = resolve));
  return { opened, open };
}

/** Waits for the gate or the abort, as the engine does. */
function gatedLoad(through: Gate): NonNullable<ScriptedEngineOptions['onLoad']> {
  return (_options, _onProgress, signal) =>
    new Promise((resolve, reject) => {
      void through.opened.then(resolve);
      signal?.addEventListener('abort', () => reject(new EngineError('cancelled', 'the load was cancelled')));
    });
}

/** Lets everything that is due happen. */
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(() => setImmediate(resolve)));

describe('app: registry', () => {
  let engine: ScriptedEngine;
  let registry: ModelRegistry;
  afterEach(async () => registry.close());

  function open(options: Partial<RegistryOptions> = {}, scripted: ScriptedEngineOptions = {}): void {
    engine = new ScriptedEngine(scripted);
    registry = createRegistry({ engine, createLocalModel, defaults: {}, ...options });
  }

  describe('with a pinned model', () => {
    it('answers under all its names and none else', async () => {
      open({ pinned: { model: 'org/name@main', threads: 3 }, servedModelName: 'mine' }, { model: { id: 'org/name' } });
      for (const id of [undefined, 'org/name', 'org/name@main', 'name', 'mine']) {
        using lease = await registry.acquire(id);
        expect(lease.model.id).to.equal(id ?? 'mine');
      }
      expect(engine.loads).to.deep.equal([{ model: 'org/name@main', threads: 3 }]);
      for (const id of ['other/name', 'org/name@v2', 'nam', '']) {
        expect((await rejection(registry.acquire(id), EngineError)).code, id).to.equal('model_not_found');
      }
      expect((await rejection(registry.acquire('gone'), EngineError)).message)
        .to.contain("'gone'")
        .and.contain("'mine'");
    });

    it('knows a local file by its base name', async () => {
      open({ pinned: { model: './models/tiny-q4.gguf' } }, { model: { id: 'tiny-q4.gguf' } });
      for (const id of ['tiny-q4', 'tiny-q4.gguf', './models/tiny-q4.gguf']) {
        using lease = await registry.acquire(id);
        expect(lease.model.id).to.equal(id);
      }
      expect((await registry.list()).map((model) => model.id)).to.deep.equal(['tiny-q4.gguf']);
    });

    it("knows a file of whisper.cpp's by its base name, and no other .bin of a repository", async () => {
      open({ pinned: { model: 'ggml-base.en.bin' } }, { model: { id: 'ggml-base.en' } });
      for (const id of ['ggml-base.en', 'ggml-base.en.bin']) {
        using lease = await registry.acquire(id);
        expect(lease.model.id).to.equal(id);
      }
      open();
      using lease = await registry.acquire('org/a:q/ggml-base.bin');
      expect(lease.model.id).to.equal('org/a:q/ggml-base.bin');
      for (const id of ['org/a:pytorch_model.bin', 'org/a:ggml/x.bin', 'org/a:ggml-base.pt']) {
        expect((await rejection(registry.acquire(id), EngineError)).code, id).to.equal('model_not_found');
      }
    });

    it('lists the one model, loaded or not', async () => {
      const loading = gate();
      open({ pinned: { model: 'org/name' } }, { onLoad: gatedLoad(loading) });
      expect(await registry.list()).to.deep.equal([{ id: 'org/name', created: 0, ownedBy: 'org', state: 'available' }]);
      const acquired = registry.acquire(undefined);
      expect((await registry.find('org/name@main'))?.state).to.equal('loading');
      loading.open();
      (await acquired)[Symbol.dispose]();
      expect(await registry.find('name')).to.include({
        id: 'name',
        state: 'ready',
        contextLength: 1024,
        ownedBy: 'org',
      });
      expect(await registry.find('other')).to.equal(undefined);
    });

    it('stays when all idle models are to leave, and minds no limits', async () => {
      open({ pinned: { model: 'org/name' }, maxLoadedModels: 1, memoryBudget: 1 });
      (await registry.acquire(undefined))[Symbol.dispose]();
      expect(await registry.unloadIdle()).to.deep.equal([]);
      expect(registry.loaded()).to.have.length(1);
    });

    it('is never unloaded for idleness', async () => {
      open({ pinned: { model: 'org/name' }, modelTimeout: 0.001 });
      (await registry.acquire(undefined))[Symbol.dispose]();
      await new Promise((resolve) => setTimeout(resolve, 10));
      expect(engine.unloaded).to.deep.equal([]);
    });
  });

  describe('on demand', () => {
    it('loads once for all who ask, whatever the spelling', async () => {
      open({ defaults: { threads: 2 } });
      const leases = await Promise.all(['org/a', 'org/a@main', 'org/a'].map((id) => registry.acquire(id)));
      expect(engine.loads).to.deep.equal([{ threads: 2, model: 'org/a', hubOnly: true }]);
      expect(leases.map((lease) => lease.model.id)).to.deep.equal(['org/a', 'org/a@main', 'org/a']);
      expect(new Set(leases.map((lease) => lease.model.info.handle)).size).to.equal(1);
      (await registry.acquire('org/a@v2'))[Symbol.dispose]();
      expect(engine.loads).to.have.length(2);
    });

    it('needs a model, and takes no paths', async () => {
      open();
      expect((await rejection(registry.acquire(undefined), EngineError)).code).to.equal('invalid_request');
      for (const id of ['/etc', './x', '../x', '~/x', 'a/b/c', 'C:\\x', 'a/../b', 'a b', '', 'x'.repeat(300)]) {
        expect((await rejection(registry.acquire(id), EngineError)).code, id).to.equal('model_not_found');
      }
      expect(engine.loads).to.deep.equal([]);
    });

    it('tells progress to every waiter, the late ones too', async () => {
      const loading = gate();
      open(
        {},
        {
          onLoad: async (_options, onProgress) => {
            onProgress({ stage: 'weights', done: 0.5, total: 1 });
            await loading.opened;
            onProgress({ stage: 'weights', done: 1, total: 1 });
          },
        },
      );
      const seen: LoadProgress[][] = [[], []];
      const first = registry.acquire('org/a', { onProgress: (progress) => seen[0]!.push(progress) });
      await settle();
      const second = registry.acquire('org/a', { onProgress: (progress) => seen[1]!.push(progress) });
      await settle();
      loading.open();
      await Promise.all([first, second]);
      expect(seen.map((all) => all.map((p) => (p.stage === 'weights' ? p.done : p.stage)))).to.deep.equal([
        [0.5, 1],
        [0.5, 1],
      ]);
    });

    it("lets one waiter's abort leave the others alone", async () => {
      const loading = gate();
      open({}, { onLoad: gatedLoad(loading) });
      const abort = new AbortController();
      const impatient = registry.acquire('org/a', { signal: abort.signal });
      const patient = registry.acquire('org/a');
      await settle();
      abort.abort();
      expect((await rejection(impatient, EngineError)).code).to.equal('cancelled');
      loading.open();
      expect((await patient).model.info.handle).to.equal(1);
      expect(engine.loads).to.have.length(1);
    });

    it("cancels the load with the last waiter's abort, and loads anew for the next", async () => {
      const loading = gate();
      open({}, { onLoad: gatedLoad(loading) });
      const abort = new AbortController();
      const waiting = [1, 2].map(() => rejection(registry.acquire('org/a', { signal: abort.signal }), EngineError));
      await settle();
      abort.abort();
      for (const error of await Promise.all(waiting)) expect(error.code).to.equal('cancelled');
      const next = registry.acquire('org/a');
      await settle();
      loading.open();
      expect((await next).model.info.handle).to.equal(1);
      expect(engine.loads).to.have.length(2);
      expect((await rejection(registry.acquire('org/a', { signal: abort.signal }), EngineError)).code).to.equal(
        'cancelled',
      );
    });

    it('unloads what an aborted load brings in all the same', async () => {
      const loading = gate();
      open({}, { onLoad: () => loading.opened });
      const abort = new AbortController();
      const waiting = rejection(registry.acquire('org/a', { signal: abort.signal }), EngineError);
      await settle();
      abort.abort();
      await waiting;
      loading.open();
      await settle();
      // The scripted engine sees the abort after its wait, as the real one does between two files.
      expect(await registry.list()).to.deep.equal([]);
    });

    it('does not remember a failure', async () => {
      let failures = 1;
      open(
        {},
        {
          onLoad: () => {
            if (failures-- > 0) throw new EngineError('hub_unreachable', 'no network');
          },
        },
      );
      const both = await Promise.all([1, 2].map(() => rejection(registry.acquire('org/a'), EngineError)));
      expect(both.map((error) => error.code)).to.deep.equal(['hub_unreachable', 'hub_unreachable']);
      expect((await registry.acquire('org/a')).model.info.handle).to.equal(1);
      expect(engine.loads).to.have.length(2);
    });

    it('unloads an idle model, but not one in use', async () => {
      open({ modelTimeout: 0.005 });
      const unloaded = gate();
      const unload = engine.unload.bind(engine);
      engine.unload = async (handle) => {
        await unload(handle);
        unloaded.open();
      };
      const first = await registry.acquire('org/a');
      const second = await registry.acquire('org/a');
      first[Symbol.dispose]();
      first[Symbol.dispose]();
      await new Promise((resolve) => setTimeout(resolve, 20));
      expect(engine.unloaded).to.deep.equal([]);
      second[Symbol.dispose]();
      await unloaded.opened;
      expect(engine.unloaded).to.deep.equal([1]);
      expect((await registry.acquire('org/a')).model.info.handle).to.equal(2);
    });

    it('lists the cache, marks what is loaded, finds ids in any spelling', async () => {
      const cached = [
        { id: 'org/a', path: '/x', bytes: 1, modified: 7 },
        { id: 'org/b:q4.gguf', path: '/y', bytes: 1, modified: 8 },
      ];
      open({}, { cached });
      (await registry.acquire('org/a@main'))[Symbol.dispose]();
      (await registry.acquire('org/c'))[Symbol.dispose]();
      const list = await registry.list();
      expect(list.map(({ id, state }) => [id, state])).to.deep.equal([
        ['org/a', 'ready'],
        ['org/b:q4.gguf', 'available'],
        ['org/c', 'ready'],
      ]);
      expect(list[0]).to.include({ created: 7, ownedBy: 'org', contextLength: 1024 });
      expect(await registry.find('org/b@main:q4.gguf')).to.include({ id: 'org/b@main:q4.gguf', state: 'available' });
      expect(await registry.find('org/none')).to.equal(undefined);
    });

    describe('with room for few', () => {
      const size = { weightBytes: 60, kvBytes: 40 };
      const use = async (...ids: string[]): Promise<void> => {
        for (const id of ids) (await registry.acquire(id))[Symbol.dispose]();
      };
      const loadedIds = (): string[] => registry.loaded().map(({ info }) => info.id);

      it('unloads the least recently used idle model, and waits until its memory is free', async () => {
        open({ maxLoadedModels: 2 });
        await use('org/a', 'org/b', 'org/a', 'org/c');
        expect(engine.unloaded).to.deep.equal([2]);
        expect(loadedIds()).to.deep.equal(['org/a', 'org/c']);
        await use('org/b');
        expect(loadedIds()).to.deep.equal(['org/c', 'org/b']);
      });

      it('counts the time of a release as use', async () => {
        open({ maxLoadedModels: 2 });
        const a = await registry.acquire('org/a');
        await use('org/b');
        a[Symbol.dispose]();
        await use('org/c');
        expect(loadedIds()).to.deep.equal(['org/a', 'org/c']);
      });

      it('says who is in use when nothing can leave, and takes the next once it can', async () => {
        open({ maxLoadedModels: 1 });
        const lease = await registry.acquire('org/a');
        const refused = await rejection(registry.acquire('org/b'), EngineError);
        expect(refused.code).to.equal('queue_full');
        expect(refused.retryAfter).to.equal(5);
        expect(refused.message).to.equal(
          "there is no room for 'org/b' while 'org/a' is in use: 1 may be loaded at once (--max-loaded-models)",
        );
        expect(engine.loads).to.have.length(1);
        expect((await registry.list()).map(({ id }) => id)).to.deep.equal(['org/a']);
        lease[Symbol.dispose]();
        await use('org/b');
        expect(loadedIds()).to.deep.equal(['org/b']);
      });

      it('takes one of two that ask at once', async () => {
        open({ maxLoadedModels: 1 });
        const asked = ['org/a', 'org/b'].map((id) => registry.acquire(id));
        const settled = await Promise.allSettled(asked);
        expect(settled.map(({ status }) => status)).to.deep.equal(['fulfilled', 'rejected']);
      });

      it('never unloads a model that generates without a lease', async () => {
        open({ maxLoadedModels: 1 });
        await use('org/a');
        engine.running = 1;
        expect((await rejection(registry.acquire('org/b'), EngineError)).code).to.equal('queue_full');
        engine.running = 0;
        await use('org/b');
      });

      it('keeps to its memory by what the loads turn out to take', async () => {
        open({ memoryBudget: 250 }, { model: size });
        await use('org/a', 'org/b', 'org/c');
        expect(engine.unloaded).to.deep.equal([1]);
        const held = await Promise.all(['org/b', 'org/c'].map((id) => registry.acquire(id)));
        const refused = await rejection(registry.acquire('org/d'), EngineError);
        expect(refused.message).to.contain('--memory-budget').and.contain("'org/b', 'org/c'");
        // It was read before its size was known, and is gone again.
        expect(engine.unloaded).to.deep.equal([1, 4]);
        for (const lease of held) lease[Symbol.dispose]();
      });

      it('gives a model that would fill the budget a smaller cache, and remembers how small', async () => {
        open(
          { memoryBudget: 100 },
          { model: (options) => ({ weightBytes: 60, kvBytes: Math.min(options.kvCacheMemory ?? 900, 900) }) },
        );
        await use('org/a', 'org/b', 'org/a');
        expect(engine.loads.map(({ model, kvCacheMemory }) => [model, kvCacheMemory])).to.deep.equal([
          ['org/a', undefined],
          ['org/a', 20],
          ['org/b', undefined],
          ['org/b', 20],
          ['org/a', 20],
        ]);
        expect(loadedIds()).to.deep.equal(['org/a']);
      });

      it('keeps to the cache that the operator chose', async () => {
        open({ memoryBudget: 100, defaults: { kvCacheMemory: 50 } }, { model: { weightBytes: 60, kvBytes: 50 } });
        const refused = await rejection(registry.acquire('org/a'), EngineError);
        expect(refused.message).to.equal("'org/a' takes 1 MiB, and there are 1 MiB for models (--memory-budget)");
        expect(engine.loads).to.have.length(1);
      });

      it('refuses by its files what can never fit, before anything leaves', async () => {
        const cached = [{ id: 'org/big', path: '/x', bytes: 300, modified: 7 }];
        open({ memoryBudget: 250 }, { model: size, cached });
        await use('org/a');
        const refused = await rejection(registry.acquire('org/big'), EngineError);
        expect(refused.code).to.equal('model_too_large');
        expect(loadedIds()).to.deep.equal(['org/a']);
        expect(engine.loads).to.have.length(1);
      });

      it('frees idle models when the engine finds too little memory', async () => {
        let room = 1;
        open(
          {},
          {
            onLoad: () => {
              if (engine.loads.length - engine.unloaded.length * 2 > room) {
                throw new EngineError('model_too_large', 'too little memory');
              }
            },
          },
        );
        await use('org/a', 'org/b');
        expect(loadedIds()).to.deep.equal(['org/b']);
        room = 0;
        const lease = await registry.acquire('org/b');
        expect((await rejection(registry.acquire('org/c'), EngineError)).code).to.equal('model_too_large');
        lease[Symbol.dispose]();
      });

      it('unloads on request what nobody uses', async () => {
        open();
        await use('org/a', 'org/b');
        const lease = await registry.acquire('org/b');
        expect(await registry.unloadIdle()).to.deep.equal(['org/a']);
        expect(engine.unloaded).to.deep.equal([1]);
        lease[Symbol.dispose]();
      });
    });

    it('shares a model between the name it was asked by and the one it is', async () => {
      open({}, { model: { id: 'org/a:q4.gguf' } });
      const first = await registry.acquire('org/a');
      const second = await registry.acquire('org/a@main:q4.gguf');
      expect(second.model.info.handle).to.equal(first.model.info.handle);
      expect(second.model.id).to.equal('org/a@main:q4.gguf');
      expect(await registry.find('org/a:q4.gguf')).to.include({ state: 'ready' });
      expect(engine.loads).to.have.length(1);
    });

    it('loads the only file of a repository once, whichever name comes first', async () => {
      const listCached = () => Promise.resolve([{ id: 'org/a:q4.gguf', path: '/a', bytes: 1, modified: 7 }]);
      for (const [first, second] of [
        ['org/a', 'org/a:q4.gguf'],
        ['org/a:q4.gguf', 'org/a'],
        ['org/a@main:q4.gguf', 'org/a@main'],
      ] as const) {
        open({ listCached }, { model: { id: 'org/a:q4.gguf' } });
        const leases = await Promise.all([registry.acquire(first), registry.acquire(second)]);
        expect(engine.loads, first).to.have.length(1);
        expect(leases.map(({ model }) => [model.id, model.info.handle])).to.deep.equal([
          [first, 1],
          [second, 1],
        ]);
        expect(await registry.list()).to.have.length(1);
        expect(await registry.find('org/a')).to.include({ id: 'org/a', state: 'ready' });
        for (const lease of leases) lease[Symbol.dispose]();
        await registry.close();
      }
    });

    it('leaves it to the engine what a repository with several files means', async () => {
      const cached = (id: string) => ({ id, path: `/${id}`, bytes: 1, modified: 7 });
      for (const others of [['org/a:q4.gguf', 'org/a:q8.gguf'], ['org/a', 'org/a:q4.gguf'], ['org/ab:q4.gguf']]) {
        open({ listCached: () => Promise.resolve(others.map(cached)) });
        using lease = await registry.acquire('org/a');
        expect(lease.model.id).to.equal('org/a');
        expect(engine.loads).to.deep.equal([{ model: 'org/a', hubOnly: true }]);
        await registry.close();
      }
    });

    it('keeps one of two that turn out to be the same after a download', async () => {
      const gates = new Map([
        ['org/a', gate()],
        ['org/a:q4.gguf', gate()],
      ]);
      open(
        { listCached: () => Promise.resolve([]) },
        {
          model: { id: 'org/a:q4.gguf' },
          onLoad: async ({ model }) => gates.get(model)?.opened,
        },
      );
      const both = Promise.all([registry.acquire('org/a:q4.gguf'), registry.acquire('org/a')]);
      await settle();
      expect(engine.loads).to.have.length(2);
      for (const each of gates.values()) each.open();
      const [first, second] = await both;
      expect(second.model.info.handle).to.equal(first.model.info.handle);
      expect([first.model.id, second.model.id]).to.deep.equal(['org/a:q4.gguf', 'org/a']);
      expect(engine.unloaded).to.have.length(1);
      expect(registry.loaded().map(({ leases }) => leases)).to.deep.equal([2]);
      // The name is known from now on.
      using third = await registry.acquire('org/a');
      expect(third.model.info.handle).to.equal(first.model.info.handle);
      expect(engine.loads).to.have.length(2);
    });

    it('unloads everything when it is closed', async () => {
      open();
      await registry.acquire('org/a');
      await registry.acquire('org/b');
      await registry.close();
      expect(engine.unloaded).to.have.members([1, 2]);
      expect((await rejection(registry.acquire('org/a'), EngineError)).code).to.equal('closed');
      expect(engine.closed).to.equal(false);
    });
  });
});
