//! Whisper's decoder in batches: rows are what they are alone, caches hold what they should, and mistakes are errors
//! that leave the model usable.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

mod speech;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use speech::{Golden, TINY, clip_features, fastest, open, options, real_folder, tiny, unlike_levels};
use tsserve_engine::ComputePool;
use tsserve_models::cpu::Level;
use tsserve_models::whisper::{Precision, WhisperCheckpoint, WhisperError, WhisperModel, WhisperOptions, WhisperRow};

/// Tokens of a hypothesis: any will do.
fn tokens(seed: u32, n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| (i * 37 + seed * 101) % 400).collect()
}

/// Two windows of different content.
fn windows(model: &mut WhisperModel, name: &str) -> Vec<u32> {
    let mel = Golden::load(name).values("short.mel");
    let other: Vec<f32> = mel.iter().rev().map(|x| x * 0.7).collect();
    model.encode(&[mel, other].concat()).unwrap()
}

/// Logits after every token, the tokens appended `step` at a time.
fn alone(model: &mut WhisperModel, audio: u32, tokens: &[u32], step: usize) -> Vec<f32> {
    let cache = model.new_cache().unwrap();
    let (mut all, mut logits) = (Vec::new(), Vec::new());
    for tokens in tokens.chunks(step) {
        let wanted: Vec<usize> = (0..tokens.len()).collect();
        model.decode(&[WhisperRow { audio, cache, tokens, wanted: &wanted }], &mut logits).unwrap();
        all.extend_from_slice(&logits);
    }
    model.release_cache(cache);
    all
}

fn check_batches(model: &mut WhisperModel, audios: &[u32], what: &str) {
    let (vocab, longest) = (model.config().vocab_size, model.config().text_context.min(100));
    // Lengths that need more than one pass in all.
    let lengths = [longest, 1, 7, longest - 3, longest, 2, longest, 30];
    let rows: Vec<(u32, Vec<u32>)> =
        lengths.iter().enumerate().map(|(i, &n)| (audios[i % audios.len()], tokens(i as u32, n))).collect();
    let expected: Vec<Vec<f32>> = rows.iter().map(|(audio, tokens)| alone(model, *audio, tokens, usize::MAX)).collect();
    for (audio, tokens) in &rows[..3] {
        let index = rows.iter().position(|row| &row.1 == tokens).unwrap();
        for step in [1, 5] {
            assert!(alone(model, *audio, tokens, step) == expected[index], "{what}: tokens {step} at a time");
        }
    }
    // All at once, each asking for something else.
    let caches: Vec<u32> = rows.iter().map(|_| model.new_cache().unwrap()).collect();
    let wanted: Vec<Vec<usize>> = lengths
        .iter()
        .enumerate()
        .map(|(i, &n)| match i % 4 {
            0 => (0..n).collect(),
            1 => vec![n - 1],
            2 => Vec::new(),
            _ => (0..n).step_by(3).collect(),
        })
        .collect();
    let batch: Vec<WhisperRow<'_>> = (0..rows.len())
        .map(|i| WhisperRow { audio: rows[i].0, cache: caches[i], tokens: &rows[i].1, wanted: &wanted[i] })
        .collect();
    let mut logits = vec![1.0; 3];
    model.decode(&batch, &mut logits).unwrap();
    let all = wanted.iter().zip(&expected);
    let together: Vec<f32> = all
        .flat_map(|(wanted, logits)| wanted.iter().flat_map(move |&i| &logits[i * vocab..][..vocab]))
        .copied()
        .collect();
    assert!(logits == together, "{what}: a batch");
    caches.into_iter().for_each(|cache| model.release_cache(cache));
}

#[test]
fn rows_are_what_they_are_alone() {
    for name in TINY {
        for level in Level::available() {
            for precision in [Precision::Exact, Precision::default()] {
                let mut model = tiny(name, level, precision);
                let audios = windows(&mut model, name);
                check_batches(&mut model, &audios, &format!("{name} {level} {precision:?}"));
            }
        }
    }
}

#[test]
fn rows_of_quantised_weights_are_what_they_are_alone() {
    let checkpoint = WhisperCheckpoint::open(&real_folder()).unwrap();
    let mut model = WhisperModel::load(&checkpoint, options(fastest(), Precision::default()), &mut |_, _| {}).unwrap();
    let mel = [clip_features("0870", 80), clip_features("0880", 80)].concat();
    let audios = model.encode(&mel).unwrap();
    check_batches(&mut model, &audios, "real");
}

