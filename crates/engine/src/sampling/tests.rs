use super::*;
use crate::testing::answer;

fn params(temperature: f32, top_k: usize, top_p: f32, min_p: f32) -> SamplingParams {
    SamplingParams { temperature, top_k, top_p, min_p, seed: 0 }
}

fn full(logits: &[f32]) -> RowResult {
    RowResult { logits: logits.to_vec(), log_sum_exp: f32::NAN, ..RowResult::default() }
}

/// Samples as the engine does: by what the row asks for, and the whole row if that could not tell.
fn sample_as_asked(params: &SamplingParams, logprobs: Option<usize>, rng: &mut Rng, logits: &[f32]) -> TokenOutput {
    let row = answer(&want(params, logprobs, false), logits.to_vec());
    match sample(params, logprobs, logits.len(), rng, &row).unwrap() {
        Some(output) => output,
        None => {
            let row = answer(&want(params, logprobs, true), logits.to_vec());
            sample(params, logprobs, logits.len(), rng, &row).unwrap().unwrap()
        }
    }
}

#[derive(Debug)]
struct Case {
    name: String,
    params: SamplingParams,
    logits: Vec<f32>,
    probs: Vec<f32>,
    argmax: u32,
}

/// The cases of the golden file that use no processor but ours.
fn golden_cases() -> Vec<Case> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/golden/sampling.json");
    let file: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let floats = |value: &serde_json::Value| -> Vec<f32> {
        value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
    };
    let ours = ["do_sample", "temperature", "top_k", "top_p", "min_p"];
    let cases = file["cases"].as_array().unwrap().iter();
    let supported = cases.filter(|case| case["params"].as_object().unwrap().keys().all(|k| ours.contains(&k.as_str())));
    supported
        .map(|case| {
            let given = &case["params"];
            let number = |name: &str, default: f64| given[name].as_f64().unwrap_or(default) as f32;
            let temperature = if given["do_sample"] == true { number("temperature", 1.0) } else { 0.0 };
            Case {
                name: case["name"].as_str().unwrap().into(),
                params: params(temperature, number("top_k", 0.0) as usize, number("top_p", 1.0), number("min_p", 0.0)),
                logits: floats(&case["logits"]),
                probs: floats(&case["probs"]),
                argmax: case["argmax"].as_u64().unwrap() as u32,
            }
        })
        .collect()
}

