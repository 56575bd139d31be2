use std::collections::HashMap;

use super::rules;
use crate::decode::beam::Beams;
use crate::decode::rng::Rng;
use crate::decode::search::{Answer, Draws, Search};
use crate::decode::{Prefilled, run};
use crate::network::DecodeRow;
use crate::session::Session;
use crate::testing::{Asked, END, FIRST, Scripted};

const VOCAB: usize = FIRST as usize + 101;
const A: u32 = b'a' as u32;

/// Logits of a network whose tokens depend on all before them: `a` to `d` and the end, the others hardly.
fn babble(asked: &Asked<'_>, logits: &mut [f32]) {
    let seed = asked.tokens.iter().fold(17u64, |seed, &token| seed.wrapping_mul(31).wrapping_add(u64::from(token)));
    let mut rng = Rng::new(seed, [0; 3]);
    logits.fill(-40.0);
    for token in A..A + 4 {
        logits[token as usize] = rng.unit() as f32 * 3.0;
    }
    logits[END as usize] = rng.unit() as f32 * 3.0;
}

/// Runs one search in a window after the prompt `[1, 2]`.
fn answer(network: &mut Scripted<'_>, make: impl FnOnce(&mut Session<'_>, &Prefilled) -> Search) -> Answer {
    let rules = rules(|options| options.timestamps = false);
    let mut session = Session::new(network, &|| false);
    let audio = session.encode(&vec![0.0; 2 * 200]).unwrap()[0];
    let cache = session.take_cache().unwrap();
    let mut logits = Vec::new();
    session.decode(&[DecodeRow { audio, cache, tokens: &[1, 2], wanted: &[1] }], &mut logits).unwrap();
    let mut prefilled = Prefilled { audio, cache, len: 2, logits, no_speech_prob: 0.0 };
    let search = make(&mut session, &prefilled);
    let mut jobs = [(&mut prefilled, search)];
    run(&mut session, &rules, &mut jobs).unwrap();
    let [(_, search)] = jobs;
    let (answer, caches) = search.finish();
    let count = caches.len();
    let mut distinct = caches;
    distinct.sort_by_key(|cache| cache.0);
    distinct.dedup();
    assert_eq!(distinct.len(), count, "a cache came back twice");
    answer
}

fn beams(size: usize, patience: f32, limit: usize) -> impl FnOnce(&mut Session<'_>, &Prefilled) -> Search {
    move |session, prefilled| {
        let spare = (1..size).map(|_| session.take_cache().unwrap()).collect();
        Search::Beams(Beams::new(prefilled.cache, spare, patience, limit))
    }
}

fn draws(count: usize, temperature: f32, limit: usize) -> impl FnOnce(&mut Session<'_>, &Prefilled) -> Search {
    move |session, prefilled| {
        let mut caches = vec![prefilled.cache];
        for _ in 1..count {
            let cache = session.take_cache().unwrap();
            session.copy_cache(prefilled.cache, cache);
            caches.push(cache);
        }
        Search::Draws(Draws::new(caches, temperature, limit, 3, [0, 0]))
    }
}

/// `BeamSearchDecoder` of openai/whisper written down literally: sequences in maps, everything sorted.
fn reference(size: usize, patience: f32, limit: usize) -> (Vec<u32>, f64) {
    let rules = rules(|options| options.timestamps = false);
    let logprobs = |sampled: &[u32]| {
        let tokens: Vec<u32> = [1, 2].iter().chain(sampled).copied().collect();
        let mut logits = vec![0.0; VOCAB];
        babble(&Asked { start: 0, tokens: &tokens }, &mut logits);
        let allowed = rules.apply(sampled, &mut logits).unwrap();
        let all = (0..VOCAB as u32).map(|id| (id, allowed.logprob(logits[id as usize])));
        let mut all: Vec<(u32, f32)> = all.filter(|(_, logprob)| logprob.is_finite()).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        all.truncate(size + 1);
        all
    };
    let wanted = (size as f32 * patience).round_ties_even() as usize;
    let mut live: Vec<(Vec<u32>, f64)> = vec![(Vec::new(), 0.0); size];
    let mut finished: Vec<(Vec<u32>, f64)> = Vec::new();
    for _ in 0..limit {
        let mut scores: HashMap<Vec<u32>, f64> = HashMap::new();
        for (tokens, sum) in &live {
            for (token, logprob) in logprobs(tokens) {
                scores.insert([tokens.as_slice(), &[token]].concat(), sum + f64::from(logprob));
            }
        }
        let mut ranked: Vec<(Vec<u32>, f64)> = scores.into_iter().collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        live.clear();
        for (tokens, sum) in ranked {
            if tokens.last() == Some(&END) {
                if finished.len() < wanted {
                    finished.push((tokens, sum));
                }
            } else {
                live.push((tokens, sum));
                if live.len() == size {
                    break;
                }
            }
        }
        if finished.len() >= wanted {
            break;
        }
    }
    for (tokens, sum) in live {
        if finished.len() < size {
            finished.push((tokens, sum));
        }
    }
    let text = |tokens: &[u32]| tokens.iter().filter(|&&token| token != END).count().max(1) as f64;
    let best = finished.into_iter().reduce(
        |best, next| {
            if next.1 / text(&next.0) > best.1 / text(&best.0) { next } else { best }
        },
    );
    let (mut tokens, sum) = best.unwrap();
    tokens.retain(|&token| token != END);
    (tokens, sum)
}

