//! What the runner's tests share: goldens, a runner with a small block pool, and sequences on it.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

#[path = "../levels/mod.rs"]
mod levels;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use serde_json::Value;
use tsserve_engine::{
    BlockId, CacheKind, ModelRunner, OutputRow, RowResult, RowRole, RowWant, SequenceId, SequencePlan, StepPlan,
    TokenId,
};
use tsserve_models::BLOCK_SIZE;
use tsserve_models::candle::{CandleRunner, Dtype, RunnerDevice, RunnerOptions, kv_layout};
use tsserve_models::checkpoint::Checkpoint;
use tsserve_models::cpu::{self, CacheType, CpuOptions, CpuRunner, Level, Quantization};
use tsserve_models::weights::ModelFiles;

#[allow(unused_imports, reason = "each test binary uses its own part")]
pub use levels::{asked_level, fastest, levels, unlike_levels};

pub const TINY: [&str; 5] = ["llama", "llama_smollm2", "qwen2", "qwen3", "gemma3_text"];

/// Our own CPU operations, and candle's as other devices use them.
pub const OPS: [bool; 2] = [false, true];

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

pub fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(&ModelFiles::discover(path).unwrap()).unwrap()
}

pub fn json(path: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixtures().join(path)).unwrap()).unwrap()
}

pub fn ids(value: &Value) -> Vec<TokenId> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as TokenId).collect()
}

/// Tensors of a golden file by name, each with its rows.
pub struct Golden(HashMap<String, Tensor>);

impl Golden {
    pub fn load(path: &str) -> Self {
        Self(candle_core::safetensors::load(fixtures().join(path), &Device::Cpu).unwrap())
    }

    pub fn ids(&self, name: &str) -> Vec<TokenId> {
        self.0[name].to_dtype(DType::U32).unwrap().to_vec1().unwrap()
    }

    pub fn rows(&self, name: &str) -> Vec<Vec<f32>> {
        self.0[name].to_vec2().unwrap()
    }
}

/// Asserts that two matrices are equal within `2e-5 * max(1, std)` of the expected one; gives the largest difference.
pub fn assert_close(found: &[Vec<f32>], expected: &[Vec<f32>], what: &str) -> f32 {
    assert_eq!(found.len(), expected.len(), "{what}: rows");
    let all: Vec<f64> = expected.iter().flatten().map(|x| f64::from(*x)).collect();
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    let std = (all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / all.len() as f64).sqrt();
    let tolerance = 2e-5 * std.max(1.0);
    let mut worst = 0f32;
    for (row, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.len(), expected.len(), "{what}: length of row {row}");
        for (column, (a, b)) in found.iter().zip(expected).enumerate() {
            worst = worst.max((a - b).abs());
            assert!(f64::from((a - b).abs()) <= tolerance, "{what}: row {row} column {column}: {a}, expected {b}");
        }
    }
    worst
}

/// A sequence on a `TestRunner`.
pub struct Sequence {
    id: SequenceId,
    /// Positions computed.
    pub n_computed: usize,
    /// One per group; entries of freed window blocks are `BlockId::MAX`.
    pub tables: Vec<Vec<BlockId>>,
}

/// A runner and the free blocks of its groups.
pub struct TestRunner<R = CandleRunner> {
    pub runner: R,
    /// What the tokens of plans are.
    pub role: RowRole,
    free: Vec<Vec<BlockId>>,
    n_blocks: usize,
    next_id: u64,
}

impl TestRunner {
    pub fn tiny(name: &str, plain_ops: bool) -> Self {
        Self::new(&open(&fixtures().join("models").join(name)), plain_ops, 128, 1024)
    }

