//! Real Whisper base weights (a CTranslate2 file) against what transformers computes with them in f32.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are not seen as tests")]

mod speech;

use serde_json::Value;
use speech::{asked_level, clip_features, json, log_softmax, options, real_folder, teacher_forced};
use tsserve_models::cpu::{Level, Quantization};
use tsserve_models::whisper::{Arithmetic, Precision, WhisperCheckpoint, WhisperModel, WhisperOptions, WhisperRow};

/// Clips of the fixtures.
const CLIPS: [&str; 2] = ["0870", "0880"];

/// Greatest difference of log-probabilities in f32.
const EXACT: f64 = 2e-3;

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect()
}

/// Decodes a clip greedily; gives the tokens and the log-probabilities of each step before anything is suppressed.
fn greedy(model: &mut WhisperModel, audio: u32, facts: &Value, suppress: [&[u32]; 2]) -> (Vec<u32>, Vec<Vec<f64>>) {
    let cache = model.new_cache().unwrap();
    let (mut tokens, mut found, mut steps) = (ids(&facts["prompt"]), Vec::new(), Vec::new());
    let mut logits = Vec::new();
    while found.last() != Some(&50257) && found.len() < 60 {
        let wanted = [tokens.len() - 1];
        model.decode(&[WhisperRow { audio, cache, tokens: &tokens, wanted: &wanted }], &mut logits).unwrap();
        steps.push(log_softmax(&logits));
        let banned = suppress[0].iter().chain(suppress[1].iter().filter(|_| found.is_empty()));
        for &id in banned {
            logits[id as usize] = f32::NEG_INFINITY;
        }
        // Without timestamps.
        logits[50364..].fill(f32::NEG_INFINITY);
        let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as u32;
        found.push(best);
        tokens = vec![best];
    }
    model.release_cache(cache);
    (found, steps)
}

#[test]
fn the_checkpoint_says_what_transformers_does() {
    let checkpoint = WhisperCheckpoint::open(&real_folder()).unwrap();
    let facts = json("real/whisper-base.json");
    let special = &checkpoint.special_ids;
    assert_eq!(special.suppressed, ids(&facts["suppress"]));
    assert_eq!(special.begin_suppressed, ids(&facts["suppress_begin"]));
    assert_eq!(special.languages.len(), 99);
    assert_eq!(special.languages[0], ("en".to_owned(), 50259));
    assert_eq!(special.languages[98], ("su".to_owned(), 50357));
    let tokens =
        [special.start_of_transcript, special.languages[0].1, special.transcribe.unwrap(), special.no_timestamps];
    assert_eq!(tokens, ids(&facts["clips"]["0870"]["prompt"])[..]);
    assert_eq!((special.end_of_text, special.no_speech, special.first_timestamp), (50257, 50362, 50364));
    assert_eq!(special.alignment_heads.len(), 8);
    assert_eq!((checkpoint.config.n_mels, checkpoint.config.window_frames()), (80, 3000));
}

/// Mean difference of the five best log-probabilities in the fast mode, and where the best two are so far apart that
/// the best is the same.
const FAST: f64 = 0.05;
const CLEAR_GAP: f64 = 0.1;