#[test]
fn a_window_does_not_depend_on_others_and_threads() {
    for (name, level) in TINY.iter().flat_map(|name| unlike_levels().into_iter().map(move |level| (*name, level))) {
        let mel = Golden::load(name).values("short.mel");
        for precision in [Precision::Exact, Precision::default()] {
            let mut model = tiny(name, level, precision);
            model.encode(&mel).unwrap();
            let expected = model.last_encoded().to_vec();
            let audios = windows(&mut model, name);
            model.encode(&[mel.clone(), mel.clone()].concat()).unwrap();
            assert!(model.last_encoded() == expected, "{name} {level}");
            let logits = alone(&mut model, audios[0], &tokens(1, 9), 9);
            for threads in [1, 3] {
                let options = WhisperOptions { threads, ..options(level, precision) };
                let mut other = WhisperModel::load(&open(name), options, &mut |_, _| {}).unwrap();
                let audio = other.encode(&mel).unwrap()[0];
                assert!(other.last_encoded() == expected, "{name} {level} on {threads} threads");
                assert!(alone(&mut other, audio, &tokens(1, 9), 9) == logits, "{name} {level} on {threads} threads");
            }
        }
    }
}

#[test]
fn caches_are_copied_and_cut() {
    for precision in [Precision::Exact, Precision::default()] {
        let mut model = tiny("whisper", fastest(), precision);
        let audio = windows(&mut model, "whisper")[0];
        let (first, second) = (tokens(1, 23), tokens(2, 9));
        let vocab = model.config().vocab_size;
        let expected = alone(&mut model, audio, &[&first[..], &second].concat(), 100);
        let expected = &expected[first.len() * vocab..];
        let (a, b) = (model.new_cache().unwrap(), model.new_cache().unwrap());
        let mut logits = Vec::new();
        let wanted: Vec<usize> = (0..second.len()).collect();
        // What b held before is forgotten.
        let other = tokens(3, 40);
        model.decode(&[WhisperRow { audio, cache: b, tokens: &other, wanted: &[] }], &mut logits).unwrap();
        assert!(logits.is_empty());
        model.decode(&[WhisperRow { audio, cache: a, tokens: &first, wanted: &[] }], &mut logits).unwrap();
        model.copy_cache(a, b).unwrap();
        for cache in [b, a] {
            model.decode(&[WhisperRow { audio, cache, tokens: &second, wanted: &wanted }], &mut logits).unwrap();
            assert!(logits == expected, "{precision:?}");
        }
        model.truncate_cache(a, first.len()).unwrap();
        model.copy_cache(a, a).unwrap();
        model.decode(&[WhisperRow { audio, cache: a, tokens: &second, wanted: &wanted }], &mut logits).unwrap();
        assert!(logits == expected, "{precision:?} after a cut");
        // A cut beyond the end changes nothing, and a released place starts empty.
        model.truncate_cache(b, 1000).unwrap();
        model.truncate_cache(b, first.len()).unwrap();
        model.decode(&[WhisperRow { audio, cache: b, tokens: &second, wanted: &wanted }], &mut logits).unwrap();
        assert!(logits == expected);
        model.release_cache(a);
        model.release_cache(b);
        assert!(alone(&mut model, audio, &[&first[..], &second].concat(), 100)[first.len() * vocab..] == *expected);
    }
}

#[test]
fn places_are_bounded_and_used_again() {
    let mut model = tiny("whisper", fastest(), Precision::default());
    let mel = Golden::load("whisper").values("short.mel");
    let caches: Vec<u32> = (0..8).map(|_| model.new_cache().unwrap()).collect();
    let full = |what, limit| Err(WhisperError::Full { what, limit });
    assert_eq!(model.new_cache(), full("cache", 8));
    let audios: Vec<u32> = (0..7).map(|_| model.encode(&mel).unwrap()[0]).collect();
    // Two do not fit, and so none is kept.
    assert_eq!(model.encode(&[mel.clone(), mel.clone()].concat()).map(|_| 0), full("window", 8));
    let last = model.encode(&mel).unwrap()[0];
    model.release_audio(audios[2]);
    assert_eq!(model.encode(&mel).unwrap(), [audios[2]]);
    model.release_cache(caches[5]);
    assert_eq!(model.new_cache().unwrap(), caches[5]);
    // Alignment has a cache of its own.
    let (mut scores, mut n) = (Vec::new(), 0);
    model.align(last, &[1, 2, 3], &[(0, 1)], &mut scores, &mut |_, _| n += 1).unwrap();
    assert_eq!((n, scores.len()), (3, 300));
}

