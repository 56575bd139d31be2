//! Real weights on the CPU runner against what transformers computes with them in f32 on dequantised weights.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are not seen as tests")]

mod runner;

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use runner::{TestRunner, asked_level, ids, json, last_row, open};
use serde_json::Value;
use tsserve_engine::{OutputRow, RowResult, RowRole, RowWant, TokenId};
use tsserve_models::cpu::{CacheType, CpuRunner, Level};

/// One model in memory at a time.
static MEMORY: Mutex<()> = Mutex::new(());

/// What differs at most with a type of cache.
struct Limits {
    cache_type: CacheType,
    /// Mean difference of the five best log-probabilities, where every token is computed as part of a prompt.
    as_prompt: f64,
    /// And where tokens of the answer are computed one by one, as in decoding.
    decoded: f64,
    /// Greedy ids are equal where the best two are further apart than this: in answers, and where an answer is scored as
    /// a prompt.
    clear_gap: f64,
    clear_gap_as_prompt: f64,
    /// The perplexity's relative difference.
    perplexity: f64,
}

const F16: Limits = Limits {
    cache_type: CacheType::F16,
    as_prompt: 0.05,
    decoded: 0.01,
    clear_gap: 0.25,
    clear_gap_as_prompt: 0.35,
    perplexity: 5e-3,
};

const Q8_0: Limits = Limits {
    cache_type: CacheType::Q8_0,
    as_prompt: 0.065,
    decoded: 0.04,
    clear_gap: 0.4,
    clear_gap_as_prompt: 0.5,
    perplexity: 1e-2,
};

fn load(name: &str, cache_type: CacheType) -> TestRunner<CpuRunner> {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tsserve/weights");
    let folder = std::env::var_os("TSSERVE_WEIGHTS_DIR").map_or_else(default, PathBuf::from);
    let file = folder.join(format!("{name}.gguf"));
    assert!(file.is_file(), "{} is missing; fetch the weights first, or set TSSERVE_WEIGHTS_DIR", file.display());
    let level = asked_level().unwrap_or_else(Level::detect);
    TestRunner::cpu_as(&open(&file), level, None, cache_type, 512, 4096)
}

/// Differences of log-probabilities met so far.
#[derive(Default)]
struct Differences {
    sum: f64,
    n: usize,
    worst: f64,
    wrong: usize,
    steps: usize,
}

impl Differences {
    fn add(&mut self, row: &RowResult, facts: &Value, expected: TokenId, clear_gap: f64, what: &str) {
        for (entry, logit) in facts["top"].as_array().unwrap().iter().zip(&row.chosen).take(5) {
            let difference = (f64::from(logit - row.log_sum_exp) - entry[1].as_f64().unwrap()).abs();
            self.sum += difference;
            self.n += 1;
            self.worst = self.worst.max(difference);
        }
        self.steps += 1;
        if row.candidates[0].0 != expected {
            self.wrong += 1;
            let gap = facts["gap"].as_f64().unwrap();
            assert!(gap <= clear_gap, "{what}: {}, expected {expected}, gap {gap}", row.candidates[0].0);
        }
    }

    fn mean(&self) -> f64 {
        self.sum / self.n as f64
    }
}

impl std::fmt::Display for Differences {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "mean {:.4}, worst {:.3}, {} of {} greedy ids differ",
            self.mean(),
            self.worst,
            self.wrong,
            self.steps
        )
    }
}

fn want(facts: &Value) -> RowWant {
    let chosen = facts["top"].as_array().unwrap().iter().map(|entry| entry[0].as_u64().unwrap() as u32).collect();
    RowWant::TopK { k: 10, chosen }
}

fn check(name: &str, limits: &Limits) {
    let _one = MEMORY.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut model = load(name, limits.cache_type);
    let facts = json(&format!("real/{name}.json"));
    let (mut prompts, mut decoded) = (Differences::default(), Differences::default());
    for case in facts["cases"].as_array().unwrap() {
        let (prompt, answer) = (ids(&case["prompt_ids"]), ids(&case["new_ids"]));
        let steps = case["steps"].as_array().unwrap();
        // All as one prompt.
        let tokens: Vec<TokenId> = prompt.iter().chain(&answer).copied().collect();
        let outputs = steps.iter().enumerate();
        let outputs = outputs.map(|(i, facts)| OutputRow { index: prompt.len() - 1 + i, want: want(facts) }).collect();
        let mut sequence = model.sequence();
        let plan = model.plan(&mut sequence, &tokens, outputs);
        for (i, row) in model.run(vec![plan]).iter().enumerate() {
            prompts.add(row, &steps[i], answer[i], limits.clear_gap_as_prompt, &format!("{} step {i}", case["text"]));
        }
        model.drop_sequence(sequence);
        // The answer token by token.
        let mut sequence = model.sequence();
        let mut tokens = prompt;
        for (i, facts) in steps.iter().enumerate() {
            let plan = model.plan(&mut sequence, &tokens, last_row(tokens.len(), want(facts)));
            let row = model.run(vec![plan]).remove(0);
            decoded.add(&row, facts, answer[i], limits.clear_gap, &format!("{} step {i} decoded", case["text"]));
            model.free_out_of_window(&mut sequence);
            tokens = vec![answer[i]];
            model.role = RowRole::Decode;
        }
        model.drop_sequence(sequence);
        model.role = RowRole::Prompt;
    }
    let text = ids(&json("real/gpl3-ids.json")["ids"][name]);
    let name = format!("{name}, {}", limits.cache_type);
    println!("{name} as prompts: {prompts}");
    println!("{name} decoded:    {decoded}");
    for n in [512, 1536] {
        let expected = facts["perplexity"][n.to_string()]["mean_nll"].as_f64().unwrap();
        let found = model.mean_nll(&text[..n], 256);
        let off = (found - expected).exp() - 1.0;
        println!("{name}: perplexity of {n} tokens off by {:.3} %", off * 100.0);
        assert!(off.abs() < limits.perplexity, "{name}: mean NLL of {n} tokens is {found}, expected {expected}");
    }
    assert!(prompts.mean() <= limits.as_prompt, "{name} as prompts: {prompts}");
    assert!(decoded.mean() <= limits.decoded, "{name} decoded: {decoded}");
}

#[test]
fn smollm2() {
    check("smollm2-135m-instruct-q4_1", &F16);
}

#[test]
fn qwen2_5_coder() {
    check("qwen2.5-coder-0.5b-instruct-q4_k_m", &F16);
}

#[test]
fn gemma_3_270m() {
    check("gemma-3-270m-q4_k_m", &F16);
}

#[test]
fn smollm2_with_a_cache_of_8_bits() {
    check("smollm2-135m-instruct-q4_1", &Q8_0);
}

#[test]
fn qwen2_5_coder_with_a_cache_of_8_bits() {
    check("qwen2.5-coder-0.5b-instruct-q4_k_m", &Q8_0);
}

#[test]
fn gemma_3_270m_with_a_cache_of_8_bits() {
    check("gemma-3-270m-q4_k_m", &Q8_0);
}
