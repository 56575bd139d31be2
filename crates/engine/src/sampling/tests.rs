use std::sync::Arc;

use super::*;
use crate::TokenSet;
use crate::testing::answer;

mod golden;

fn params(temperature: f32, top_k: usize, top_p: f32, min_p: f32) -> SamplingParams {
    SamplingParams { temperature, top_k, top_p, min_p, ..SamplingParams::default() }
}

/// One position of a sequence: what `Context` borrows.
struct Position {
    params: SamplingParams,
    history: History,
    tokens: Vec<TokenId>,
    n_generated: usize,
    end_tokens: Vec<TokenId>,
}

impl Position {
    /// At the start of an answer, where nothing is known.
    fn of(params: &SamplingParams) -> Self {
        Self::after(params, &[], &[], &[])
    }

    fn after(params: &SamplingParams, prompt: &[TokenId], generated: &[TokenId], end_tokens: &[TokenId]) -> Self {
        let mut history = History::new(params, prompt);
        let tokens = [prompt, generated].concat();
        (prompt.len() + 1..=tokens.len()).for_each(|n| history.push(&tokens[..n]));
        let (n_generated, end_tokens) = (generated.len(), end_tokens.to_vec());
        Self { params: params.clone(), history, tokens, n_generated, end_tokens }
    }

    fn context(&self) -> Context<'_> {
        let Self { params, history, tokens, n_generated, end_tokens } = self;
        Context { params, history, tokens, n_generated: *n_generated, end_tokens }
    }
}

fn want(params: &SamplingParams, logprobs: Option<usize>, whole_row: bool) -> RowWant {
    super::want(&Position::of(params).context(), &Next::Free, logprobs, whole_row)
}

fn sample(
    params: &SamplingParams,
    logprobs: Option<usize>,
    vocab_size: usize,
    rng: &mut Rng,
    row: &RowResult,
) -> Result<Option<TokenOutput>, SampleError> {
    super::sample(&Position::of(params).context(), &Mask::Free, logprobs, vocab_size, rng, row)
}

/// The token chosen from a whole row within a mask.
fn choose(position: &Position, mask: &Mask, logits: &[f32]) -> Result<TokenId, SampleError> {
    let chosen = super::sample(&position.context(), mask, None, logits.len(), &mut Rng::new(1), &full(logits));
    chosen.map(|output| output.unwrap().token)
}

