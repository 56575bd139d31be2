//! The CPU runner on tiny checkpoints: against what transformers computes, against the candle runner, and against
//! itself at other levels, in other batches and in other chunks.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests are not seen as tests")]

mod runner;

use runner::{Golden, TINY, TestRunner, fastest, fixtures, json, last_row, levels, open, unlike_levels};
use tsserve_engine::{ModelRunner, OutputRow, RowRole, RowWant};
use tsserve_models::candle::HiddenPoint;
use tsserve_models::cpu::{CacheType, CpuRunner, Level, unsupported};

/// A GGUF file with tensors of nine kinds.
const MIXED: &str = "llama_mixed32";

/// One with kinds that only the candle runner computes.
const OTHER: &str = "qwen3_kquants";

/// Greatest difference to f32 in units of the expected values' spread: the cache is in f16 (11 bits).
const F16_CACHE: f64 = 1e-2;

/// Root of the mean square of differences with a cache of 8 bits. They are 8 of the largest number in a block, not of each
/// number, and tiny models of random weights feel most of it.
const Q8_CACHE: f64 = 2.5e-2;

/// And with the coarser activations of prompts, which tiny models of random weights feel most: those in 8 bits, and those
/// of AMX, of which each product rounds to 8 bits where f16 has 11.
const QUANTISED_ROWS: f64 = 8e-2;
const BF16_ROWS: f64 = 0.12;

/// What is allowed for prompts of the tiny models, which are stored in bf16.
fn of_prompts(level: Level) -> f64 {
    if level == Level::Amx { BF16_ROWS } else { F16_CACHE }
}

fn tiny(name: &str, level: Level, cache_type: CacheType) -> TestRunner<CpuRunner> {
    TestRunner::cpu_as(&open(&fixtures().join("models").join(name)), level, None, cache_type, 128, 1024)
}

fn levels_and_caches() -> impl Iterator<Item = (Level, CacheType)> {
    levels().into_iter().flat_map(|level| CacheType::ALL.map(|cache_type| (level, cache_type)))
}

/// The largest difference and the root of the mean square of all, in units of the expected values' spread.
fn differences(found: &[Vec<f32>], expected: &[Vec<f32>], what: &str) -> (f64, f64) {
    assert_eq!(found.len(), expected.len(), "{what}: rows");
    let all: Vec<f64> = expected.iter().flatten().map(|x| f64::from(*x)).collect();
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    let spread = (all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / all.len() as f64).sqrt();
    let (mut worst, mut squares) = (0f64, 0f64);
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.len(), expected.len(), "{what}: columns");
        for (a, b) in found.iter().zip(expected) {
            let difference = f64::from((a - b).abs()) / spread;
            (worst, squares) = (worst.max(difference), squares + difference * difference);
            assert!(a.is_finite(), "{what}: {a}");
        }
    }
    let typical = (squares / all.len() as f64).sqrt();
    println!("{what}: {worst:.1e}, typically {typical:.1e}");
    (worst, typical)
}

fn assert_near(found: &[Vec<f32>], expected: &[Vec<f32>], within: f64, what: &str) {
    let (worst, _) = differences(found, expected, what);
    assert!(worst <= within, "{what}: {worst:.1e} of the spread");
}

/// As the type of cache allows; with f16 `within`.
fn assert_near_with(cache_type: CacheType, found: &[Vec<f32>], expected: &[Vec<f32>], within: f64, what: &str) {
    match cache_type {
        CacheType::F16 => assert_near(found, expected, within, what),
        CacheType::Q8_0 => {
            let (_, typical) = differences(found, expected, what);
            assert!(typical <= Q8_CACHE.max(within / 2.0), "{what}: {typical:.1e} of the spread");
        }
    }
}

