//! A sequence's answer does not depend on who runs beside it, how its prompt is cut, or where its prefix came from.
//! With our own CPU operations not one bit of it does; candle's choose kernels by shape, so theirs are held to the
//! goldens' tolerance.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

mod runner;

use runner::{Golden, OPS, TINY, TestRunner, all_rows, assert_close, ids, json, last_row};
use tsserve_engine::{RowWant, TokenId};
use tsserve_models::BLOCK_SIZE;

fn assert_same(found: &[Vec<f32>], expected: &[Vec<f32>], plain_ops: bool, what: &str) {
    if plain_ops {
        assert_close(found, expected, what);
    } else {
        assert!(found == expected, "{what}: not the same bits");
    }
}

#[test]
fn a_batch_of_unequal_prompts_is_each_alone() {
    for name in TINY {
        let golden = Golden::load(&format!("golden/{name}.safetensors"));
        let prompts = ["a", "b", "c"].map(|prompt| golden.ids(&format!("{prompt}.input_ids")));
        for plain_ops in OPS {
            let mut model = TestRunner::tiny(name, plain_ops);
            let alone: Vec<_> = prompts.iter().map(|prompt| model.prompt_logits(prompt, usize::MAX)).collect();
            let mut sequences = prompts.each_ref().map(|_| model.sequence());
            let mut plans = Vec::new();
            for (sequence, prompt) in sequences.iter_mut().zip(&prompts) {
                plans.push(model.plan(sequence, prompt, all_rows(prompt.len(), &RowWant::Full)));
            }
            let mut rows = model.run(plans).into_iter().map(|row| row.logits);
            for (prompt, alone) in prompts.iter().zip(&alone) {
                let batched: Vec<_> = rows.by_ref().take(prompt.len()).collect();
                assert_same(&batched, alone, plain_ops, &format!("{name} plain={plain_ops}"));
            }
        }
    }
}

#[test]
fn a_prompt_in_chunks_is_the_whole_prompt() {
    for name in TINY {
        let golden = Golden::load(&format!("golden/{name}.safetensors"));
        let tokens = golden.ids("a.input_ids");
        for plain_ops in OPS {
            let mut model = TestRunner::tiny(name, plain_ops);
            let whole = model.prompt_logits(&tokens, usize::MAX);
            for chunk in 1..tokens.len() {
                let chunked = model.prompt_logits(&tokens, chunk);
                assert_same(&chunked, &whole, plain_ops, &format!("{name} chunks of {chunk} plain={plain_ops}"));
            }
        }
    }
}

#[test]
fn a_shared_prefix_is_as_good_as_a_cold_one() {
    for name in TINY {
        let golden = Golden::load(&format!("golden/{name}.safetensors"));
        let shared = json(&format!("golden/{name}.json"))["prompts"]["c"]["shared_prefix_with_a"].as_u64().unwrap();
        let shared = shared as usize / BLOCK_SIZE * BLOCK_SIZE;
        let (a, c) = (golden.ids("a.input_ids"), golden.ids("c.input_ids"));
        assert!(shared > 0 && a[..shared] == c[..shared]);
        for plain_ops in OPS {
            let mut model = TestRunner::tiny(name, plain_ops);
            let cold = model.prompt_logits(&c, usize::MAX);
            let mut first = model.sequence();
            model.logits(&mut first, &a);
            let mut second = model.fork(&first, shared);
            let hit = model.logits(&mut second, &c[shared..]);
            assert_same(&hit, &cold[shared..], plain_ops, &format!("{name} plain={plain_ops}"));
            // The sequence that was there first goes on undisturbed.
            let next = model.logits(&mut first, &c[..1]);
            let mut undisturbed = a.clone();
            undisturbed.push(c[0]);
            let expected = model.prompt_logits_beside(&undisturbed);
            assert_same(&next, &expected[a.len()..], plain_ops, &format!("{name} after the fork plain={plain_ops}"));
        }
    }
}

