//! Real Whisper base weights transcribe as faster-whisper does: greedy, at temperature 0, English, nothing skipped.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are not seen as tests")]

mod whisper_support;

use std::path::{Path, PathBuf};

use serde_json::Value;
use tsserve_models::whisper::Precision;
use tsserve_speech::{
    Chunking, FeatureOptions, RecordingFeatures, Temperature, TranscribeOptions, VadOptions, non_speech_tokens,
};
use whisper_support::{Loaded, Told, fixtures, json, wav};

/// Seconds; the weights are f16 here and f32 there, and the reference is another network's arithmetic.
const NEAR: f64 = 0.2;
const CLIPS: [&str; 2] = ["0870", "0880"];

fn real(precision: Precision) -> Loaded {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tsserve/weights");
    let folder = std::env::var_os("TSSERVE_WEIGHTS_DIR").map_or_else(default, PathBuf::from).join("whisper-base-ct2");
    let missing = "is missing; fetch the weights first, or set TSSERVE_WEIGHTS_DIR";
    assert!(folder.join("model.bin").is_file(), "{} {missing}", folder.display());
    Loaded::open(&folder, precision)
}

fn samples(clip: &str) -> Vec<f32> {
    wav(&fixtures().join(format!("inputs/speech/sense_{clip}.wav")))
}

fn features(samples: Vec<f32>) -> RecordingFeatures {
    RecordingFeatures::from_samples(samples, &FeatureOptions { n_mels: 80, vad: VadOptions::default() })
}

fn options() -> TranscribeOptions {
    TranscribeOptions {
        language: Some("en".into()),
        temperature: Temperature::Ladder(vec![0.0]),
        word_timestamps: true,
        ..Default::default()
    }
}

/// Times are cut at the end of the recording here.
fn compare(name: &str, told: &Told, expected: &[Value], duration: f64) {
    let near = |found: f64, expected: &Value| (found - expected.as_f64().unwrap().min(duration)).abs() <= NEAR;
    let texts: Vec<&str> = told.segments.iter().map(|segment| segment.text.as_str()).collect();
    assert_eq!(texts, expected.iter().map(|segment| segment["text"].as_str().unwrap()).collect::<Vec<_>>(), "{name}");
    for (segment, expected) in told.segments.iter().zip(expected) {
        let times = near(segment.start, &expected["start"]) && near(segment.end, &expected["end"]);
        assert!(times, "{name}: {} to {}, not {expected}", segment.start, segment.end);
        let Some(words) = expected["words"].as_array() else { continue };
        assert_eq!(segment.words.len(), words.len(), "{name}");
        for (word, expected) in segment.words.iter().zip(words) {
            assert_eq!(word.text, expected["word"].as_str().unwrap(), "{name}");
            assert!(
                near(word.start, &expected["start"]) && near(word.end, &expected["end"]),
                "{name}: {word:?} {expected}"
            );
            let probability = expected["p"].as_f64().unwrap();
            assert!((f64::from(word.probability) - probability).abs() < 0.05, "{name}: {word:?} {expected}");
        }
    }
}

#[test]
fn real_clips_have_the_segments_and_words_of_faster_whisper() {
    let facts = json("real/whisper-base.json");
    for precision in [Precision::Exact, Precision::default()] {
        let mut loaded = real(precision);
        for clip in CLIPS {
            let told = loaded.transcribe(&mut features(samples(clip)), &options());
            let expected = facts["clips"][clip]["segments"].as_array().unwrap();
            compare(clip, &told, expected, samples(clip).len() as f64 / 16_000.0);
        }
    }
}

#[test]
fn real_english_is_recognised() {
    let mut loaded = real(Precision::Exact);
    let told = loaded.transcribe(&mut features(samples("0870")), &TranscribeOptions { language: None, ..options() });
    let (code, probability) = told.language.unwrap();
    assert_eq!(code, "en");
    assert!(probability.unwrap() > 0.99, "{probability:?}");
}

/// Every way to decode says the same of clear speech.
#[test]
fn real_speech_is_the_same_in_every_mode() {
    let expected = "And Mr. John Dashwood had then leisure to consider how much there might be prudently in his power to do for them.";
    let mut loaded = real(Precision::Exact);
    let modes = [
        ("beams", TranscribeOptions { beam_size: Some(5), ..options() }),
        ("batched", TranscribeOptions { chunking: Chunking::Batched { batch: 4 }, ..options() }),
        ("skipping silence", TranscribeOptions { skip_silence: true, ..options() }),
        ("without timestamps", TranscribeOptions { timestamps: false, ..options() }),
        (
            "cold draws",
            TranscribeOptions { temperature: Temperature::Ladder(vec![0.2]), best_of: 2, seed: 1, ..options() },
        ),
    ];
    for (name, options) in modes {
        let told = loaded.transcribe(&mut features(samples("0870")), &options);
        assert_eq!(told.text().trim(), expected, "{name}");
    }
}

