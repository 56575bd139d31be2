//! Real weights on the CPU runner against what transformers computes with them in f32 on dequantised weights.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are not seen as tests")]

mod runner;

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use runner::{TestRunner, asked_level, ids, json, last_row, open};
use serde_json::Value;
use tsserve_engine::{OutputRow, RowResult, RowRole, RowWant, TokenId};
use tsserve_models::cpu::{CpuRunner, Level};

/// One model in memory at a time.
static MEMORY: Mutex<()> = Mutex::new(());

/// Mean difference of the five best log-probabilities, where every token is computed as part of a prompt.
const AS_PROMPT: f64 = 0.05;

/// And where tokens of the answer are computed one by one, as in decoding.
const DECODED: f64 = 0.01;

/// Greedy ids are equal where the best two are further apart than this: in answers, and where an answer is scored as a
/// prompt.
const CLEAR_GAP: f64 = 0.25;
const CLEAR_GAP_AS_PROMPT: f64 = 0.35;

/// The perplexity's relative difference.
const PERPLEXITY: f64 = 5e-3;

fn load(name: &str) -> TestRunner<CpuRunner> {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tsserve/weights");
    let folder = std::env::var_os("TSSERVE_WEIGHTS_DIR").map_or_else(default, PathBuf::from);
    let file = folder.join(format!("{name}.gguf"));
    assert!(file.is_file(), "{} is missing; fetch the weights first, or set TSSERVE_WEIGHTS_DIR", file.display());
    TestRunner::cpu(&open(&file), asked_level().unwrap_or_else(Level::detect), 512, 4096)
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

fn check(name: &str) {
    let _one = MEMORY.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut model = load(name);
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
            prompts.add(row, &steps[i], answer[i], CLEAR_GAP_AS_PROMPT, &format!("{} step {i}", case["text"]));
        }
        model.drop_sequence(sequence);
        // The answer token by token.
        let mut sequence = model.sequence();
        let mut tokens = prompt;
        for (i, facts) in steps.iter().enumerate() {
            let plan = model.plan(&mut sequence, &tokens, last_row(tokens.len(), want(facts)));
            let row = model.run(vec![plan]).remove(0);
            decoded.add(&row, facts, answer[i], CLEAR_GAP, &format!("{} step {i} decoded", case["text"]));
            model.free_out_of_window(&mut sequence);
            tokens = vec![answer[i]];
            model.role = RowRole::Decode;
        }
        model.drop_sequence(sequence);
        model.role = RowRole::Prompt;
    }
    println!("{name} as prompts: {prompts}");
    println!("{name} decoded:    {decoded}");
    let text = ids(&json("real/gpl3-ids.json")["ids"][name]);
    for n in [512, 1536] {
        let expected = facts["perplexity"][n.to_string()]["mean_nll"].as_f64().unwrap();
        let found = model.mean_nll(&text[..n], 256);
        let off = (found - expected).exp() - 1.0;
        println!("{name}: perplexity of {n} tokens off by {:.3} %", off * 100.0);
        assert!(off.abs() < PERPLEXITY, "{name}: mean NLL of {n} tokens is {found}, expected {expected}");
    }
    assert!(prompts.mean() <= AS_PROMPT, "{name} as prompts: {prompts}");
    assert!(decoded.mean() <= DECODED, "{name} decoded: {decoded}");
}

#[test]
fn smollm2() {
    check("smollm2-135m-instruct-q4_1");
}

#[test]
fn qwen2_5_coder() {
    check("qwen2.5-coder-0.5b-instruct-q4_k_m");
}

#[test]
fn gemma_3_270m() {
    check("gemma-3-270m-q4_k_m");
}