fn rows(logits: &[f32]) -> Vec<(TokenId, f32)> {
    (0..).zip(logits.iter().copied()).collect()
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

struct Case {
    name: String,
    position: Position,
    logits: Vec<f32>,
    /// transformers' name, and the logits behind it.
    steps: Vec<(String, Vec<f32>)>,
    probs: Vec<f32>,
    argmax: u32,
}

#[test]
fn a_few_logits_are_changed_as_all_are() {
    let params = SamplingParams {
        sequence_bias: [(Box::from([3]), 1.5), (Box::from([9, 5]), -4.0)].into(),
        repetition_penalty: 1.3,
        frequency_penalty: 0.4,
        no_repeat_ngram_size: 2,
        bad_words: [Box::from([2])].into(),
        suppress_tokens: [0].into(),
        // Not greedy, which looks at the best only.
        ..params(1.0, 0, 1.0, 0.0)
    };
    let position = Position::after(&params, &[5, 7, 5, 9], &[7, 3, 9], &[]);
    let logits = [0.5, -1.0, 3.0, 2.0, 1.0, 2.5, -0.5, 1.5, 0.25, 2.75];
    let allowed: Arc<[TokenId]> = [0, 2, 3, 5, 7, 9].into();
    let whole =
        left_over(&position.context(), &Mask::Many(Arc::new(allowed.iter().copied().collect())), &full(&logits));
    let few = Mask::Few(allowed.clone());
    let of_full_row = left_over(&position.context(), &few, &full(&logits));
    let row = answer(&RowWant::Allowed(allowed.clone()), logits.to_vec());
    assert_eq!(whole.as_ref().unwrap(), left_over(&position.context(), &few, &row).as_ref().unwrap());
    assert_eq!(whole, of_full_row);
    // The same token with the same log-probabilities, whether the row shows all logits or no more than is asked for.
    let described = |row: &RowResult| {
        super::sample(&position.context(), &few, Some(2), logits.len(), &mut Rng::new(5), row).unwrap().unwrap()
    };
    let asked = super::want(&position.context(), &Next::Few(allowed.clone()), Some(2), false);
    let (short, long) = (described(&answer(&asked, logits.to_vec())), described(&full(&logits)));
    assert_eq!((short.token, short.top.len()), (long.token, 2));
    let close = |a: f32, b: f32| (a - b).abs() < 1e-6;
    assert!(close(short.logprob.unwrap(), long.logprob.unwrap()), "{short:?} {long:?}");
    assert!(short.top.iter().zip(&long.top).all(|(a, b)| a.0 == b.0 && close(a.1, b.1)), "{short:?} {long:?}");
    // Only of its size is a row that answers the question.
    let short = RowResult { chosen: vec![1.0], ..RowResult::default() };
    assert_eq!(left_over(&position.context(), &few, &short), Err(SampleError::RowMismatch));
}

#[test]
fn what_must_be_matched_goes_before_what_was_to_be_avoided() {
    let forbids = SamplingParams {
        suppress_tokens: [1, 2].into(),
        min_new_tokens: 5,
        repetition_penalty: 4.0,
        ..params(0.0, 0, 1.0, 0.0)
    };
    let position = Position::after(&forbids, &[2], &[], &[3]);
    let logits = [9.0, 1.0, 2.0, 8.0, 0.5];
    let few = |ids: &[TokenId]| Mask::Few(ids.into());
    assert_eq!(choose(&position, &Mask::Free, &logits), Ok(0));
    assert_eq!(choose(&position, &few(&[1, 3, 4]), &logits), Ok(4));
    // Nothing else is left: the ban goes, the penalty stays.
    assert_eq!(choose(&position, &few(&[1, 2]), &logits), Ok(1));
    assert_eq!(choose(&position, &few(&[3]), &logits), Ok(3));
    let set = |ids: &[TokenId]| Mask::Many(Arc::new(ids.iter().copied().collect::<TokenSet>()));
    assert_eq!(choose(&position, &set(&[1, 2, 3]), &logits), Ok(3));
    assert_eq!(choose(&position, &set(&[]), &logits), Err(SampleError::NotFinite));
    // Without a mask nothing may lift a ban.
    let all = SamplingParams { suppress_tokens: [0, 1, 2, 3, 4].into(), ..forbids };
    assert_eq!(choose(&Position::of(&all), &Mask::Free, &logits), Err(SampleError::NothingLeft));
    assert_eq!(choose(&Position::of(&all), &Mask::Free, &[f32::NEG_INFINITY; 5]), Err(SampleError::NotFinite));
}

#[test]
fn bans_end_when_their_time_is_over() {
    let params = SamplingParams {
        min_new_tokens: 2,
        begin_suppress_tokens: [0].into(),
        bad_words: [Box::from([3]), Box::from([1])].into(),
        ..params(0.0, 0, 1.0, 0.0)
    };
    let logits = [7.0, 5.0, 4.0, 6.0];
    // Token 3 ends the answer, so as a bad word it is passed over.
    let at = |generated: &[TokenId]| choose(&Position::after(&params, &[2], generated, &[3]), &Mask::Free, &logits);
    assert_eq!(at(&[]), Ok(2));
    assert_eq!(at(&[2]), Ok(0));
    let lower = [1.0, 5.0, 4.0, 6.0];
    let later = |generated: &[TokenId]| choose(&Position::after(&params, &[2], generated, &[3]), &Mask::Free, &lower);
    assert_eq!(later(&[2]), Ok(2));
    assert_eq!(later(&[2, 2]), Ok(3));
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
    assert_eq!(
        want(&SamplingParams { repetition_penalty: 1.1, ..SamplingParams::default() }, None, false),
        RowWant::Full
    );
    // Nothing is in force any more, or not yet.
    let position = |params: &SamplingParams, n: usize| Position::after(params, &[1], &vec![2; n], &[3]);
    let at = |params: &SamplingParams, n| super::want(&position(params, n).context(), &Next::Free, None, false);
    let begin = SamplingParams { begin_suppress_tokens: [4].into(), min_new_tokens: 2, ..SamplingParams::default() };
    assert_eq!((at(&begin, 0), at(&begin, 1), at(&begin, 2)), (RowWant::Full, RowWant::Full, RowWant::ArgMax));
    let few = Next::Few([1, 5].into());
    let greedy = position(&SamplingParams::default(), 0);
    assert_eq!(super::want(&greedy.context(), &few, None, true), RowWant::Allowed([1, 5].into()));
    let with_logprobs = |n| super::want(&greedy.context(), &few, Some(n), false);
    assert_eq!(with_logprobs(0), RowWant::TopK { k: 1, chosen: vec![1, 5] });
    assert_eq!(with_logprobs(7), RowWant::TopK { k: 7, chosen: vec![1, 5] });
    assert_eq!(super::want(&greedy.context(), &Next::Many, None, false), RowWant::Full);
}

#[test]
fn of_equal_logits_greedy_takes_the_first() {
    let logits = [1.0, 5.0, 5.0, 0.0, 5.0];
    let output = sample_as_asked(&params(0.0, 0, 1.0, 0.0), Some(3), &mut Rng::new(0), &logits);
    assert_eq!(output.token, 1);
    assert_eq!(output.top.iter().map(|t| t.0).collect::<Vec<_>>(), [1, 2, 4]);
    assert_eq!(first_maximum(&rows(&logits)), Ok(1));
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
        let kept = filter(&sampling, scale(sampling.temperature, rows(&logits)).unwrap());
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

#[test]
fn a_shortlist_is_what_top_k_leaves() {
    let mut source = Rng::new(9);
    for round in 0..300 {
        let levels = [5.0, 60.0, 1e7][round % 3];
        let logits: Vec<f32> =
            (0..200).map(|_| (source.next_f64() * levels).floor() as f32 * 20.0 / levels as f32 - 10.0).collect();
        let (k, temperature) = (1 + round % 70, [0.3, 1.0, 50.0][round / 3 % 3]);
        let params = params(temperature, k, 0.9, 0.01);
        let short = best_with_ties(&logits, k, temperature).unwrap();
        let whole = filter(&params, scale(temperature, rows(&logits)).unwrap());
        assert_eq!(filter(&params, scale(temperature, short).unwrap()), whole, "{params:?}");
    }
    assert_eq!(best_with_ties(&[1.0, f32::NAN], 1, 1.0), Err(SampleError::NotFinite));
    assert_eq!(best_with_ties(&[1.0, 3.0, 3.0], 1, 0.0), Ok(vec![(1, 3.0), (2, 3.0)]));
}

/// What a choice costs with a large vocabulary, in microseconds: `cargo test --release -- --ignored --nocapture costs`.
#[test]
#[ignore = "prints figures"]
fn costs() {
    let n = 151_936;
    let mut source = Rng::new(1);
    let logits: Vec<f32> = (0..n).map(|_| (source.next_f64() * 20.0 - 10.0) as f32).collect();
    let prompt: Vec<TokenId> = (0..2000).map(|_| (source.next_f64() * n as f64) as TokenId).collect();
    let penalties = SamplingParams { repetition_penalty: 1.1, ..SamplingParams::default() };
    let cases = [
        ("greedy", penalties.clone()),
        ("top-k 20, top-p 0.8", SamplingParams { temperature: 0.7, top_k: 20, top_p: 0.8, ..penalties.clone() }),
        ("top-p 0.9", SamplingParams { temperature: 0.7, top_p: 0.9, ..penalties.clone() }),
        ("all", SamplingParams { temperature: 1.0, ..penalties }),
    ];
    let most: Arc<TokenSet> = Arc::new((0..n as TokenId).filter(|id| id % 50 > 0).collect());
    for (name, params) in cases {
        let position = Position::after(&params, &prompt, &[], &[]);
        for mask in [Mask::Free, Mask::Many(most.clone())] {
            let begun = std::time::Instant::now();
            for _ in 0..50 {
                super::sample(&position.context(), &mask, None, n, &mut Rng::new(1), &full(&logits)).unwrap();
            }
            println!("{name}, masked {}: {} us", mask != Mask::Free, begun.elapsed().as_micros() / 50);
        }
    }
}
