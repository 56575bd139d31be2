//! Tiny Whisper checkpoints transcribe as transformers does: its loop, with everything that decides in it.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

mod whisper_support;

use safetensors::SafeTensors;
use serde_json::Value;
use tsserve_models::whisper::Precision;
use tsserve_speech::{
    FeatureOptions, Features, RecordingFeatures, Rules, Segment, Task, Temperature, TranscribeOptions, VadOptions,
};
use whisper_support::{Loaded, Mel, Told, fixtures, json, wav};

const MODELS: [&str; 3] = ["whisper", "whisper_en", "whisper_30s"];

/// The features of a golden: those of the file, or of the clip that is told five times.
fn features(model: &str, kind: &str) -> Box<dyn Features> {
    if model == "whisper_30s" && kind == "long" {
        return Box::new(repeated());
    }
    let file = std::fs::read(fixtures().join(format!("golden/{model}.safetensors"))).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let (bytes, _) = tensors.tensor(&format!("{kind}.mel")).unwrap().data().as_chunks::<4>();
    Box::new(Mel { n_mels: 80, values: bytes.iter().map(|&four| f32::from_le_bytes(four)).collect() })
}

/// The longer clip five times over. transformers mirrors samples at the end, where openai/whisper has silence.
fn repeated() -> Mel {
    let mut samples = wav(&fixtures().join("inputs/speech/sense_0870.wav")).repeat(5);
    let frames = samples.len() / 160;
    let mirrored: Vec<f32> = samples.iter().rev().skip(1).take(200).copied().collect();
    samples.extend(mirrored);
    let options = FeatureOptions { n_mels: 80, vad: VadOptions::default() };
    let mut values = vec![0.0; 80 * frames];
    RecordingFeatures::from_samples(samples, &options).window(0, 0..frames, &mut values).unwrap();
    Mel { n_mels: 80, values }
}