#[test]
fn mistakes_are_errors_before_anything_is_computed() {
    let mut model = tiny("whisper", fastest(), Precision::default());
    let audio = windows(&mut model, "whisper")[0];
    let (cache, other) = (model.new_cache().unwrap(), model.new_cache().unwrap());
    let good = WhisperRow { audio, cache, tokens: &[5, 6], wanted: &[1] };
    let mut logits = Vec::new();
    model.decode(&[good], &mut logits).unwrap();
    model.truncate_cache(cache, 0).unwrap();
    let expected = logits.clone();
    let long = [1; 65];
    let bad: [(WhisperRow<'_>, &str); 9] = [
        (WhisperRow { tokens: &[], ..good }, "a row without tokens"),
        (WhisperRow { tokens: &long, ..good }, "65 tokens after 0, at most 64 fit the decoder"),
        (WhisperRow { tokens: &[1, 413], ..good }, "token 413 of a vocabulary of 413"),
        (WhisperRow { wanted: &[2], ..good }, "logits after tokens [2] of 2"),
        (WhisperRow { wanted: &[1, 0], ..good }, "logits after tokens [1, 0] of 2"),
        (WhisperRow { wanted: &[1, 1], ..good }, "logits after tokens [1, 1] of 2"),
        (WhisperRow { audio: 99, ..good }, "there is no window 99"),
        (WhisperRow { cache: 99, ..good }, "there is no cache 99"),
        (good, "cache 0 comes twice"),
    ];
    for (row, what) in bad {
        // A good row before it is not computed either.
        let before = WhisperRow { cache: if what.contains("twice") { cache } else { other }, ..good };
        let error = model.decode(&[before, row], &mut logits).unwrap_err();
        assert_eq!(error, WhisperError::Input(what.to_owned()));
    }
    assert!(model.encode(&[0.0; 7]).unwrap_err().to_string().contains("7 features are not windows of 16000"));
    assert!(model.copy_cache(cache, 77).is_err() && model.truncate_cache(77, 0).is_err());
    let nothing = &mut |_: usize, _: &[f32]| ();
    let head = model.align(audio, &[1], &[(2, 0)], &mut Vec::new(), nothing).unwrap_err();
    assert_eq!(head, WhisperError::Input("the decoder has no head 0 of layer 2".to_owned()));
    assert!(model.align(audio, &long, &[], &mut Vec::new(), nothing).is_err());
    // Released places are gone; giving back twice does no harm.
    model.release_audio(77);
    model.release_cache(other);
    model.release_cache(other);
    assert!(model.decode(&[WhisperRow { cache: other, ..good }], &mut logits).is_err());
    model.decode(&[good], &mut logits).unwrap();
    assert!(logits == expected);
}

#[test]
fn others_get_their_turns_between_layers() {
    let pool = ComputePool::new();
    let options = WhisperOptions { pool: pool.clone(), ..options(fastest(), Precision::default()) };
    let mut model = WhisperModel::load(&open("whisper_30s"), options, &mut |_, _| {}).unwrap();
    let mel = Golden::load("whisper_30s").values("short.mel");
    let (turns, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                drop(pool.lease());
                turns.fetch_add(1, Ordering::Relaxed);
            }
        });
        while turns.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        let before = turns.load(Ordering::Relaxed);
        let layers = model.config().encoder_layers + model.config().decoder_layers;
        let audio = model.encode(&mel).unwrap()[0];
        assert!(turns.load(Ordering::Relaxed) - before >= layers, "turns while a window was encoded");
        let before = turns.load(Ordering::Relaxed);
        for _ in 0..50 {
            alone(&mut model, audio, &[1, 2, 3], 1);
        }
        assert!(turns.load(Ordering::Relaxed) - before >= 50, "turns while tokens were decoded");
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_panic_is_an_error_and_the_model_stays_usable() {
    let mut model = tiny("whisper", fastest(), Precision::default());
    let audio = windows(&mut model, "whisper")[0];
    let expected = alone(&mut model, audio, &tokens(4, 5), 5);
    for _ in 0..20 {
        let panics = &mut |index: usize, _: &[f32]| assert!(index < 2, "on purpose");
        let error = model.align(audio, &tokens(4, 5), &[], &mut Vec::new(), panics).unwrap_err();
        assert_eq!(error, WhisperError::Failed("on purpose".to_owned()));
        assert!(alone(&mut model, audio, &tokens(4, 5), 5) == expected);
    }
}
