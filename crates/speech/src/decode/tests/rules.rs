use super::{noise, rules};
use crate::decode::rng::Rng;
use crate::decode::rules::*;
use crate::testing::{EN, END, FIRST, NO_SPEECH, NO_TIMESTAMPS, START, TRANSCRIBE, at};
use crate::{Rules, SpeechError, Task};

const VOCAB: usize = FIRST as usize + 101;
const A: u32 = b'a' as u32;
const LAST: u32 = FIRST + 100;

/// The ids that may follow, where text and timestamps are equally likely one by one.
fn allowed(rules: &LogitRules, sampled: &[u32]) -> Vec<u32> {
    // Text is likelier than all timestamps together, so that none is forced.
    let mut logits = vec![0.0; VOCAB];
    logits[..FIRST as usize].fill(10.0);
    let allowed = rules.apply(sampled, &mut logits).unwrap();
    let ranges = allowed.ranges.iter().flat_map(Clone::clone);
    ranges.filter(|&id| logits[id] > f32::NEG_INFINITY).map(|id| id as u32).collect()
}

fn stamps(ids: &[u32]) -> Vec<u32> {
    ids.iter().copied().filter(|&id| id >= FIRST).collect()
}

#[test]
fn the_first_token_is_a_timestamp_of_the_first_second() {
    let first = allowed(&rules(|_| {}), &[]);
    assert_eq!(first, (FIRST..=FIRST + 50).collect::<Vec<_>>());
}

#[test]
fn an_opened_segment_needs_text() {
    let rules = rules(|_| {});
    for sampled in [&[at(20)][..], &[at(0), A, at(40), at(40)]] {
        let ids = allowed(&rules, sampled);
        assert!(stamps(&ids).is_empty());
        assert!(ids.contains(&A) && ids.contains(&END));
    }
}

#[test]
fn a_segment_that_was_closed_is_followed_by_a_timestamp_or_the_end() {
    let ids = allowed(&rules(|_| {}), &[at(0), A, at(40)]);
    assert!(!ids.contains(&A) && ids.contains(&END));
    // The next one may begin where this one ends.
    assert_eq!(stamps(&ids), (at(40)..=LAST).collect::<Vec<_>>());
}

#[test]
fn a_segment_ends_after_it_began() {
    let rules = rules(|_| {});
    let ids = allowed(&rules, &[at(40), A]);
    assert!(ids.contains(&A) && ids.contains(&END));
    assert_eq!(stamps(&ids), (at(42)..=LAST).collect::<Vec<_>>());
    let ids = allowed(&rules, &[at(0), A, at(40), at(60), A, A]);
    assert_eq!(stamps(&ids), (at(62)..=LAST).collect::<Vec<_>>());
    // Behind the last timestamp there is none.
    assert!(stamps(&allowed(&rules, &[at(0), A, LAST, LAST, A])).is_empty());
    assert_eq!(stamps(&allowed(&rules, &[at(0), A, LAST])), [LAST]);
}

#[test]
fn what_is_not_spoken_is_suppressed() {
    let ids = allowed(&rules(|_| {}), &[at(0)]);
    for token in [u32::from(b'['), START, TRANSCRIBE, 306, 308, 309, EN, NO_SPEECH, NO_TIMESTAMPS] {
        assert!(!ids.contains(&token), "{token}");
    }
    // transformers suppresses what the checkpoint says and no more.
    let ids = allowed(&rules(|options| options.rules = Rules::Transformers), &[at(0)]);
    assert!(!ids.contains(&u32::from(b'[')) && ids.contains(&START) && !ids.contains(&NO_TIMESTAMPS));
}

#[test]
fn a_window_without_timestamps_does_not_begin_with_a_blank() {
    let rules = rules(|options| (options.timestamps, options.task) = (false, Task::Transcribe));
    let first = allowed(&rules, &[]);
    assert!(!first.contains(&END) && !first.contains(&u32::from(b' ')) && first.contains(&A));
    let second = allowed(&rules, &[A]);
    assert!(second.contains(&END) && second.contains(&u32::from(b' ')));
}

#[test]
fn timestamps_that_are_likelier_together_than_any_text_are_forced() {
    let rules = rules(|_| {});
    let mut logits = vec![-30.0; VOCAB];
    logits[A as usize] = 1.0;
    // Four timestamps of e^0 each: ln 4 = 1.386 > 1.
    logits[at(60) as usize..at(68) as usize].fill(0.0);
    let forced = rules.apply(&[at(0), A], &mut logits.clone()).unwrap();
    assert_eq!(forced.best, at(60));
    assert!(forced.ranges[0].is_empty());
    assert!((forced.logprob(0.0) - 0.25f32.ln()).abs() < 1e-5);
    // Two of them are not enough.
    logits[at(64) as usize..at(68) as usize].fill(-30.0);
    let free = rules.apply(&[at(0), A], &mut logits).unwrap();
    assert_eq!(free.best, A);
    let sum = 1f32.exp() + 2.0;
    assert!((free.logprob(1.0) - (1f32.exp() / sum).ln()).abs() < 1e-5);
}

