//! Measures the candle runner on a model: `cargo run --release -p tsserve-models --example bench_runner -- MODEL
//! [--threads N] [--plain] [--device auto|cpu|cuda|metal]`. Prints load time, prefill tok/s and decode tok/s.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a measuring tool for a terminal")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tsserve_engine::{BlockId, ModelRunner, OutputRow, RowRole, RowWant, SequenceId, SequencePlan, StepPlan, TokenId};
use tsserve_models::BLOCK_SIZE;
use tsserve_models::candle::{CandleRunner, DeviceKind, RunnerOptions, configure_threads, device, kv_layout};
use tsserve_models::checkpoint::Checkpoint;
use tsserve_models::weights::ModelFiles;

const MAX_CONTEXT: usize = 2048;
const MAX_BATCH: usize = 16;

fn main() {
    let mut model = None;
    let (mut threads, mut plain_ops, mut kind) = (None, false, DeviceKind::Cpu);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--threads" => threads = Some(args.next().unwrap().parse().unwrap()),
            "--plain" => plain_ops = true,
            "--device" => {
                kind = match args.next().unwrap().as_str() {
                    "auto" => DeviceKind::Auto,
                    "cpu" => DeviceKind::Cpu,
                    "cuda" => DeviceKind::Cuda,
                    "metal" => DeviceKind::Metal,
                    other => panic!("no device {other}"),
                }
            }
            _ => model = Some(arg),
        }
    }
    let threads = configure_threads(threads);
    let device = device(kind).unwrap_or_else(|error| panic!("{error}"));
    let started = Instant::now();
    let checkpoint = Checkpoint::open(&ModelFiles::discover(Path::new(&model.unwrap())).unwrap()).unwrap();
    let dtype = device.default_dtype();
    let groups = kv_layout(&checkpoint.architecture, dtype);
    let options = RunnerOptions {
        device: device.clone(),
        dtype,
        max_context: MAX_CONTEXT,
        max_batch_tokens: MAX_CONTEXT,
        kv_blocks: vec![MAX_BATCH * MAX_CONTEXT / BLOCK_SIZE; groups.len()],
        plain_ops,
    };
    let runner = CandleRunner::load(&checkpoint, options, &mut |_, _| {}).unwrap();
    println!(
        "{} on {}, {} kernels, {threads} threads, loaded in {:.2} s, weights {} MB",
        checkpoint.architecture.family,
        device.name(),
        runner.kernels(),
        started.elapsed().as_secs_f64(),
        checkpoint.loaded_bytes(dtype.size_in_bytes()) / 1_000_000
    );
    let mut bench = Bench { runner };
    for tokens in [128, 512] {
        let time = bench.best(3, &[(0, tokens)]);
        println!("prefill {tokens:>4}            {:>8.1} tok/s", tokens as f64 / time.as_secs_f64());
    }
    for depth in [16, 256, 1024] {
        let time = bench.best(16, &[(depth, 1)]);
        println!("decode at depth {depth:>4}    {:>8.1} tok/s", 1.0 / time.as_secs_f64());
    }
    for batch in [4, 8, 16] {
        let time = bench.best(8, &vec![(256, 1); batch]);
        println!("decode, batch of {batch:>2}     {:>8.1} tok/s together", batch as f64 / time.as_secs_f64());
    }
}

struct Bench {
    runner: CandleRunner,
}

impl Bench {
    /// The least time of one step over sequences of `(start, tokens)`. What the cache holds does not matter for it.
    fn best(&mut self, times: usize, sequences: &[(usize, usize)]) -> Duration {
        let vocab_size = self.runner.spec().vocab_size;
        let n_groups = self.runner.spec().groups.len();
        let per_sequence = MAX_CONTEXT / BLOCK_SIZE;
        let plan = |(index, &(start, n)): (usize, &(usize, usize))| {
            let first = index * per_sequence;
            let table: Arc<[BlockId]> = (first..first + per_sequence).map(|block| block as BlockId).collect();
            SequencePlan {
                sequence: SequenceId(index as u64),
                role: if n == 1 { RowRole::Decode } else { RowRole::Prompt },
                tokens: (0..n).map(|i| ((i * 7919 + index * 31 + 11) % vocab_size) as TokenId).collect(),
                start,
                block_tables: vec![table; n_groups],
                outputs: vec![OutputRow { index: n - 1, want: RowWant::ArgMax }],
            }
        };
        let plan = StepPlan { sequences: sequences.iter().enumerate().map(plan).collect() };
        let time = |_| {
            let started = Instant::now();
            self.runner.run(&plan).unwrap();
            started.elapsed()
        };
        (0..=times).map(time).min().unwrap_or_default()
    }
}