    pub fn new(checkpoint: &Checkpoint, plain_ops: bool, n_blocks: usize, max_context: usize) -> Self {
        let groups = kv_layout(&checkpoint.architecture, Dtype::F32).len();
        let options = RunnerOptions {
            device: RunnerDevice::cpu(),
            dtype: Dtype::F32,
            max_context,
            max_batch_tokens: 8192,
            kv_blocks: vec![n_blocks; groups],
            plain_ops,
        };
        Self::on(CandleRunner::load(checkpoint, options, &mut |_, _| {}).unwrap(), n_blocks)
    }
}

impl TestRunner<CpuRunner> {
    /// Packed weights, on two threads.
    pub fn cpu(checkpoint: &Checkpoint, level: Level, n_blocks: usize, max_context: usize) -> Self {
        Self::cpu_as(checkpoint, level, None, CacheType::F16, n_blocks, max_context)
    }

    /// Quantised at load, with a cache of some type.
    pub fn cpu_as(
        checkpoint: &Checkpoint,
        level: Level,
        quantization: Option<Quantization>,
        cache_type: CacheType,
        n_blocks: usize,
        max_context: usize,
    ) -> Self {
        let groups = cpu::kv_layout(checkpoint, cache_type).len();
        let options = CpuOptions {
            level,
            threads: 2,
            quantization,
            cache_type,
            max_context,
            max_batch_tokens: 512,
            kv_blocks: vec![n_blocks; groups],
        };
        Self::on(CpuRunner::load(checkpoint, options, &mut |_, _| {}).unwrap(), n_blocks)
    }
}

impl<R: ModelRunner> TestRunner<R> {
    fn on(runner: R, n_blocks: usize) -> Self {
        // Blocks are handed out in a scattered order with some neighbours in it, as a used pool would.
        let order = |i: usize| ((i / 2 * 37) % (n_blocks / 2) * 2 + i % 2) as BlockId;
        let free = vec![(0..n_blocks).map(order).collect(); runner.spec().groups.len()];
        Self { runner, role: RowRole::Prompt, free, n_blocks, next_id: 0 }
    }

    pub fn vocab_size(&self) -> usize {
        self.runner.spec().vocab_size
    }

    pub fn sequence(&mut self) -> Sequence {
        self.next_id += 1;
        let id = SequenceId(self.next_id);
        Sequence { id, n_computed: 0, tables: vec![Vec::new(); self.free.len()] }
    }

    /// A sequence whose first `n` positions are those of `other`, block for block (`n` a multiple of the block size).
    pub fn fork(&mut self, other: &Sequence, n: usize) -> Sequence {
        assert_eq!(n % BLOCK_SIZE, 0);
        let mut sequence = self.sequence();
        sequence.n_computed = n;
        for (mine, table) in sequence.tables.iter_mut().zip(&other.tables) {
            mine.extend(&table[..n / BLOCK_SIZE]);
        }
        sequence
    }

    pub fn drop_sequence(&mut self, sequence: Sequence) {
        for (free, table) in self.free.iter_mut().zip(sequence.tables) {
            free.extend(table.into_iter().filter(|block| *block != BlockId::MAX));
        }
    }

    pub fn n_free(&self) -> Vec<usize> {
        self.free.iter().map(Vec::len).collect()
    }

    /// The plan entry for the next tokens of a sequence, with blocks for them.
    pub fn plan(&mut self, sequence: &mut Sequence, tokens: &[TokenId], outputs: Vec<OutputRow>) -> SequencePlan {
        let end = sequence.n_computed + tokens.len();
        for (free, table) in self.free.iter_mut().zip(&mut sequence.tables) {
            while table.len() * BLOCK_SIZE < end {
                table.push(free.pop().expect("the test's pool is too small"));
            }
        }
        let plan = SequencePlan {
            sequence: sequence.id,
            role: self.role,
            tokens: tokens.to_vec(),
            start: sequence.n_computed,
            block_tables: sequence.tables.iter().map(|table| Arc::from(table.as_slice())).collect(),
            outputs,
        };
        sequence.n_computed = end;
        plan
    }

