//! Tiny Whisper checkpoints against what transformers computes with them, at every level.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are not seen as tests")]

mod speech;

use speech::{Golden, TINY, json, levels, open, teacher_forced, tiny, worst};
use tsserve_models::whisper::Precision;

/// Greatest difference to transformers in f32.
const EXACT: f32 = 1e-4;

#[test]
fn encoder_and_logits_are_those_of_transformers() {
    for name in TINY {
        let golden = Golden::load(name);
        for level in levels() {
            let mut model = tiny(name, level, Precision::Exact);
            let audio = model.encode(&golden.values("short.mel")).unwrap()[0];
            let width = model.config().width;
            // Of the large window every tenth position is recorded.
            let every = if name == "whisper_30s" { 10 } else { 1 };
            let found: Vec<f32> = model.last_encoded().chunks(width).step_by(every).flatten().copied().collect();
            let encoder = worst(&found, &golden.values("short.encoder_out"));
            let ids = golden.ids("forced.ids");
            let logits = teacher_forced(&mut model, audio, &ids);
            let decoder = worst(&logits, &golden.values("forced.logits"));
            println!("{name} {level}: encoder {encoder:.1e}, logits {decoder:.1e}");
            assert!(encoder < EXACT && decoder < EXACT, "{name} {level}: {encoder:.1e} {decoder:.1e}");
            if name != "whisper_en" {
                let sot = teacher_forced(&mut model, audio, &ids[..1]);
                assert!(worst(&sot, &golden.values("short.sot_logits")) < EXACT, "{name} {level}");
            }
        }
    }
}

/// What the defaults may differ by from f32, in units of the logits' spread: bf16 in the encoder where the level has
/// it, keys and values in f16. (The rows of these models are too short for quantised weights.) Random weights as large
/// as these amplify differences that real ones do not.
const FAST: f64 = 0.15;

#[test]
fn the_fast_mode_is_near() {
    for name in TINY {
        let golden = Golden::load(name);
        let expected = golden.values("forced.logits");
        let mean = expected.iter().map(|&x| f64::from(x)).sum::<f64>() / expected.len() as f64;
        let square = expected.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / expected.len() as f64;
        for level in levels() {
            let mut model = tiny(name, level, Precision::default());
            let audio = model.encode(&golden.values("short.mel")).unwrap()[0];
            let logits = teacher_forced(&mut model, audio, &golden.ids("forced.ids"));
            let differences = logits.iter().zip(&expected).map(|(a, b)| f64::from(a - b).powi(2));
            let relative = (differences.sum::<f64>() / expected.len() as f64 / square).sqrt();
            println!("{name} {level}: {relative:.1e} of the spread");
            assert!(relative < FAST, "{name} {level}: {relative:.1e}");
        }
    }
}

#[test]
fn special_ids_are_those_of_the_generation_config() {
    for name in TINY {
        let special = open(name).special_ids;
        let generation = json(&format!("models/{name}/generation_config.json"));
        let id = |key: &str| generation[key].as_u64().unwrap() as u32;
        assert_eq!(special.end_of_text, id("eos_token_id"));
        assert_eq!(special.start_of_transcript, id("decoder_start_token_id"));
        assert_eq!(special.start_of_previous, id("prev_sot_token_id"));
        assert_eq!(special.no_timestamps, id("no_timestamps_token_id"));
        assert_eq!(special.no_speech, special.no_timestamps - 1);
        assert_eq!(special.first_timestamp, special.no_timestamps + 1);
        let english = name == "whisper_en";
        assert_eq!((special.languages.is_empty(), special.transcribe.is_none()), (english, english));
        if !english {
            assert_eq!(special.transcribe.map(u64::from), generation["task_to_id"]["transcribe"].as_u64());
            for (code, id) in &special.languages {
                assert_eq!(generation["lang_to_id"][format!("<|{code}|>")].as_u64(), Some(u64::from(*id)));
            }
        }
        assert_eq!(special.alignment_heads.len(), generation["alignment_heads"].as_array().unwrap().len());
    }
}

#[test]
fn alignment_scores_are_the_cross_attention_of_transformers() {
    for name in TINY {
        let golden = Golden::load(name);
        let heads: Vec<(usize, usize)> = json(&format!("golden/{name}.json"))["forced"]["alignment_heads"]
            .as_array()
            .unwrap()
            .iter()
            .map(|head| (head[0].as_u64().unwrap() as usize, head[1].as_u64().unwrap() as usize))
            .collect();
        for level in levels() {
            let mut model = tiny(name, level, Precision::Exact);
            let audio = model.encode(&golden.values("short.mel")).unwrap()[0];
            let ids = golden.ids("forced.ids");
            let (mut scores, mut logits, mut seen) = (Vec::new(), Vec::new(), Vec::new());
            let mut keep = |index: usize, values: &[f32]| {
                seen.push(index);
                logits.extend_from_slice(values);
            };
            model.align(audio, &ids, &heads, &mut scores, &mut keep).unwrap();
            assert_eq!(seen, (0..ids.len()).collect::<Vec<_>>());
            assert_eq!(logits, teacher_forced(&mut model, audio, &ids), "{name} {level}");
            // transformers has recorded them after the softmax, of the large window the first 400 positions.
            let context = model.config().audio_context;
            let n_kept = golden.values("forced.cross_attention").len() / (heads.len() * ids.len());
            let mut found = Vec::new();
            for row in scores.chunks(context) {
                let max = row.iter().fold(f32::NEG_INFINITY, |max, &x| max.max(x));
                let sum: f32 = row.iter().map(|x| (x - max).exp()).sum();
                found.extend(row[..n_kept].iter().map(|x| (x - max).exp() / sum));
            }
            let difference = worst(&found, &golden.values("forced.cross_attention"));
            println!("{name} {level}: {difference:.1e}");
            assert!(difference < 2e-5, "{name} {level}: {difference:.1e}");
        }
    }
}