/// What is asked of `generate`, as options.
fn options(given: &Value, prompt: &str) -> TranscribeOptions {
    let given = |name: &str| given.get(name);
    TranscribeOptions {
        rules: Rules::Transformers,
        language: given("language").and_then(Value::as_str).map(str::to_owned),
        task: if given("task").is_some_and(|task| task == "translate") { Task::Translate } else { Task::Transcribe },
        timestamps: given("return_timestamps").is_some_and(|flag| flag == true),
        prompt: given("prompt_ids").map(|_| prompt.to_owned()),
        carry_prompt: given("prompt_condition_type").is_some_and(|kind| kind == "all-segments"),
        condition_on_previous_text: given("condition_on_prev_tokens").is_some_and(|flag| flag == true),
        temperature: Temperature::Ladder(vec![0.0]),
        compression_ratio_threshold: None,
        logprob_threshold: None,
        no_speech_threshold: None,
        ..Default::default()
    }
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn near(found: f32, expected: &Value, tolerance: f64) -> bool {
    (f64::from(found) - number(expected)).abs() <= tolerance
}

fn compare(name: &str, told: &Told, golden: &Value) {
    let expected = golden["segments"].as_array().unwrap();
    let tokens = |segments: &[Segment]| segments.iter().map(|segment| segment.tokens.clone()).collect::<Vec<_>>();
    assert_eq!(
        tokens(&told.segments),
        expected.iter().map(|segment| ids(&segment["tokens"])).collect::<Vec<_>>(),
        "{name}"
    );
    let windows = golden["windows"].as_array().unwrap();
    for (prompt, window) in told.prompts.iter().zip(windows) {
        assert_eq!(*prompt, ids(&window["prompt"]), "{name}: a window's prompt");
    }
    assert_eq!(told.prompts.len(), windows.len(), "{name}: windows");
    for (segment, expected) in told.segments.iter().zip(expected) {
        assert!((segment.start - number(&expected["start"])).abs() < 1e-6, "{name}: {segment:?} {expected}");
        assert!((segment.end - number(&expected["end"])).abs() < 1e-6, "{name}: {segment:?} {expected}");
        assert_eq!(segment.text, expected["text"].as_str().unwrap(), "{name}");
        let window = windows.iter().find(|window| window["seek"] == segment.seek).unwrap();
        assert!(near(segment.avg_logprob, &window["avg_logprob"], 1e-4), "{name}: {segment:?} {window}");
        assert!(near(segment.no_speech_prob, &window["no_speech_prob"], 1e-4), "{name}: {segment:?} {window}");
        assert!(near(segment.compression_ratio, &window["compression_ratio"], 1e-4), "{name}: {segment:?} {window}");
    }
}

#[test]
fn every_case_of_generate_is_told() {
    let mut cases = 0;
    for model in MODELS {
        let golden = json(&format!("golden/{model}.json"));
        let mut loaded = Loaded::open(&fixtures().join("models").join(model), Precision::Exact);
        for kind in ["short", "long"] {
            for (case, golden_case) in golden[kind].as_object().unwrap() {
                let options = options(&golden_case["options"], golden["prompt_text"].as_str().unwrap());
                let told = loaded.transcribe(features(model, kind).as_mut(), &options);
                compare(&format!("{model} {kind} {case}"), &told, golden_case);
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 28);
}

#[test]
fn the_endpoint_of_transformers_says_the_same() {
    for model in MODELS {
        let golden = json(&format!("golden/{model}.json"));
        let mut loaded = Loaded::open(&fixtures().join("models").join(model), Precision::Exact);
        let told = loaded.transcribe(features(model, "short").as_mut(), &options(&Value::Null, ""));
        assert_eq!(told.text(), golden["serve"]["text"].as_str().unwrap(), "{model}");
        assert_eq!(told.segments[0].tokens, ids(&golden["serve"]["ids"]), "{model}");
    }
}

#[test]
fn languages_have_the_same_probabilities() {
    for model in ["whisper", "whisper_30s"] {
        let golden = json(&format!("golden/{model}.json"));
        let mut loaded = Loaded::open(&fixtures().join("models").join(model), Precision::Exact);
        let told = loaded.transcribe(features(model, "short").as_mut(), &options(&Value::Null, ""));
        let (code, probability) = told.language.unwrap();
        let probabilities = golden["language_detection"]["probs"].as_object().unwrap();
        let best = probabilities.iter().max_by(|a, b| number(a.1).total_cmp(&number(b.1))).unwrap();
        assert_eq!(code, *best.0, "{model}");
        assert!(near(probability.unwrap(), best.1, 1e-4), "{model}");
    }
}

/// Times of single tokens: attention while they were decoded, warped.
#[test]
fn tokens_are_heard_at_the_same_times() {
    let mut compared = 0;
    for model in MODELS {
        let golden = json(&format!("golden/{model}.json"));
        let mut loaded = Loaded::open(&fixtures().join("models").join(model), Precision::Exact);
        let language = if model == "whisper_en" { Value::Null } else { Value::from("en") };
        for kind in ["short", "long"] {
            let case = &golden["token_timestamps"][kind];
            let asked = serde_json::json!({ "return_timestamps": true, "language": language });
            let options = TranscribeOptions { word_timestamps: true, ..options(&asked, "") };
            let told = loaded.transcribe(features(model, kind).as_mut(), &options);
            compare(&format!("{model} {kind}"), &told, case);
            for (segment, expected) in told.segments.iter().zip(case["segments"].as_array().unwrap()) {
                let windows = case["windows"].as_array().unwrap();
                let window = windows.iter().find(|window| window["seek"] == segment.seek).unwrap();
                if window["dtw_undefined"] == true {
                    continue;
                }
                let times = expected["token_timestamps"].as_array().unwrap();
                assert_eq!(segment.words.len(), times.len());
                for (word, time) in segment.words.iter().zip(times) {
                    assert!((word.start - number(time)).abs() < 1e-5, "{model} {kind}: {segment:?} {expected}");
                    compared += 1;
                }
            }
        }
    }
    assert_eq!(compared, 82, "all of them");
}