    /// Gives back the window blocks that no later token of the sequence sees.
    pub fn free_out_of_window(&mut self, sequence: &mut Sequence) {
        let groups = self.runner.spec().groups.clone();
        for ((group, free), table) in groups.iter().zip(&mut self.free).zip(&mut sequence.tables) {
            if let CacheKind::Window(window) = group.kind {
                let visible = (sequence.n_computed + 1).saturating_sub(window) / BLOCK_SIZE;
                for block in table.iter_mut().take(visible).filter(|block| **block != BlockId::MAX) {
                    free.push(std::mem::replace(block, BlockId::MAX));
                }
            }
        }
    }

    pub fn run(&mut self, sequences: Vec<SequencePlan>) -> Vec<RowResult> {
        self.runner.run(&StepPlan { sequences }).unwrap().rows
    }

    /// Computes tokens in one step; logits of all of them.
    pub fn logits(&mut self, sequence: &mut Sequence, tokens: &[TokenId]) -> Vec<Vec<f32>> {
        let plan = self.plan(sequence, tokens, all_rows(tokens.len(), &RowWant::Full));
        self.run(vec![plan]).into_iter().map(|row| row.logits).collect()
    }

    /// Logits of a whole prompt in a fresh sequence, computed in steps of at most `chunk` tokens.
    pub fn prompt_logits(&mut self, tokens: &[TokenId], chunk: usize) -> Vec<Vec<f32>> {
        let mut sequence = self.sequence();
        let mut rows = Vec::new();
        for tokens in tokens.chunks(chunk) {
            rows.extend(self.logits(&mut sequence, tokens));
            self.free_out_of_window(&mut sequence);
        }
        self.drop_sequence(sequence);
        assert!(self.n_free().iter().all(|free| *free == self.n_blocks));
        rows
    }

    /// Logits of a whole prompt in a fresh sequence, while others live.
    pub fn prompt_logits_beside(&mut self, tokens: &[TokenId]) -> Vec<Vec<f32>> {
        let mut sequence = self.sequence();
        let rows = self.logits(&mut sequence, tokens);
        self.drop_sequence(sequence);
        rows
    }

    /// Mean negative log-likelihood of each token after the first, in steps of at most `chunk` tokens.
    pub fn mean_nll(&mut self, text: &[TokenId], chunk: usize) -> f64 {
        let mut sequence = self.sequence();
        let mut sum = 0f64;
        let mut at = 0;
        for part in text.chunks(chunk) {
            let following = text[at + 1..text.len().min(at + part.len() + 1)].iter().enumerate();
            let outputs =
                following.map(|(index, next)| OutputRow { index, want: RowWant::TopK { k: 1, chosen: vec![*next] } });
            let plan = self.plan(&mut sequence, part, outputs.collect());
            sum += self.run(vec![plan]).iter().map(|row| f64::from(row.log_sum_exp - row.chosen[0])).sum::<f64>();
            self.free_out_of_window(&mut sequence);
            at += part.len();
        }
        self.drop_sequence(sequence);
        sum / (text.len() - 1) as f64
    }

    /// Greedy answer of one sequence alone.
    pub fn greedy(&mut self, prompt: &[TokenId], n: usize) -> Vec<TokenId> {
        let mut sequence = self.sequence();
        let mut tokens = prompt.to_vec();
        let mut answer = Vec::new();
        for _ in 0..n {
            let outputs = last_row(tokens.len(), RowWant::ArgMax);
            let plan = self.plan(&mut sequence, &tokens, outputs);
            let id = self.run(vec![plan])[0].candidates[0].0;
            self.free_out_of_window(&mut sequence);
            answer.push(id);
            tokens = vec![id];
        }
        self.drop_sequence(sequence);
        answer
    }
}

pub fn all_rows(n: usize, want: &RowWant) -> Vec<OutputRow> {
    (0..n).map(|index| OutputRow { index, want: want.clone() }).collect()
}

pub fn last_row(n: usize, want: RowWant) -> Vec<OutputRow> {
    vec![OutputRow { index: n - 1, want }]
}
