//! Tiny checkpoints against the values that transformers computes with them, with our own CPU operations and with
//! candle's (the code that other devices run).
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests are not seen as tests")]

mod runner;

use runner::{Golden, OPS, TINY, TestRunner, all_rows, assert_close, fixtures, ids, json, last_row, open};
use tsserve_engine::{RowWant, StepPlan};
use tsserve_models::candle::HiddenPoint;
use tsserve_models::checkpoint::Checkpoint;
use tsserve_models::weights::ModelFiles;

#[test]
fn logits() {
    for name in TINY {
        let golden = Golden::load(&format!("golden/{name}.safetensors"));
        for plain_ops in OPS {
            let mut model = TestRunner::tiny(name, plain_ops);
            for prompt in ["a", "b", "c"] {
                let found = model.prompt_logits(&golden.ids(&format!("{prompt}.input_ids")), usize::MAX);
                let what = format!("{name} {prompt} plain={plain_ops}");
                let worst = assert_close(&found, &golden.rows(&format!("{prompt}.logits")), &what);
                println!("{what}: {worst:.1e}");
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
        let points = [
            ("embed", HiddenPoint::Embedding),
            ("layer0", HiddenPoint::Layer(0)),
            ("mid", layer("mid_layer")),
            ("last", layer("last_layer")),
        ];
        for plain_ops in OPS {
            let mut model = TestRunner::tiny(name, plain_ops);
            for prompt in ["a", "b"] {
                let tokens = golden.ids(&format!("{prompt}.input_ids"));
                let mut sequence = model.sequence();
                let plan = model.plan(&mut sequence, &tokens, Vec::new());
                let mut states = Vec::new();
                let mut tap = |point, values: &[f32]| states.push((point, values.to_vec()));
                let results = model.runner.run_tapped(&StepPlan { sequences: vec![plan] }, &mut tap).unwrap();
                assert!(results.rows.is_empty());
                for (key, point) in points {
                    let flat = &states.iter().find(|(at, _)| *at == point).unwrap().1;
                    let found: Vec<_> = flat.chunks(flat.len() / tokens.len()).map(<[f32]>::to_vec).collect();
                    let expected = golden.rows(&format!("{prompt}.hidden.{key}"));
                    assert_close(&found, &expected, &format!("{name} {prompt} {key} plain={plain_ops}"));
                }
                model.drop_sequence(sequence);
            }
        }
    }
}

#[test]
fn cached_logits() {
    for name in TINY {
        let golden = Golden::load(&format!("golden/{name}.safetensors"));
        let facts = json(&format!("golden/{name}.json"));
        let prefill = facts["cached"]["prefill"].as_u64().unwrap() as usize;
        for plain_ops in OPS {
            let mut model = TestRunner::tiny(name, plain_ops);
            let tokens = golden.ids("a.input_ids");
            let mut sequence = model.sequence();
            let mut found = model.logits(&mut sequence, &tokens[..prefill]).split_off(prefill - 1);
            for token in &tokens[prefill..] {
                model.free_out_of_window(&mut sequence);
                found.extend(model.logits(&mut sequence, &[*token]));
            }
            assert_close(&found, &golden.rows("a.cached.logits"), &format!("{name} plain={plain_ops}"));
        }
    }
}

#[test]
fn greedy_ids_and_log_probabilities() {
    for name in TINY {
        let facts = json(&format!("golden/{name}.json"));
        for plain_ops in OPS {
            let mut model = TestRunner::tiny(name, plain_ops);
            for (prompt, facts) in facts["prompts"].as_object().unwrap() {
                check_greedy(&mut model, facts, &format!("{name} {prompt} plain={plain_ops}"));
            }
        }
    }
}

fn check_greedy(model: &mut TestRunner, facts: &serde_json::Value, what: &str) {
    let mut tokens = ids(&facts["input_ids"]);
    let greedy = &facts["greedy"];
    let expected = ids(&greedy["ids"]);
    let mut sequence = model.sequence();
    for (step, id) in expected.iter().enumerate() {
        let top5 = greedy["top5"][step].as_array().unwrap();
        let chosen = top5.iter().map(|entry| entry["id"].as_u64().unwrap() as u32).collect();
        let outputs = last_row(tokens.len(), RowWant::TopK { k: 5, chosen });
        let plan = model.plan(&mut sequence, &tokens, outputs);
        let row = model.run(vec![plan]).remove(0);
        assert_eq!(row.candidates[0].0, *id, "{what}: step {step}");
        for ((entry, logit), candidate) in top5.iter().zip(&row.chosen).zip(&row.candidates) {
            let expected = entry["logprob"].as_f64().unwrap();
            let found = f64::from(logit - row.log_sum_exp);
            assert!((found - expected).abs() < 5e-5, "{what}: step {step}: {found}, expected {expected}");
            // The k-th best, which need not be the same token where two are level.
            assert!((f64::from(candidate.1 - row.log_sum_exp) - expected).abs() < 5e-5, "{what}: step {step}");
        }
        model.free_out_of_window(&mut sequence);
        tokens = vec![*id];
    }
    model.drop_sequence(sequence);
}

#[test]
fn the_4x_spelling_of_a_config_is_the_same_model() {
    for name in TINY {
        let golden = Golden::load(&format!("golden/{name}.safetensors"));
        let mut files = ModelFiles::discover(&fixtures().join("models").join(name)).unwrap();
        let ModelFiles::Safetensors { config_json, .. } = &mut files else { panic!("{name} is a folder") };
        *config_json = fixtures().join(format!("golden/configs_v4/{name}.json"));
        let mut model = TestRunner::new(&Checkpoint::open(&files).unwrap(), false, 64, 1024);
        let tokens = golden.ids("a.input_ids");
        let v4 = model.prompt_logits(&tokens, usize::MAX);
        assert_eq!(v4, TestRunner::tiny(name, false).prompt_logits(&tokens, usize::MAX), "{name}");
        assert_close(&v4, &golden.rows("a.logits"), name);
    }
}

#[test]
fn tiny_gguf_files() {
    let facts = json("golden/quant/quant.json");
    for name in ["llama_mixed32", "qwen3_kquants"] {
        let golden = Golden::load(&format!("golden/quant/{name}.safetensors"));
        let checkpoint = open(&fixtures().join(format!("golden/quant/{name}.gguf")));
        for plain_ops in OPS {
            let mut model = TestRunner::new(&checkpoint, plain_ops, 64, 1024);
            for (prompt, facts) in facts["models"][name]["prompts"].as_object().unwrap() {
                let what = format!("{name} {prompt} plain={plain_ops}");
                let tokens = golden.ids(&format!("{prompt}.input_ids"));
                assert_eq!(tokens, ids(&facts["input_ids"]));
                let found = model.prompt_logits(&tokens, usize::MAX);
                let worst = assert_close(&found, &golden.rows(&format!("{prompt}.logits")), &what);
                println!("{what}: {worst:.1e}");
                check_greedy(&mut model, facts, &what);
            }
        }
    }
}

/// Every kind of want is read off the same logits.
#[test]
fn rows_get_what_they_ask_for() {
    for name in ["qwen2", "gemma3_text"] {
        let golden = Golden::load(&format!("golden/{name}.safetensors"));
        let tokens = golden.ids("b.input_ids");
        for plain_ops in OPS {
            let mut model = TestRunner::tiny(name, plain_ops);
            let vocab_size = model.vocab_size() as u32;
            let full = model.prompt_logits(&tokens, usize::MAX);
            let mut ask = |want: RowWant| {
                let mut sequence = model.sequence();
                let plan = model.plan(&mut sequence, &tokens, all_rows(tokens.len(), &want));
                let rows = model.run(vec![plan]);
                model.drop_sequence(sequence);
                rows
            };
            let few = vec![17, 3, 400];
            let many: Vec<u32> = (0..vocab_size).rev().step_by(2).collect();
            for allowed in [few, many, Vec::new()] {
                for (row, logits) in ask(RowWant::Allowed(allowed.clone().into())).iter().zip(&full) {
                    let expected: Vec<f32> = allowed.iter().map(|id| logits[*id as usize]).collect();
                    if plain_ops {
                        assert_close(std::slice::from_ref(&row.chosen), &[expected], name);
                    } else {
                        assert_eq!(row.chosen, expected);
                    }
                }
            }
            for (row, logits) in ask(RowWant::TopK { k: 600, chosen: vec![5] }).iter().zip(&full) {
                assert_eq!(row.candidates.len(), logits.len());
                assert!(row.candidates.is_sorted_by(|a, b| a.1 > b.1 || (a.1 == b.1 && a.0 < b.0)));
                assert_eq!(row.chosen, [logits[5]]);
                let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
                assert!((f64::from(row.log_sum_exp) - sum.ln()).abs() < 1e-5);
            }
            for (row, logits) in ask(RowWant::ArgMax).iter().zip(&full) {
                let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                assert_eq!(row.candidates, [(logits.iter().position(|l| *l == best).unwrap() as u32, best)]);
            }
        }
    }
}

#[test]
fn cache_groups_and_their_bytes() {
    use tsserve_engine::{CacheKind, ModelRunner};
    use tsserve_models::KvGroupLayout;
    use tsserve_models::candle::{CandleRunner, Dtype, RunnerDevice, RunnerOptions, kv_layout};
    let gemma = open(&fixtures().join("models/gemma3_text"));
    // Keys and values of 16 positions, one head of 32, f16: 2 KiB per layer.
    let expected = [
        KvGroupLayout { kind: CacheKind::Full, layers: vec![5], bytes_per_block: 2048 },
        KvGroupLayout { kind: CacheKind::Window(8), layers: vec![0, 1, 2, 3, 4], bytes_per_block: 5 * 2048 },
    ];
    assert_eq!(kv_layout(&gemma.architecture, Dtype::F16), expected);

    let options = RunnerOptions {
        device: RunnerDevice::cpu(),
        dtype: Dtype::F32,
        max_context: 100,
        max_batch_tokens: 64,
        kv_blocks: vec![7, 3],
        plain_ops: false,
    };
    let mut heard = Vec::new();
    let runner = CandleRunner::load(&gemma, options.clone(), &mut |done, total| heard.push((done, total))).unwrap();
    assert_eq!((heard[0], heard[heard.len() - 1]), ((0, 8), (8, 8)));
    let blocks: Vec<_> = runner.spec().groups.iter().map(|group| (group.kind, group.n_blocks)).collect();
    assert_eq!(blocks, [(CacheKind::Full, 7), (CacheKind::Window(8), 3)]);

    let load = |options| CandleRunner::load(&gemma, options, &mut |_, _| {}).unwrap_err().to_string();
    assert!(load(RunnerOptions { dtype: Dtype::Bf16, ..options.clone() }).contains("bf16 on the CPU"));
    assert!(load(RunnerOptions { kv_blocks: vec![7], ..options }).contains("1 groups for a model of 2"));
}
