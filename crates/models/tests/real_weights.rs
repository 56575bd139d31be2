//! Real weights against what transformers computes with them in f32 on dequantised weights.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are not seen as tests")]

mod runner;

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use runner::{TestRunner, ids, json, open};
use serde_json::Value;
use tsserve_engine::{OutputRow, RowWant, TokenId};

/// One model in memory at a time.
static MEMORY: Mutex<()> = Mutex::new(());

/// Largest difference of log-probabilities.
const TOLERANCE: f64 = 2e-3;

/// Greedy ids are equal where the best two are further apart than this.
const CLEAR_GAP: f64 = 5e-3;

fn load(name: &str) -> TestRunner {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tsserve/weights");
    let folder = std::env::var_os("TSSERVE_WEIGHTS_DIR").map_or_else(default, PathBuf::from);
    let file = folder.join(format!("{name}.gguf"));
    assert!(file.is_file(), "{} is missing; fetch the weights first, or set TSSERVE_WEIGHTS_DIR", file.display());
    TestRunner::new(&open(&file), false, 512, 4096)
}

fn check(name: &str) {
    let _one = MEMORY.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut model = load(name);
    let facts = json(&format!("real/{name}.json"));
    let cases = facts["cases"].as_array().unwrap();
    let mut worst = 0f64;
    for case in cases {
        worst = worst.max(teacher_forced(&mut model, case));
    }
    greedy_together(&mut model, cases);
    let text = ids(&json("real/gpl3-ids.json")["ids"][name]);
    for n in [512, 1536] {
        let expected = &facts["perplexity"][n.to_string()];
        assert_eq!(ids(&expected["first_ids"]), text[..16]);
        let expected = expected["mean_nll"].as_f64().unwrap();
        let found = model.mean_nll(&text[..n], 512);
        println!("{name}: mean NLL of {n} tokens {found:.6}, expected {expected:.6}");
        assert!((found - expected).abs() < 1e-3, "{name}: mean NLL of {n} tokens is {found}, expected {expected}");
    }
    println!("{name}: {} cases, largest difference of log-probabilities {worst:.1e}", cases.len());
}

/// Feeds the reference's own answer: every step's ten best, and the best where it is clear. Gives the largest
/// difference.
fn teacher_forced(model: &mut TestRunner, case: &Value) -> f64 {
    let prompt = ids(&case["prompt_ids"]);
    let answer = ids(&case["new_ids"]);
    let steps = case["steps"].as_array().unwrap();
    let tokens: Vec<TokenId> = prompt.iter().chain(&answer).copied().collect();
    let outputs = steps.iter().enumerate().map(|(step, facts)| {
        let chosen = facts["top"].as_array().unwrap().iter().map(|entry| entry[0].as_u64().unwrap() as u32).collect();
        OutputRow { index: prompt.len() - 1 + step, want: RowWant::TopK { k: 10, chosen } }
    });
    let mut sequence = model.sequence();
    let plan = model.plan(&mut sequence, &tokens, outputs.collect());
    let rows = model.run(vec![plan]);
    model.drop_sequence(sequence);
    let mut worst = 0f64;
    for (step, (row, facts)) in rows.iter().zip(steps).enumerate() {
        let what = format!("{} step {step}", case["text"]);
        for (entry, logit) in facts["top"].as_array().unwrap().iter().zip(&row.chosen) {
            let difference = (f64::from(logit - row.log_sum_exp) - entry[1].as_f64().unwrap()).abs();
            worst = worst.max(difference);
            assert!(difference <= TOLERANCE, "{what}: log-probability of {} is off by {difference}", entry[0]);
        }
        if facts["gap"].as_f64().unwrap() > CLEAR_GAP {
            assert_eq!(row.candidates[0].0, answer[step], "{what}");
        }
    }
    worst
}

/// All cases at once, greedily, each with its own blocks: the reference's ids up to the first step that is not clear.
fn greedy_together(model: &mut TestRunner, cases: &[Value]) {
    let mut running: Vec<_> =
        cases.iter().map(|case| (case, model.sequence(), ids(&case["prompt_ids"]), Vec::<TokenId>::new())).collect();
    let longest = cases.iter().map(|case| case["new_ids"].as_array().unwrap().len()).max().unwrap_or(0);
    for _ in 0..longest {
        let mut plans = Vec::new();
        for (_, sequence, next, _) in &mut running {
            plans.push(model.plan(sequence, next, runner::last_row(next.len(), RowWant::ArgMax)));
        }
        for (row, (_, sequence, next, answer)) in model.run(plans).into_iter().zip(&mut running) {
            *next = vec![row.candidates[0].0];
            answer.push(next[0]);
            model.free_out_of_window(sequence);
        }
    }
    for (case, sequence, _, answer) in running {
        let expected = ids(&case["new_ids"]);
        for (step, (found, expected)) in answer.iter().zip(&expected).enumerate() {
            if found != expected {
                let gap = case["steps"][step]["gap"].as_f64().unwrap();
                assert!(gap <= CLEAR_GAP, "{} step {step}: {found}, expected {expected}, gap {gap}", case["text"]);
                break;
            }
        }
        model.drop_sequence(sequence);
    }
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