#[test]
fn beams_find_what_the_reference_finds() {
    for (size, patience, limit) in [(2, 1.0, 8), (3, 1.0, 8), (5, 1.0, 12), (5, 2.0, 12), (4, 0.5, 6), (3, 1.0, 1)] {
        let mut network = Scripted::new(100, babble);
        let found = answer(&mut network, beams(size, patience, limit));
        let (tokens, sum) = reference(size, patience, limit);
        assert_eq!(found.tokens, tokens, "{size} beams, patience {patience}, {limit} tokens");
        assert!((found.sum - sum).abs() < 1e-4);
        assert_eq!(found.tokens.len(), found.logprobs.len());
        let own: f64 = found.logprobs.iter().map(|&logprob| f64::from(logprob)).sum();
        assert!(if found.ended { found.sum <= own } else { (found.sum - own).abs() < 1e-6 });
        assert_eq!(network.held(), 0);
    }
}

#[test]
fn a_beam_that_looks_worse_at_first_can_win() {
    // "a" is likelier than "b", but everything after "a" is unlikely.
    let script = |asked: &Asked<'_>, logits: &mut [f32]| {
        logits.fill(-40.0);
        match asked.tokens[2..] {
            [] => (logits[A as usize], logits[A as usize + 1]) = (0.5, 0.0),
            [A] => logits[A as usize..A as usize + 20].fill(0.0),
            [_] => logits[A as usize + 2] = 5.0,
            _ => logits[END as usize] = 5.0,
        }
    };
    let found = answer(&mut Scripted::new(100, script), beams(2, 1.0, 10));
    assert_eq!(found.tokens, [A + 1, A + 2]);
    let greedy = answer(&mut Scripted::new(100, script), draws(1, 0.0, 10));
    assert_eq!(greedy.tokens[0], A);
}

#[test]
fn few_possible_tokens_leave_few_beams() {
    // Only "a", then only the end.
    let script = |asked: &Asked<'_>, logits: &mut [f32]| {
        logits.fill(f32::NEG_INFINITY);
        logits[if asked.tokens.len() == 2 { A } else { END } as usize] = 0.0;
    };
    let found = answer(&mut Scripted::new(100, script), beams(5, 1.0, 10));
    assert_eq!((found.tokens, found.ended), (vec![A], true));
}

#[test]
fn greedy_takes_the_best_and_stops_at_its_limit() {
    let script = |_: &Asked<'_>, logits: &mut [f32]| logits[A as usize] = 2.0;
    let found = answer(&mut Scripted::new(100, script), draws(1, 0.0, 6));
    assert_eq!((found.tokens, found.ended), (vec![A; 6], false));
    assert!((found.sum - f64::from(found.logprobs.iter().sum::<f32>())).abs() < 1e-4);
}

#[test]
fn the_likeliest_of_several_draws_is_taken() {
    // Every draw says one letter and ends: a rare one or a common one.
    let script = |asked: &Asked<'_>, logits: &mut [f32]| {
        logits.fill(-40.0);
        if asked.tokens.len() == 2 {
            (logits[A as usize], logits[A as usize + 1]) = (0.0, -1.5);
        } else {
            logits[END as usize] = 5.0;
        }
    };
    let mut network = Scripted::new(100, script);
    assert_eq!(answer(&mut network, draws(12, 1.0, 10)).tokens, [A]);
    // All rows go together: the prompt, then one call for what follows it.
    assert_eq!(network.calls, [1, 12]);
}

#[test]
fn draws_of_a_seed_repeat() {
    let first = answer(&mut Scripted::new(100, babble), draws(3, 1.0, 30));
    assert_eq!(answer(&mut Scripted::new(100, babble), draws(3, 1.0, 30)), first);
}