/// Sixteen sequences that come and go: prompts in chunks beside decodes, one preempted and computed again, window blocks
/// freed and given to others. Each answer is the one it gets alone.
#[test]
fn sixteen_sequences_answer_as_each_does_alone() {
    for name in TINY {
        let facts = json(&format!("golden/{name}.json"));
        let base: Vec<Vec<TokenId>> =
            facts["prompts"].as_object().unwrap().values().map(|prompt| ids(&prompt["input_ids"])).collect();
        // Sixteen different prompts: cuts of the four.
        let prompts: Vec<Vec<TokenId>> =
            (0..16).map(|i| base[i % 4][i / 4..(base[i % 4].len() - i).max(i / 4 + 1)].to_vec()).collect();
        for plain_ops in OPS {
            let mut model = TestRunner::tiny(name, plain_ops);
            let alone: Vec<_> = prompts.iter().map(|prompt| model.greedy(prompt, 12)).collect();
            let together = serve(&mut model, &prompts, 12);
            assert_eq!(together, alone, "{name} plain={plain_ops}");
        }
    }
}

fn serve(model: &mut TestRunner, prompts: &[Vec<TokenId>], n: usize) -> Vec<Vec<TokenId>> {
    let free_before = model.n_free();
    let mut answers = vec![Vec::new(); prompts.len()];
    let mut running: Vec<_> = prompts.iter().map(|_| Some(model.sequence())).collect();
    let mut step = 0;
    while answers.iter().any(|answer| answer.len() < n) {
        step += 1;
        if step == 6 {
            // Preempt: its blocks go to others, and it starts again from nothing.
            if let Some(sequence) = running[3].take() {
                model.drop_sequence(sequence);
            }
            running[3] = Some(model.sequence());
        }
        let mut plans = Vec::new();
        let mut asked = Vec::new();
        for (i, prompt) in prompts.iter().enumerate() {
            // One more sequence arrives with every step.
            let Some(sequence) = running[i].as_mut().filter(|_| i < step) else { continue };
            let tokens: Vec<TokenId> = prompt.iter().chain(&answers[i]).copied().collect();
            let to = tokens.len().min(sequence.n_computed + 7 + i);
            let part = &tokens[sequence.n_computed..to];
            let done = to == tokens.len();
            let outputs = if done { last_row(part.len(), RowWant::ArgMax) } else { Vec::new() };
            plans.push(model.plan(sequence, part, outputs));
            if done {
                asked.push(i);
            }
        }
        let rows = model.run(plans);
        for (i, row) in asked.into_iter().zip(rows) {
            answers[i].push(row.candidates[0].0);
        }
        for (i, slot) in running.iter_mut().enumerate() {
            if let Some(sequence) = slot {
                model.free_out_of_window(sequence);
            }
            if answers[i].len() == n
                && let Some(sequence) = slot.take()
            {
                model.drop_sequence(sequence);
            }
        }
    }
    assert_eq!(model.n_free(), free_before);
    answers
}

#[test]
fn a_plan_that_does_not_fit_is_an_error_and_harms_nobody() {
    use tsserve_engine::{ModelRunner, RunnerError, StepPlan};
    let mut model = TestRunner::tiny("llama", false);
    let mut sequence = model.sequence();
    let before = model.logits(&mut sequence, &[1, 2, 3]);
    let mut bad = model.plan(&mut sequence, &[4], last_row(1, RowWant::ArgMax));
    bad.tokens[0] = 100_000;
    let error = model.runner.run(&StepPlan { sequences: vec![bad] }).unwrap_err();
    assert!(matches!(error, RunnerError::Plan(_)), "{error}");
    assert_eq!(model.runner.run(&StepPlan::default()).unwrap().rows, []);
    let mut again = model.sequence();
    assert_eq!(model.logits(&mut again, &[1, 2, 3]), before);
}