#[test]
fn fast_is_near() {
    let checkpoint = WhisperCheckpoint::open(&real_folder()).unwrap();
    let facts = json("real/whisper-base.json");
    let cases = [
        (Quantization::Q8_0, Some(Arithmetic::Floats), FAST),
        (Quantization::Q8_0, Some(Arithmetic::Bf16), FAST),
        (Quantization::Q8_0, Some(Arithmetic::Integers), FAST),
        (Quantization::Q4_K, None, 0.4),
        (Quantization::Q4_0, None, 0.4),
    ];
    for (quantization, arithmetic, limit) in cases {
        let levels =
            asked_level().map_or_else(|| Level::available().into_iter().rev().take(2).collect(), |one| vec![one]);
        for level in levels {
            let options = WhisperOptions { arithmetic, ..options(level, Precision::Fast(quantization)) };
            let mut model = WhisperModel::load(&checkpoint, options, &mut |_, _| {}).unwrap();
            let (mut sum, mut n, mut worst) = (0.0, 0, 0f64);
            for clip in CLIPS {
                let facts = &facts["clips"][clip];
                let audio = model.encode(&clip_features(clip, 80)).unwrap()[0];
                // Teacher-forced with the expected tokens, so that one other choice does not end the comparison.
                let prompt = ids(&facts["prompt"]);
                let expected = ids(&facts["greedy_ids"]);
                let tokens = [&prompt[..], &expected[..expected.len() - 1]].concat();
                let vocab_size = model.config().vocab_size;
                let logits = teacher_forced(&mut model, audio, &tokens);
                let steps = logits.chunks(vocab_size).skip(prompt.len() - 1).map(log_softmax);
                for (i, (step, facts)) in steps.zip(facts["steps"].as_array().unwrap()).enumerate() {
                    let top: Vec<Vec<f64>> = facts["raw_top"].as_array().unwrap().iter().map(numbers).collect();
                    for entry in &top {
                        let difference = (step[entry[0] as usize] - entry[1]).abs();
                        (sum, n, worst) = (sum + difference, n + 1, worst.max(difference));
                    }
                    let best = (0..step.len()).max_by(|&a, &b| step[a].total_cmp(&step[b])).unwrap();
                    let clear = top[0][1] - top[1][1] > CLEAR_GAP || quantization != Quantization::Q8_0;
                    assert!(best as f64 == top[0][0] || !clear || limit > FAST, "{clip} step {i}");
                }
                model.release_audio(audio);
            }
            let mean = sum / f64::from(n);
            let what = format!("{level} {} {:?}", quantization.name(), model.arithmetic());
            println!("{what}: mean {mean:.1e}, worst {worst:.1e}");
            assert!(mean < limit, "{what}: {mean:.1e}");
        }
    }
}

#[test]
fn exact_is_what_transformers_computes() {
    let checkpoint = WhisperCheckpoint::open(&real_folder()).unwrap();
    let mut model =
        WhisperModel::load(&checkpoint, options(Level::detect(), Precision::Exact), &mut |_, _| {}).unwrap();
    let facts = json("real/whisper-base.json");
    let suppress = [ids(&facts["suppress"]), ids(&facts["suppress_begin"])];
    for clip in CLIPS {
        let facts = &facts["clips"][clip];
        let mel = clip_features(clip, 80);
        for probe in facts["mel_probe"]["at"].as_array().unwrap() {
            let [bin, frame, expected] = numbers(probe)[..] else { continue };
            assert!((f64::from(mel[bin as usize * 3000 + frame as usize]) - expected).abs() < 1e-4, "{clip} {probe}");
        }
        let audio = model.encode(&mel).unwrap()[0];
        // The first values of position 10.
        for (found, expected) in model.last_encoded()[10 * 512..].iter().zip(numbers(&facts["encoder_probe"])) {
            assert!((f64::from(*found) - expected).abs() < 1e-4, "{clip}: {found} {expected}");
        }
        let (found, steps) = greedy(&mut model, audio, facts, [&suppress[0], &suppress[1]]);
        assert_eq!(found, ids(&facts["greedy_ids"]), "{clip}");
        let mut worst = 0f64;
        for (step, facts) in steps.iter().zip(facts["steps"].as_array().unwrap()) {
            for entry in facts["raw_top"].as_array().unwrap() {
                let [id, expected] = numbers(entry)[..] else { continue };
                worst = worst.max((step[id as usize] - expected).abs());
            }
        }
        println!("{clip}: {worst:.1e}");
        assert!(worst < EXACT, "{clip}: {worst:.1e}");
        model.release_audio(audio);
    }
}