#[test]
fn filters_leave_the_distribution_of_transformers() {
    let cases = golden_cases();
    assert!(cases.len() >= 19, "only {} cases", cases.len());
    for case in cases {
        let mut rng = Rng::new(1);
        if case.params.temperature == 0.0 {
            assert_eq!(sample_as_asked(&case.params, None, &mut rng, &case.logits).token, case.argmax, "{}", case.name);
            continue;
        }
        let scaled = scale(case.params.temperature, (0..).zip(case.logits.iter().copied())).unwrap();
        let kept = filter(&case.params, scaled);
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
fn candidates_and_the_whole_row_draw_the_same_token() {
    let mut source = Rng::new(3);
    for round in 0..400 {
        // Few levels make ties at the k-th and beyond the slack.
        let levels = [3.0, 40.0, 1e6][round % 3];
        let logits: Vec<f32> =
            (0..120).map(|_| (source.next_f64() * levels).floor() as f32 * 9.0 / levels as f32).collect();
        let params = params(0.7, 1 + round % 60, [1.0, 0.8][round % 2], [0.0, 0.05][round / 2 % 2]);
        let (mut a, mut b) = (Rng::new(round as u64), Rng::new(round as u64));
        let whole = sample(&params, Some(5), logits.len(), &mut a, &full(&logits)).unwrap().unwrap();
        let asked = sample_as_asked(&params, Some(5), &mut b, &logits);
        assert_eq!((whole.token, &a), (asked.token, &b), "{params:?}");
        assert!((whole.logprob.unwrap() - asked.logprob.unwrap()).abs() < 1e-5);
        assert_eq!(
            whole.top.iter().map(|t| t.0).collect::<Vec<_>>(),
            asked.top.iter().map(|t| t.0).collect::<Vec<_>>()
        );
    }
}

#[test]
fn rows_ask_for_no_more_than_they_need() {
    assert_eq!(want(&params(0.0, 0, 1.0, 0.0), None, false), RowWant::ArgMax);
    assert_eq!(want(&params(0.0, 0, 1.0, 0.0), Some(0), false), RowWant::TopK { k: 1, chosen: vec![] });
    assert_eq!(want(&params(0.0, 0, 1.0, 0.0), Some(7), false), RowWant::TopK { k: 7, chosen: vec![] });
    assert_eq!(want(&params(1.0, 40, 1.0, 0.0), None, false), RowWant::TopK { k: 56, chosen: vec![] });
    assert_eq!(want(&params(1.0, 1, 1.0, 0.0), Some(20), false), RowWant::TopK { k: 20, chosen: vec![] });
    assert_eq!(want(&params(1.0, 40, 1.0, 0.0), None, true), RowWant::Full);
    assert_eq!(want(&params(1.0, 0, 0.9, 0.0), None, false), RowWant::Full);
}

#[test]
fn of_equal_logits_greedy_takes_the_first() {
    let logits = [1.0, 5.0, 5.0, 0.0, 5.0];
    let output = sample_as_asked(&params(0.0, 0, 1.0, 0.0), Some(3), &mut Rng::new(0), &logits);
    assert_eq!(output.token, 1);
    assert_eq!(output.top.iter().map(|t| t.0).collect::<Vec<_>>(), [1, 2, 4]);
    assert_eq!(first_maximum(&full(&logits)), Ok(1));
}

#[test]
fn logprobs_are_those_of_the_raw_row() {
    let logits = [0.0, 1.0, 2.0, -3.0];
    let total: f32 = logits.iter().map(|l: &f32| l.exp()).sum();
    for sampling in [params(0.0, 0, 1.0, 0.0), params(0.01, 2, 0.5, 0.1), params(0.01, 0, 0.5, 0.0)] {
        let output = sample_as_asked(&sampling, Some(2), &mut Rng::new(0), &logits);
        assert_eq!(output.token, 2);
        assert!((output.logprob.unwrap() - (2.0 - total.ln())).abs() < 1e-6);
        assert_eq!(output.top.len(), 2);
        assert!((output.top[1].1 - (1.0 - total.ln())).abs() < 1e-6);
    }
}

#[test]
fn rows_that_are_not_numbers_fail() {
    let mut rng = Rng::new(0);
    for bad in [f32::NAN, f32::INFINITY] {
        for sampling in [params(1.0, 0, 1.0, 0.0), params(1.0, 2, 1.0, 0.0)] {
            let row = full(&[0.0, bad, 1.0]);
            assert_eq!(sample(&sampling, None, 3, &mut rng, &row), Err(SampleError::NotFinite));
        }
    }
    let row = full(&[f32::NEG_INFINITY; 3]);
    assert_eq!(sample(&params(1.0, 0, 1.0, 0.0), None, 3, &mut rng, &row), Err(SampleError::NotFinite));
    assert_eq!(sample(&params(0.0, 0, 1.0, 0.0), None, 3, &mut rng, &row), Err(SampleError::NotFinite));
    let empty = RowResult::default();
    assert_eq!(sample(&params(0.0, 0, 1.0, 0.0), None, 3, &mut rng, &empty), Err(SampleError::RowMismatch));
    assert_eq!(sample(&params(1.0, 2, 1.0, 0.0), None, 3, &mut rng, &empty), Err(SampleError::RowMismatch));
}

#[test]
fn extreme_temperatures_stay_finite() {
    let logits = [300.0, 299.0, -1e30];
    for temperature in [f32::MIN_POSITIVE, 1e-20, 1e-3] {
        let output = sample_as_asked(&params(temperature, 0, 1.0, 0.0), None, &mut Rng::new(5), &logits);
        assert_eq!(output.token, 0);
    }
}

/// Pearson's test of 200,000 draws: the statistic stays below the 99.99 % quantile.
#[test]
fn draws_follow_the_distribution() {
    let logits = [0.3, -1.0, 2.0, 0.9, 1.4, -0.2, 0.0, 1.1];
    // (filters, 0.9999 quantile of chi-square for the kept tokens less one)
    for (sampling, limit) in
        [(params(1.0, 0, 1.0, 0.0), 29.88), (params(0.6, 5, 1.0, 0.0), 23.51), (params(1.7, 0, 0.8, 0.0), 25.75)]
    {
        let kept = filter(&sampling, scale(sampling.temperature, (0..).zip(logits)).unwrap());
        let total: f64 = kept.iter().map(|&(_, weight)| f64::from(weight)).sum();
        let mut rng = Rng::new(42);
        let mut counts = [0u32; 8];
        let n = 200_000;
        for _ in 0..n {
            counts[sample_as_asked(&sampling, None, &mut rng, &logits).token as usize] += 1;
        }
        let statistic: f64 = kept.iter().fold(0.0, |sum, &(id, weight)| {
            let expected = f64::from(n) * f64::from(weight) / total;
            sum + (f64::from(counts[id as usize]) - expected).powi(2) / expected
        });
        assert!(statistic < limit, "{sampling:?}: {statistic} over {} tokens", kept.len());
        let drawn: u32 = kept.iter().map(|&(id, _)| counts[id as usize]).sum();
        assert_eq!(drawn, n as u32, "{sampling:?} drew a token that was removed");
    }
}

#[test]
fn prompt_rows_report_the_prompts_own_token() {
    let logits = vec![0.0, 1.0, 2.0, -3.0];
    let row = answer(&RowWant::TopK { k: 1, chosen: vec![3] }, logits.clone());
    let output = describe_prompt(3, 1, &row).unwrap();
    assert_eq!((output.token, output.top[0].0), (3, 2));
    assert!((output.logprob.unwrap() - (-3.0 - log_sum_exp(&logits))).abs() < 1e-6);
    assert!(describe_prompt(3, 0, &row).unwrap().top.is_empty());
    assert_eq!(describe_prompt(3, 1, &RowResult::default()), Err(SampleError::RowMismatch));
}