#[test]
fn applying_the_rules_again_changes_nothing() {
    let rules = rules(|_| {});
    let mut rng = Rng::new(5, [0; 3]);
    let mut logits = noise(&mut rng, VOCAB, 10.0);
    let first = rules.apply(&[at(0)], &mut logits).unwrap();
    assert_eq!(rules.apply(&[at(0)], &mut logits).unwrap(), first);
}

#[test]
fn logits_that_are_no_numbers_are_an_error() {
    let rules = rules(|_| {});
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let result = rules.apply(&[at(0), A], &mut vec![value; VOCAB]);
        assert!(matches!(result, Err(SpeechError::Network(_))), "{value}");
    }
    let mut one = vec![0.0; VOCAB];
    (one[6], one[7]) = (9.0, f32::NAN);
    assert!(rules.apply(&[at(0), A], &mut one).is_err());
}

#[test]
fn a_padded_vocabulary_has_no_more_timestamps() {
    // 20 ids behind the last timestamp.
    let network = crate::testing::Scripted::new(100, |_, _| {});
    let mut shape = crate::WhisperNetwork::shape(&network).clone();
    shape.vocab_size += 20;
    let options = crate::TranscribeOptions::default();
    let words = crate::testing::Words(Vec::new());
    let rules = LogitRules::new(&shape, &crate::testing::special_tokens(), &words, &options);
    let mut logits = vec![0.0; VOCAB + 20];
    logits[VOCAB..].fill(50.0);
    let allowed = rules.apply(&[at(0), A], &mut logits).unwrap();
    assert!((allowed.best as usize) < VOCAB && allowed.ranges[1].end == VOCAB);
}

/// Whatever the logits are, the tokens obey the rules, and the sum of probabilities is 1.
#[test]
fn random_logits_never_break_the_rules() {
    let rules = rules(|_| {});
    for seed in 0..60 {
        let mut rng = Rng::new(seed, [9; 3]);
        let spread = [2.0, 10.0, 60.0][seed as usize % 3];
        let mut sampled: Vec<u32> = Vec::new();
        while sampled.len() < 120 {
            let mut logits = noise(&mut rng, VOCAB, spread);
            let allowed = rules.apply(&sampled, &mut logits).unwrap();
            let probabilities =
                allowed.ranges.iter().flat_map(Clone::clone).map(|id| allowed.logprob(logits[id]).exp());
            assert!((probabilities.sum::<f32>() - 1.0).abs() < 1e-4);
            let token = if seed % 2 == 0 { allowed.best } else { allowed.draw(&logits, 0.8, rng.unit()) };
            if token == END {
                break;
            }
            sampled.push(token);
        }
        assert!(sampled[0] >= FIRST && sampled[0] <= FIRST + 50);
        let stamps: Vec<u32> = stamps(&sampled);
        assert!(stamps.is_sorted(), "{stamps:?}");
        // Opening and closing ones take turns, and text stands between them.
        let mut open = None;
        for (index, &token) in sampled.iter().enumerate() {
            match (token >= FIRST, open) {
                (true, None) => open = Some((token, index)),
                (true, Some((begin, at))) => {
                    assert!(token > begin && index > at + 1, "{sampled:?}");
                    open = None;
                }
                (false, None) => panic!("text outside of a segment: {sampled:?}"),
                (false, Some(_)) => {}
            }
        }
    }
}

/// In figures: `cargo test --release -p tsserve-speech how_long -- --ignored --nocapture`.
#[test]
#[ignore = "a timing, for release builds"]
fn how_long_a_row_of_a_real_vocabulary_takes() {
    let mut shape = crate::WhisperNetwork::shape(&crate::testing::Scripted::new(1500, |_, _| {})).clone();
    let mut tokens = crate::testing::special_tokens();
    (shape.vocab_size, tokens.first_timestamp, tokens.end_of_text) = (51_865, 50_364, 50_257);
    (tokens.suppressed, tokens.no_timestamps) = ((0..90).map(|i| i * 500).collect(), 50_363);
    let words = crate::testing::Words(Vec::new());
    let rules = LogitRules::new(&shape, &tokens, &words, &crate::TranscribeOptions::default());
    let mut rng = Rng::new(1, [0; 3]);
    let mut logits = noise(&mut rng, shape.vocab_size, 20.0);
    logits[100] = 15.0;
    let sampled = [50_364, 100, 200];
    let mut best = Vec::new();
    let mut time = |what: &str, run: &mut dyn FnMut(&Allowed, &mut [f32])| {
        let mut least = f64::INFINITY;
        for _ in 0..50 {
            let allowed = rules.apply(&sampled, &mut logits).unwrap();
            let start = std::time::Instant::now();
            run(&allowed, &mut logits);
            least = least.min(start.elapsed().as_secs_f64());
        }
        println!("{what}: {:.1} µs", least * 1e6);
        assert!(least < 0.02, "a row must not take longer than the network");
    };
    time("rules", &mut |_, logits| _ = rules.apply(&sampled, logits));
    time("best six", &mut |allowed, logits| allowed.top(logits, 6, &mut best));
    time("draw", &mut |allowed, logits| _ = allowed.draw(logits, 0.8, 0.7));
}
