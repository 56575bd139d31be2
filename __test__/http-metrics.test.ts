import { expect } from 'chai';

import { content, delta, finished, started } from './helpers/scripted-events.js';
import { ScriptedApp } from './helpers/scripted-app.js';

const MODELS = [
  {
    id: 'org/one',
    chat: () => [started, content('a'), content('b'), content('c'), finished()],
    generate: () => [started, delta('a'), finished()],
  },
];

interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** Reads the exposition format and holds it to its rules, as promtool does; throws where it breaks one. */
function parseMetrics(text: string): Sample[] {
  expect(text.endsWith('\n')).to.equal(true);
  const types = new Map<string, string>();
  const helped = new Set<string>();
  const samples: Sample[] = [];
  const seen = new Set<string>();
  for (const line of text.split('\n')) {
    if (line === '') continue;
    const comment = /^# (HELP|TYPE) ([a-z_:][a-z0-9_:]*) (.+)$/.exec(line);
    if (comment) {
      const [, kind, name = '', rest = ''] = comment;
      if (kind === 'HELP') helped.add(name);
      else {
        expect(types.has(name), `${name} has two types`).to.equal(false);
        expect(rest).to.be.oneOf(['counter', 'gauge', 'histogram']);
        if (rest === 'counter') expect(name).to.match(/_total$/);
        types.set(name, rest);
      }
      continue;
    }
    const match = /^([a-z_:][a-z0-9_:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
    expect(match, line).not.to.equal(null);
    const [, name = '', inner = '', number = ''] = match!;
    const labels = Object.fromEntries(
      [...inner.matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"(?:,|$)/g)].map(([, key, value]) => [key!, value!]),
    );
    const family = types.has(name) ? name : name.replace(/_(bucket|sum|count)$/, '');
    expect(types.has(family), `${name} has a type before its samples`).to.equal(true);
    expect(helped.has(family), `${name} has a help`).to.equal(true);
    const value = Number(number.replace('+Inf', 'Infinity'));
    expect(value, line).not.to.be.NaN;
    expect(seen.has(`${name}{${inner}}`), `${line} occurs twice`).to.equal(false);
    seen.add(`${name}{${inner}}`);
    samples.push({ name, labels, value });
  }
  checkHistograms(samples, types);
  return samples;
}

/** Buckets grow, the last one is +Inf and equals the count. */
function checkHistograms(samples: readonly Sample[], types: ReadonlyMap<string, string>): void {
  for (const [family, type] of types) {
    if (type !== 'histogram') continue;
    const series = new Map<string, Sample[]>();
    for (const sample of samples.filter(({ name }) => name === `${family}_bucket`)) {
      const key = JSON.stringify({ ...sample.labels, le: undefined });
      series.set(key, [...(series.get(key) ?? []), sample]);
    }
    for (const [key, buckets] of series) {
      const values = buckets.map(({ value }) => value);
      expect(values, family).to.deep.equal([...values].sort((a, b) => a - b));
      expect(buckets.at(-1)!.labels['le']).to.equal('+Inf');
      const count = samples.find(({ name, labels }) => name === `${family}_count` && JSON.stringify(labels) === key);
      expect(count?.value, family).to.equal(values.at(-1));
    }
  }
}

async function scrape(
  app: ScriptedApp,
): Promise<(name: string, labels?: Record<string, string>) => number | undefined> {
  const answer = await app.call({ path: '/metrics' });
  expect(answer.headers['content-type']).to.equal('text/plain; version=0.0.4; charset=utf-8');
  const samples = parseMetrics(answer.text);
  return (name, labels = {}) =>
    samples.find(
      (sample) => sample.name === name && Object.entries(labels).every(([key, value]) => sample.labels[key] === value),
    )?.value;
}

describe('GET /metrics', () => {
  it('counts requests by route and status, tokens and times by model', async () => {
    await using app = await ScriptedApp.start(MODELS);
    const ask = { model: 'org/one', messages: [{ role: 'user', content: 'hi' }] };
    await app.stream('/v1/chat/completions', ask);
    await app.post('/v1/chat/completions', ask);
    await app.post('/v1/completions', { model: 'org/one', prompt: ['x', 'y'] });
    await app.post('/v1/chat/completions', {});
    await app.call({ path: '/strange/path/1' });
    await app.call({ path: '/strange/path/2' });
    const value = await scrape(app);
    const model = { model: 'org/one' };
    const chat = { route: '/v1/chat/completions', method: 'POST' };
    expect(value('tsserve_requests_total', { ...chat, ...model, status: '200' })).to.equal(2);
    expect(value('tsserve_requests_total', { ...chat, status: '400', model: '' })).to.equal(1);
    expect(value('tsserve_requests_total', { route: 'none', status: '404' })).to.equal(2);
    // Each of four generations: 5 prompt tokens, 2 of them cached, 3 generated.
    expect(value('tsserve_prompt_tokens_total', model)).to.equal(20);
    expect(value('tsserve_prefix_hit_tokens_total', model)).to.equal(8);
    expect(value('tsserve_completion_tokens_total', model)).to.equal(12);
    expect(value('tsserve_time_to_first_token_seconds_count', model)).to.equal(4);
    // Two chats of three pieces each; a completion of one piece has none.
    expect(value('tsserve_inter_token_seconds_count', model)).to.equal(4);
    // The scrape itself.
    expect(value('tsserve_http_requests_running')).to.equal(1);
    expect(value('tsserve_resident_memory_bytes')).to.be.greaterThan(1e6);
  });

  it('shows what the models do at the time of asking', async () => {
    await using app = await ScriptedApp.start(MODELS);
    const { served } = app.registry.first;
    const drafts = { draftedTokens: 40, acceptedTokens: 30 };
    const stats = { running: 2, waiting: 1, freeBlocks: 25, totalBlocks: 100, ...drafts };
    app.registry.loaded = () => [{ info: { ...served.info, weightBytes: 7, kvBytes: 3 }, stats, leases: 3 }];
    const value = await scrape(app);
    const model = { model: 'org/one' };
    expect(value('tsserve_model_loaded', model)).to.equal(1);
    expect(value('tsserve_model_bytes', model)).to.equal(10);
    expect(value('tsserve_sequences_running', model)).to.equal(2);
    expect(value('tsserve_sequences_waiting', model)).to.equal(1);
    expect(value('tsserve_kv_use_ratio', model)).to.equal(0.75);
    expect(value('tsserve_drafted_tokens_total', model)).to.equal(40);
    expect(value('tsserve_accepted_tokens_total', model)).to.equal(30);
    app.registry.loaded = () => [];
    expect((await scrape(app))('tsserve_model_loaded', model)).to.equal(undefined);
  });

  it('makes no series out of what clients choose', async () => {
    await using app = await ScriptedApp.start(MODELS);
    const before = (await app.call({ path: '/metrics' })).text.split('\n').length;
    for (let i = 0; i < 20; i++) {
      await app.call({ path: `/x${i}` });
      await app.post('/v1/chat/completions', { model: `no/${i}`, messages: [{ role: 'user', content: 'hi' }] });
    }
    const lines = (await app.call({ path: '/metrics' })).text.split('\n');
    expect(lines.some((line) => line.includes('no/'))).to.equal(false);
    expect(lines.length - before).to.be.lessThan(60);
  });
});