#[test]
fn logits_of_prompts() {
    for name in TINY {
        let golden = Golden::load(&format!("golden/{name}.safetensors"));
        for (level, cache_type) in levels_and_caches() {
            let mut model = tiny(name, level, cache_type);
            for prompt in ["a", "b", "c"] {
                let found = model.prompt_logits(&golden.ids(&format!("{prompt}.input_ids")), 512);
                let expected = golden.rows(&format!("{prompt}.logits"));
                let what = format!("{name} {prompt} {level} {cache_type}");
                assert_near_with(cache_type, &found, &expected, of_prompts(level), &what);
            }
        }
    }
}

#[test]
fn hidden_states() {
    for name in TINY {
        let golden = Golden::load(&format!("golden/{name}.safetensors"));
        let facts = json(&format!("golden/{name}.json"));
        let layer = |key: &str| HiddenPoint::Layer(facts[key].as_u64().unwrap() as usize);
        for level in unlike_levels() {
            let mut model = tiny(name, level, CacheType::F16);
            let tokens = golden.ids("a.input_ids");
            let mut sequence = model.sequence();
            let plan = model.plan(&mut sequence, &tokens, Vec::new());
            let mut states = Vec::new();
            let mut tap = |point, values: &[f32]| states.push((point, values.to_vec()));
            model.runner.run_tapped(&tsserve_engine::StepPlan { sequences: vec![plan] }, &mut tap).unwrap();
            for (key, point) in
                [("embed", HiddenPoint::Embedding), ("layer0", HiddenPoint::Layer(0)), ("last", layer("last_layer"))]
            {
                let flat = &states.iter().find(|(at, _)| *at == point).unwrap().1;
                let found: Vec<_> = flat.chunks(flat.len() / tokens.len()).map(<[f32]>::to_vec).collect();
                assert_near(
                    &found,
                    &golden.rows(&format!("a.hidden.{key}")),
                    of_prompts(level),
                    &format!("{name} {key} {level}"),
                );
            }
            model.drop_sequence(sequence);
        }
    }
}

#[test]
fn quantised_files() {
    let checkpoint = open(&fixtures().join(format!("golden/quant/{MIXED}.gguf")));
    let golden = Golden::load(&format!("golden/quant/{MIXED}.safetensors"));
    let (prompt, expected) = (golden.ids("a.input_ids"), golden.rows("a.logits"));
    for (level, cache_type) in levels_and_caches() {
        let mut model = TestRunner::cpu_as(&checkpoint, level, None, cache_type, 128, 1024);
        let coarse = model.prompt_logits(&prompt, 512);
        let what = format!("{MIXED} {level} {cache_type}");
        assert_near(&coarse, &expected, QUANTISED_ROWS, &format!("{what} as a prompt"));
        model.role = RowRole::Decode;
        let fine = model.prompt_logits(&prompt, 7);
        assert_near_with(cache_type, &fine, &expected, F16_CACHE, &format!("{what} as an answer"));
    }
}

#[test]
fn what_has_no_kernels_is_left_to_the_candle_runner() {
    let why = unsupported(&open(&fixtures().join(format!("golden/quant/{OTHER}.gguf"))));
    assert_eq!(why.as_deref(), Some("K of layer 0 is stored as IQ4_XS"));
    for name in TINY {
        assert_eq!(unsupported(&open(&fixtures().join("models").join(name))), None);
    }
}

