//! Against transformers, step by step: fixtures/golden/sampling.json.

use super::*;

/// What `generate` has and we have not.
const ELSEWHERE: [&str; 3] = ["forced_eos_token_id", "exponential_decay_length_penalty", "renormalize_logits"];

fn golden() -> serde_json::Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/golden/sampling.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// null is minus infinity.
fn floats(value: &serde_json::Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().map_or(f32::NEG_INFINITY, |x| x as f32)).collect()
}

fn ids(value: &serde_json::Value) -> Vec<TokenId> {
    value.as_array().map(|ids| ids.iter().map(|id| id.as_u64().unwrap() as TokenId).collect()).unwrap_or_default()
}

fn list(value: &serde_json::Value) -> &[serde_json::Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn golden_params(given: &serde_json::Value) -> SamplingParams {
    let number = |name: &str, default: f64| given[name].as_f64().unwrap_or(default) as f32;
    let bias = |entry: &serde_json::Value| (ids(&entry["tokens"]).into(), entry["bias"].as_f64().unwrap() as f32);
    SamplingParams {
        sequence_bias: list(&given["sequence_bias"]).iter().map(bias).collect(),
        repetition_penalty: number("repetition_penalty", 1.0),
        presence_penalty: number("presence_penalty", 0.0),
        frequency_penalty: number("frequency_penalty", 0.0),
        no_repeat_ngram_size: number("no_repeat_ngram_size", 0.0) as usize,
        bad_words: list(&given["bad_words_ids"]).iter().map(|run| ids(run).into()).collect(),
        min_new_tokens: number("min_new_tokens", 0.0) as usize,
        suppress_tokens: ids(&given["suppress_tokens"]).into(),
        begin_suppress_tokens: ids(&given["begin_suppress_tokens"]).into(),
        temperature: if given["do_sample"] == true { number("temperature", 1.0) } else { 0.0 },
        top_k: number("top_k", 0.0) as usize,
        top_p: number("top_p", 1.0),
        min_p: number("min_p", 0.0),
        typical_p: number("typical_p", 1.0),
        epsilon_cutoff: number("epsilon_cutoff", 0.0),
        eta_cutoff: number("eta_cutoff", 0.0),
        seed: 0,
    }
}

fn golden_cases() -> Vec<Case> {
    let file = golden();
    let eos = file["eos_token_id"].as_u64().unwrap() as TokenId;
    let ours = |case: &&serde_json::Value| !ELSEWHERE.iter().any(|name| !case["params"][name].is_null());
    let case = |case: &serde_json::Value| Case {
        name: case["name"].as_str().unwrap().into(),
        position: Position::after(
            &golden_params(&case["params"]),
            &ids(&case["prompt_ids"]),
            &ids(&case["generated_ids"]),
            &[eos],
        ),
        logits: floats(&case["logits"]),
        steps: list(&case["steps"])
            .iter()
            .map(|step| (step["name"].as_str().unwrap().to_owned(), floats(&step["logits"])))
            .collect(),
        probs: floats(&case["probs"]),
        argmax: case["argmax"].as_u64().unwrap() as u32,
    };
    list(&file["cases"]).iter().filter(ours).map(case).collect()
}

/// The parameters with the filters behind the named one taken out; `None` if it is no filter.
fn up_to(params: &SamplingParams, name: &str) -> Option<SamplingParams> {
    let filters = ["Temperature", "TopK", "TopP", "MinP", "Typical", "Epsilon", "Eta"];
    let at = filters.iter().position(|filter| name == format!("{filter}LogitsWarper"))?;
    let off = SamplingParams::default();
    let mut params = params.clone();
    if at < 1 {
        params.top_k = off.top_k;
    }
    if at < 2 {
        params.top_p = off.top_p;
    }
    if at < 3 {
        params.min_p = off.min_p;
    }
    if at < 4 {
        params.typical_p = off.typical_p;
    }
    if at < 5 {
        params.epsilon_cutoff = off.epsilon_cutoff;
    }
    if at < 6 {
        params.eta_cutoff = off.eta_cutoff;
    }
    Some(params)
}

#[test]
fn every_step_leaves_the_logits_of_transformers() {
    let cases = golden_cases();
    assert_eq!(cases.len(), 38);
    let (mut n_processed, mut n_filtered) = (0, 0);
    for case in &cases {
        let context = case.position.context();
        let params = &case.position.params;
        let mut row = Row::Whole(case.logits.clone());
        let mut active = processors::PROCESSORS.iter().filter(|p| (p.is_active)(&context)).peekable();
        for (name, expected) in case.steps.iter().filter(|(name, _)| up_to(params, name).is_none()) {
            // One that has nothing to do here leaves the row as it was.
            if let Some(processor) = active.next_if(|processor| processor.name == *name) {
                (processor.apply)(&context, &mut row);
            }
            let Row::Whole(logits) = &row else { panic!("{row:?}") };
            for ((id, ours), theirs) in rows(logits).into_iter().zip(expected) {
                let near = ours == *theirs || (ours - theirs).abs() < 1e-5;
                assert!(near, "{}, {name}, token {id}: {ours} is not {theirs}", case.name);
            }
            n_processed += 1;
        }
        assert!(active.next().is_none(), "{}: a step of ours is not one of theirs", case.name);
        for (name, expected) in &case.steps {
            let Some(params) = up_to(params, name) else { continue };
            let left = row.left();
            let scaled = scale(params.temperature, left.clone()).unwrap();
            let kept: Vec<_> = filter(&params, scaled).iter().filter(|kept| kept.1 > 0.0).map(|kept| kept.0).collect();
            let theirs: Vec<_> = rows(expected).iter().filter(|l| l.1.is_finite()).map(|l| l.0).collect();
            assert_eq!(kept, theirs, "{}, {name}", case.name);
            for (id, logit) in left.into_iter().filter(|(id, _)| kept.contains(id)) {
                let ours = logit / params.temperature;
                assert!((ours - expected[id as usize]).abs() < 1e-4, "{}, {name}, token {id}: {ours}", case.name);
            }
            n_filtered += 1;
        }
    }
    assert!(n_processed >= 17 && n_filtered >= 30, "{n_processed} processors and {n_filtered} filters");
}

#[test]
fn the_distribution_left_is_that_of_transformers() {
    for case in golden_cases() {
        let Position { params, .. } = &case.position;
        let context = case.position.context();
        if params.temperature == 0.0 {
            let row = answer(&super::super::want(&context, &Next::Free, None, false), case.logits.clone());
            let output = super::super::sample(&context, &Mask::Free, None, case.logits.len(), &mut Rng::new(1), &row);
            assert_eq!(output.unwrap().unwrap().token, case.argmax, "{}", case.name);
            continue;
        }
        let left = left_over(&context, &Mask::Free, &full(&case.logits)).unwrap();
        let kept = filter(params, scale(params.temperature, left).unwrap());
        let total: f32 = kept.iter().map(|(_, weight)| weight).sum();
        let mut probs = vec![0.0; case.logits.len()];
        kept.iter().for_each(|&(id, weight)| probs[id as usize] = weight / total);
        for (id, (ours, theirs)) in probs.iter().zip(&case.probs).enumerate() {
            assert!((ours - theirs).abs() < 1e-5, "{}, token {id}: {ours} is not {theirs}", case.name);
            assert_eq!(*ours == 0.0, *theirs == 0.0, "{}, token {id}", case.name);
        }
    }
}

#[test]
fn openai_penalties_follow_the_formula() {
    let file = golden();
    let cases = list(&file["openai_penalties"]);
    assert!(cases.len() >= 3);
    for case in cases {
        let params = golden_params(case);
        let position = Position::after(&params, &ids(&case["prompt_ids"]), &ids(&case["generated_ids"]), &[]);
        let mut row = Row::Whole(floats(&case["logits"]));
        processors::apply(&position.context(), true, &mut row);
        for ((id, ours), theirs) in row.left().into_iter().zip(floats(&case["logits_after"])) {
            assert!((ours - theirs).abs() < 1e-5, "{}, token {id}: {ours} is not {theirs}", case["name"]);
        }
    }
}