/// Both clips three times over, 4 s of silence behind each, and where they begin in seconds.
fn recording() -> (Vec<f32>, Vec<f64>) {
    let clips = CLIPS.map(samples);
    let mut recording: Vec<f32> = Vec::new();
    let mut starts = Vec::new();
    for clip in [&clips[0], &clips[1]].repeat(3) {
        starts.push(recording.len() as f64 / 16_000.0);
        recording.extend(clip);
        recording.resize(recording.len() + 16_000 * 4, 0.0);
    }
    (recording, starts)
}

#[test]
fn real_recordings_longer_than_a_window_are_those_of_faster_whisper() {
    let facts = json("real/whisper-base-long.json");
    let mut loaded = real(Precision::Exact);
    let recording = recording().0;
    for mode in ["conditioned", "unconditioned", "plain", "beams", "prompted"] {
        let given = &facts[mode]["options"];
        let options = TranscribeOptions {
            word_timestamps: given["word_timestamps"] == true,
            condition_on_previous_text: given["condition_on_previous_text"] != false,
            beam_size: given["beam_size"].as_u64().map(|size| size as usize),
            prompt: given["initial_prompt"].as_str().map(str::to_owned),
            ..options()
        };
        let told = loaded.transcribe(&mut features(recording.clone()), &options);
        let expected = facts[mode]["segments"].as_array().unwrap();
        compare(mode, &told, expected, recording.len() as f64 / 16_000.0);
        for (segment, expected) in told.segments.iter().zip(expected) {
            let likely = expected["avg_logprob"].as_f64().unwrap();
            assert!((f64::from(segment.avg_logprob) - likely).abs() < 0.01, "{mode}: {segment:?} {expected}");
            let quiet = expected["no_speech_prob"].as_f64().unwrap();
            assert!((f64::from(segment.no_speech_prob) - quiet).abs() < 0.01, "{mode}: {segment:?} {expected}");
        }
    }
}

/// However it is cut, what is said comes once, in order and at its time.
#[test]
fn real_recordings_are_whole_in_every_mode() {
    let (recording, starts) = recording();
    let mut loaded = real(Precision::Exact);
    let modes = [
        ("skipping silence", TranscribeOptions { skip_silence: true, ..options() }),
        ("batched", TranscribeOptions { chunking: Chunking::Batched { batch: 4 }, ..options() }),
        ("batched, one by one", TranscribeOptions { chunking: Chunking::Batched { batch: 1 }, ..options() }),
    ];
    for (name, options) in modes {
        let options = TranscribeOptions { condition_on_previous_text: false, ..options };
        let told = loaded.transcribe(&mut features(recording.clone()), &options);
        println!("{name}");
        for segment in &told.segments {
            println!("    {:.2} to {:.2}:{}", segment.start, segment.end, segment.text);
        }
        let words: Vec<(&str, f64)> = told
            .segments
            .iter()
            .flat_map(|segment| &segment.words)
            .map(|word| (word.text.trim(), word.start))
            .collect();
        for (marker, clips) in [("Dashwood", [0, 2, 4]), ("young", [1, 3, 5])] {
            let found: Vec<f64> = words.iter().filter(|word| word.0 == marker).map(|word| word.1).collect();
            assert_eq!(found.len(), 3, "{name}: {marker} in{}", told.text());
            for (time, clip) in found.iter().zip(clips) {
                assert!(
                    (0.5..2.5).contains(&(time - starts[clip])),
                    "{name}: {marker} at {time}, clip at {}",
                    starts[clip]
                );
            }
        }
    }
}

#[test]
fn real_silence_says_nothing() {
    let mut loaded = real(Precision::Exact);
    assert_eq!(loaded.transcribe(&mut features(vec![0.0; 16_000 * 40]), &options()).text(), "");
    // Steady noise, loud enough to be taken for speech: the original tells of "the next room", again and again.
    let mut state = 1u32;
    let noise: Vec<f32> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 * 0.04 - 0.02
    })
    .take(16_000 * 40)
    .collect();
    let told = loaded.transcribe(&mut features(noise), &options());
    assert_eq!(told.text(), "");
    for chunking in [Chunking::Sequential, Chunking::Batched { batch: 2 }] {
        let options = TranscribeOptions { chunking, skip_silence: true, ..options() };
        assert_eq!(loaded.transcribe(&mut features(vec![0.0; 16_000 * 40]), &options).text(), "");
        assert_eq!(loaded.transcribe(&mut features(Vec::new()), &options).text(), "");
    }
}

#[test]
fn real_suppressed_tokens_are_those_that_the_words_say() {
    let real = real(Precision::default());
    let special = real.tokens.end_of_text;
    let expected: Vec<u32> = real.tokens.suppressed.iter().copied().filter(|&token| token < special).collect();
    assert!(expected.len() > 50);
    assert_eq!(non_speech_tokens(&real.vocabulary), expected);
}