/// Greedy text never depends on who else runs: every row's bits are those it has alone.
#[test]
fn bits_do_not_depend_on_neighbours_chunks_or_levels() {
    let tokens: Vec<u32> = (0..150).map(|i| (i * 37 + 11) % 400).collect();
    let kinds = unlike_levels().into_iter().flat_map(|level| CacheType::ALL.map(|cache_type| (level, cache_type)));
    for (name, (level, cache_type)) in kinds.flat_map(|kind| TINY.map(|name| (name, kind))) {
        let mut alone = tiny(name, level, cache_type);
        let whole = alone.prompt_logits(&tokens, 512);
        for chunk in [64, 17] {
            assert!(alone.prompt_logits(&tokens, chunk) == whole, "{name} {level} {cache_type} in chunks of {chunk}");
        }
        // Decoding beside prompts and other decodes of several lengths.
        let mut expected = Vec::new();
        let mut one = alone.sequence();
        alone.logits(&mut one, &tokens[..40]);
        alone.role = RowRole::Decode;
        for token in &tokens[40..60] {
            expected.extend(alone.logits(&mut one, &[*token]));
        }
        alone.role = RowRole::Prompt;
        alone.drop_sequence(one);
        let mut sequences: Vec<_> = (0..9).map(|_| alone.sequence()).collect();
        for (i, sequence) in sequences.iter_mut().enumerate() {
            alone.logits(sequence, &tokens[..if i == 0 { 40 } else { 7 + 5 * i }]);
        }
        let full = |n| last_row(n, RowWant::Full);
        for (step, token) in tokens[40..60].iter().enumerate() {
            alone.role = RowRole::Decode;
            let mut plans = vec![alone.plan(&mut sequences[0], &[*token], full(1))];
            for (i, sequence) in sequences.iter_mut().enumerate().skip(1).take(step % 9) {
                let tokens = if i == 3 { &tokens[..20] } else { &tokens[i..=i] };
                alone.role = if i == 3 { RowRole::Prompt } else { RowRole::Decode };
                plans.push(alone.plan(sequence, tokens, full(tokens.len())));
            }
            assert!(alone.run(plans)[0].logits == expected[step], "{name} {level} {cache_type} step {step}");
        }
        sequences.into_iter().for_each(|sequence| alone.drop_sequence(sequence));
        for other in levels().into_iter().filter(|other| (*other == Level::Amx) == (level == Level::Amx)) {
            let found = tiny(name, other, cache_type).prompt_logits(&tokens, 512);
            assert_near(&found, &whole, 1e-4, &format!("{name} {other} {cache_type}"));
        }
    }
}

/// A cached block is found by tokens of its role only where that makes a difference.
#[test]
fn models_of_bf16_have_roles_with_amx_alone() {
    for level in unlike_levels() {
        assert_eq!(tiny("llama", level, CacheType::F16).runner.roles_differ(), level == Level::Amx, "{level}");
    }
    let mixed = open(&fixtures().join(format!("golden/quant/{MIXED}.gguf")));
    assert!(TestRunner::cpu(&mixed, fastest(), 128, 1024).runner.roles_differ());
}

#[test]
fn every_want_is_answered() {
    let mut model = tiny("qwen3", fastest(), CacheType::F16);
    let tokens: Vec<u32> = (0..30).collect();
    let full = model.prompt_logits(&tokens, 512).pop().unwrap();
    let best = (0..full.len()).max_by(|&a, &b| full[a].total_cmp(&full[b])).unwrap() as u32;
    let mut ask = |want: RowWant| {
        let mut sequence = model.sequence();
        let plan = model.plan(&mut sequence, &tokens, vec![OutputRow { index: tokens.len() - 1, want }]);
        let row = model.run(vec![plan]).remove(0);
        model.drop_sequence(sequence);
        row
    };
    assert_eq!(ask(RowWant::ArgMax).candidates, [(best, full[best as usize])]);
    assert_eq!(ask(RowWant::Allowed(vec![500, 3].into())).chosen, [full[500], full[3]]);
    let many: Vec<u32> = (0..300).collect();
    assert_eq!(ask(RowWant::Allowed(many.into())).chosen, full[..300]);
    let top = ask(RowWant::TopK { k: 3, chosen: vec![7] });
    assert_eq!((top.candidates[0].0, top.candidates.len(), top.chosen[0]), (best, 3, full[7]));
    let sum: f64 = full.iter().map(|l| f64::from(*l).exp()).sum();
    assert!((f64::from(top.log_sum_exp) - sum.ln()).abs() < 1e-5);
}
