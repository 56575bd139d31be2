//! Speed of the CPU runner alone, without engine and tokens: `cargo run --release --example cpu_speed -- FILE.gguf`.
//! `TSSERVE_CPU` forces a level, `KV_CACHE_TYPE` how keys and values are kept, a second argument the number of threads, a
//! third (decode, prompt, batch) measures only that. Medians of several runs; shares are of the limits measured in the
//! same process. With `caches` as the third, decode steps with a cache of 8 bits alternate with ones of f16.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for people")]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tsserve_engine::{ModelRunner, OutputRow, RowRole, RowWant, SequenceId, SequencePlan, StepPlan};
use tsserve_models::checkpoint::Checkpoint;
use tsserve_models::cpu::{CacheType, CpuOptions, CpuRunner, Level, Quantization, kv_layout, measure};
use tsserve_models::weights::ModelFiles;

/// Positions that each sequence of the test may have.
const CONTEXT: usize = 2048;
const SEQUENCES: usize = 16;
/// Positions of the one sequence that types of caches are compared with.
const DEEP: usize = 3 * CONTEXT;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().unwrap();
    let threads = arguments.next().map_or(2, |n| n.parse().unwrap());
    let level = std::env::var("TSSERVE_CPU").map_or_else(|_| Level::detect(), |name| Level::from_name(&name).unwrap());
    let checkpoint = Checkpoint::open(&ModelFiles::discover(Path::new(&file)).unwrap()).unwrap();
    let quantization = std::env::var("QUANTIZATION").ok().map(|name| Quantization::from_name(&name).unwrap());
    let only = arguments.next();
    let caches = only.as_deref() == Some("caches");
    let sequences = if caches { DEEP / CONTEXT } else { SEQUENCES };
    let cache_type = std::env::var("KV_CACHE_TYPE").map_or(CacheType::F16, |name| CacheType::from_name(&name).unwrap());
    let options = |cache_type: CacheType| CpuOptions {
        level,
        threads,
        quantization,
        cache_type,
        max_context: if caches { DEEP } else { CONTEXT },
        max_batch_tokens: 512,
        kv_blocks: vec![sequences * CONTEXT / 16; kv_layout(&checkpoint, cache_type).len()],
    };
    if caches {
        return compare_caches(CacheType::ALL.map(|cache_type| {
            // The first one's packing gives the file's pages back.
            let checkpoint = Checkpoint::open(&ModelFiles::discover(Path::new(&file)).unwrap()).unwrap();
            CpuRunner::load(&checkpoint, options(cache_type), &mut |_, _| {}).unwrap()
        }));
    }
    let options = options(cache_type);
    let started = Instant::now();
    let mut runner = CpuRunner::load(&checkpoint, options, &mut |_, _| {}).unwrap();
    let megabytes = runner.weight_bytes() as f64 / 1e6;
    println!("{level}, {threads} threads, packed {megabytes:.1} MB in {:.2} s", started.elapsed().as_secs_f64());
    let peaks = measure(level, threads).unwrap();
    println!("read {:.1} GB/s, integers {:.0} GOP/s", peaks.bandwidth / 1e9, peaks.integer_peak / 1e9);
    let limit = peaks.bandwidth / 1e6 / megabytes;
    let wanted = |what: &str| only.as_deref().is_none_or(|only| only == what);
    for depth in [16, 256, 1024].into_iter().filter(|_| wanted("decode")) {
        prompt(&mut runner, 0, depth);
        let seconds = median(15, || decode(&mut runner, 1, depth));
        println!("decode at {depth}: {:.1} tok/s, {:.0} % of {limit:.0}", 1.0 / seconds, 100.0 / seconds / limit);
    }
    for n in [128, 512].into_iter().filter(|_| wanted("prompt")) {
        let seconds = median(5, || prompt(&mut runner, 0, n));
        println!("prompt of {n}: {:.0} tok/s", n as f64 / seconds);
    }
    for batch in [2, 4, 8, 16].into_iter().filter(|_| wanted("batch")) {
        (0..batch).for_each(|sequence| _ = prompt(&mut runner, sequence, 64));
        let seconds = median(9, || decode(&mut runner, batch, 64));
        println!("batch of {batch}: {:.1} tok/s", batch as f64 / seconds);
    }
}

/// Decode steps of runners that differ in nothing but their cache, in turns.
fn compare_caches(mut runners: [CpuRunner; 2]) {
    for depth in [16, 256, 1024, 2048, 4096] {
        for runner in &mut runners {
            prompt(runner, 0, depth);
            decode(runner, 1, depth);
        }
        let mut times = [Vec::new(), Vec::new()];
        for round in 0..60 {
            for i in [round % 2, 1 - round % 2] {
                // The first step finds the other runner's weights in the caches.
                decode(&mut runners[i], 1, depth);
                times[i].push((0..4).map(|_| decode(&mut runners[i], 1, depth)).sum::<f64>() / 4.0);
            }
        }
        let middle = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let ratio = middle(times[0].iter().zip(&times[1]).map(|(half, q8)| half / q8).collect());
        let [half, q8] = times.map(middle).map(|seconds| 1.0 / seconds);
        println!("decode at {depth}: f16 {half:.1}, q8_0 {q8:.1} tok/s, median ratio {ratio:.3}");
    }
}

/// Median of `n` timings, each the mean of as many runs as take a tenth of a second.
fn median(n: usize, mut run: impl FnMut() -> f64) -> f64 {
    let once = run();
    let runs = ((0.1 / once) as usize).max(1);
    let mut times: Vec<f64> = (0..n).map(|_| (0..runs).map(|_| run()).sum::<f64>() / runs as f64).collect();
    times.sort_by(f64::total_cmp);
    times[n / 2]
}

fn sequence(runner: &CpuRunner, number: usize, start: usize, tokens: Vec<u32>) -> SequencePlan {
    let context = runner.spec().max_context;
    let blocks: Arc<[u32]> = (0..context / 16).map(|b| (number * context / 16 + b) as u32).collect();
    let outputs = vec![OutputRow { index: tokens.len() - 1, want: RowWant::ArgMax }];
    let block_tables = vec![blocks; runner.spec().groups.len()];
    let role = if tokens.len() == 1 { RowRole::Decode } else { RowRole::Prompt };
    SequencePlan { sequence: SequenceId(number as u64), role, tokens, start, block_tables, outputs }
}

/// Computes a prompt in chunks as the engine would; seconds.
fn prompt(runner: &mut CpuRunner, number: usize, n: usize) -> f64 {
    let tokens: Vec<u32> = (0..n as u32).map(|i| 100 + i * 7919 % 40_000).collect();
    let started = Instant::now();
    let size = std::env::var("CHUNK").map_or(512, |c| c.parse().unwrap());
    for (i, chunk) in tokens.chunks(size).enumerate() {
        let plan = sequence(runner, number, i * size, chunk.to_vec());
        runner.run(&StepPlan { sequences: vec![plan] }).unwrap();
    }
    started.elapsed().as_secs_f64()
}

/// Decodes one token of `batch` sequences at `depth`; seconds.
fn decode(runner: &mut CpuRunner, batch: usize, depth: usize) -> f64 {
    let sequences = (0..batch).map(|number| sequence(runner, number, depth, vec![1234])).collect();
    let plan = StepPlan { sequences };
    let started = Instant::now();
    runner.run(&plan).unwrap();
    started.elapsed().as_secs_f64()
}
