//! The code of openai/whisper told these segments of scripted networks (`tests/openai_rules.py`), which are written
//! down here a second time.
//!
//! Left out of the comparison is what differs on purpose: segments without text are not told, and times end with the
//! content.

use serde_json::Value;

use crate::testing::{Asked, END, FIRST, NO_SPEECH, NO_TIMESTAMPS, Recording, START, Scripted, Words, special_tokens};
use crate::{Segment, Task, Temperature, TranscribeOptions, TranscriptEvent};

const WORDS: [&str; 7] = [" one", " two", " three", " four", " five", "你", " six"];
const POSITIONS: usize = 1500;

fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    x ^= x >> 29;
    x = x.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x ^ (x >> 32)
}

fn logits(seed: u64, asked: &Asked<'_>, out: &mut [f32]) {
    let (start, tokens) = (asked.start as u64, asked.tokens);
    let first = mix(seed ^ (start << 20));
    let place = tokens.iter().fold(first, |place, &token| mix(place.wrapping_add(u64::from(token))));
    let Some(at) = tokens.iter().position(|&token| token == START) else { return };
    let pick = |n: u64, of: u64| (mix(place ^ n) % of) as i64;
    let fraction = |id: u64| (mix(place ^ (id << 17)) % 131_072) as i64;
    let mut row = vec![-2048i64; out.len()];
    row[END as usize + 1..FIRST as usize].fill(-8192);
    row[..256].iter_mut().for_each(|logit| *logit -= 4096);
    row[256 + WORDS.len()..END as usize].iter_mut().for_each(|logit| *logit -= 4096);
    if tokens.last() == Some(&START) {
        row[302..306].iter_mut().zip(302..).for_each(|(logit, language)| *logit = pick(language, 1024));
        row[NO_SPEECH as usize] = if mix(start ^ seed).is_multiple_of(5) { 4096 } else { 0 };
    } else {
        let sampled: Vec<u32> = tokens[at + 1..].iter().copied().filter(|&t| !(END..FIRST).contains(&t)).collect();
        let last = sampled.last().copied().unwrap_or(FIRST);
        let stamp = sampled.iter().rev().find(|&&t| t >= FIRST).map_or(0, |&t| i64::from(t - FIRST));
        let sure = [512, 1536, 3072][(mix(start ^ (seed + 1)) % 3) as usize];
        match last {
            0xE5 => row[0xA5] += 9000,
            0xA5 => row[0xBD] += 9000,
            _ if last >= FIRST => {
                row[256 + 5] -= 2048;
                row[256 + pick(1, 5) as usize] += sure;
                let closed = sampled.iter().filter(|&&t| t >= FIRST).count().is_multiple_of(2);
                row[END as usize] += if closed && pick(2, 4) == 0 { 9000 } else { -2048 };
            }
            _ => {
                row[256 + pick(3, 7) as usize] += sure;
                row[usize::from(b',')] += 4096 + if pick(4, 9) == 0 { 1024 } else { 0 };
                row[usize::from(b'.')] += 4096 + if pick(5, 9) == 0 { 1024 } else { 0 };
                row[usize::from(b'a')] += 4096 + if pick(6, 5) == 0 { sure } else { 0 };
                row[0xE5] += 4096 + if pick(7, 12) == 0 { sure } else { 0 };
                row[END as usize] += if pick(8, 25) == 0 { 2048 + sure } else { -2048 };
            }
        }
        if tokens[at..].contains(&NO_TIMESTAMPS) {
            row[FIRST as usize..].iter_mut().for_each(|logit| *logit -= 8192);
        } else if last != 0xE5 && last != 0xA5 {
            let ahead = if pick(9, 6) != 0 { pick(10, 180) } else { pick(11, 1500) };
            let likely = pick(12, 6) == 0 || last >= FIRST;
            row[FIRST as usize + (stamp + ahead).min(1500) as usize] += if likely { 6144 } else { 0 };
        }
    }
    for ((out, logit), id) in out.iter_mut().zip(row).zip(0..) {
        *out = (logit * 256 + fraction(id)) as f32 / 65536.0;
    }
}

fn scores(seed: u64, asked: &Asked<'_>, (layer, head): (usize, usize)) -> Vec<f32> {
    let mut out = Vec::with_capacity(asked.tokens.len() * POSITIONS);
    let mut begin = 0;
    for (i, &token) in asked.tokens.iter().enumerate() {
        let rare = if token == u32::from(b'.') { 2 } else { 19 };
        let long = mix(i as u64 ^ asked.start as u64).is_multiple_of(rare);
        let length = 4 + mix(u64::from(token) ^ ((i as u64) << 12) ^ seed) % 40 + if long { 120 } else { 0 };
        let heard = begin..begin + length as usize;
        begin = heard.end;
        out.extend((0..POSITIONS).map(|position| match heard.contains(&position) {
            true => 6.0 + head as f32,
            false => (position * (i + 3 + layer) % 16) as f32 / 64.0,
        }));
    }
    out
}

/// The options of a case, by the names of openai/whisper.
fn options(given: &Value) -> TranscribeOptions {
    let text = |name: &str| given[name].as_str().map(str::to_owned);
    let flag = |name: &str, default: bool| given[name].as_bool().unwrap_or(default);
    let number = |name: &str| given[name].as_f64().map(|number| number as f32);
    // Absent: the default; null: none.
    let threshold =
        |name: &str, default: f32| given.get(name).map_or(Some(default), |value| value.as_f64().map(|x| x as f32));
    TranscribeOptions {
        language: text("language"),
        task: if given["task"] == "translate" { Task::Translate } else { Task::Transcribe },
        prompt: text("initial_prompt"),
        carry_prompt: flag("carry_initial_prompt", false),
        temperature: Temperature::Ladder(vec![0.0]),
        beam_size: given["beam_size"].as_u64().map(|size| size as usize),
        patience: number("patience").unwrap_or(1.0),
        timestamps: !flag("without_timestamps", false),
        word_timestamps: flag("word_timestamps", false),
        condition_on_previous_text: flag("condition_on_previous_text", true),
        compression_ratio_threshold: threshold("compression_ratio_threshold", 2.4),
        logprob_threshold: threshold("logprob_threshold", -1.0),
        no_speech_threshold: threshold("no_speech_threshold", 0.6),
        hallucination_silence_threshold: number("hallucination_silence_threshold"),
        ..Default::default()
    }
}

fn near(ours: f64, theirs: &Value, tolerance: f64) -> bool {
    theirs.as_f64().is_some_and(|theirs| (ours - theirs).abs() <= tolerance)
}

/// Times are cut at the end of the content here.
fn same_time(ours: f64, theirs: &Value, duration: f64) -> bool {
    theirs.as_f64().is_some_and(|theirs| (ours - theirs.min(duration)).abs() < 1e-3)
}

fn compare(name: &str, segment: &Segment, expected: &Value, duration: f64) {
    let tokens: Vec<u64> = segment.tokens.iter().map(|&token| u64::from(token)).collect();
    assert_eq!(serde_json::json!(tokens), expected["tokens"], "{name}");
    assert_eq!(segment.seek as u64, expected["seek"].as_u64().unwrap(), "{name}");
    assert!(near(f64::from(segment.avg_logprob), &expected["avg_logprob"], 1e-4), "{name}: {segment:?} {expected}");
    assert!(near(f64::from(segment.no_speech_prob), &expected["no_speech_prob"], 1e-5), "{name}");
    // Another zlib: a short text may be two bytes longer.
    let ratio = f64::from(segment.compression_ratio) / expected["compression_ratio"].as_f64().unwrap();
    assert!((0.85..1.15).contains(&ratio), "{name}: {segment:?} {expected}");
    for (ours, theirs) in [(segment.start, &expected["start"]), (segment.end, &expected["end"])] {
        assert!(same_time(ours, theirs, duration), "{name}: {segment:?} {expected}");
    }
    let words = expected["words"].as_array().unwrap();
    assert_eq!(segment.words.len(), words.len(), "{name}: {segment:?} {expected}");
    for (ours, theirs) in segment.words.iter().zip(words) {
        assert_eq!(ours.text, theirs[0].as_str().unwrap(), "{name}");
        let times = same_time(ours.start, &theirs[1], duration) && same_time(ours.end, &theirs[2], duration);
        assert!(times && near(f64::from(ours.probability), &theirs[3], 1e-4), "{name}: {ours:?} {theirs}");
    }
}

#[test]
fn segments_and_words_are_those_of_the_original() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/golden/openai_rules.json");
    let cases: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(cases.len(), 48);
    let (tokens, words) = (special_tokens(), Words(WORDS.to_vec()));
    for case in &cases {
        let seed = case["seed"].as_u64().unwrap();
        let frames = case["frames"].as_u64().unwrap() as usize;
        let name = format!("seed {seed}, {}", case["options"]);
        let mut network = Scripted::new(POSITIONS, |asked, out| logits(seed, asked, out));
        network.attention = Some(Box::new(move |asked, head| scores(seed, asked, head)));
        let mut segments: Vec<Segment> = Vec::new();
        let mut language = String::new();
        let mut emit = |event| match event {
            TranscriptEvent::Segment(segment) => segments.push(segment),
            TranscriptEvent::Language { code, .. } => language = code,
            _ => {}
        };
        let (mut recording, options) = (Recording::new(frames), options(&case["options"]));
        crate::transcribe(&mut network, &words, &tokens, &mut recording, &options, &mut emit, &|| false).unwrap();
        let windows: Vec<usize> = network.encoded.iter().map(|window| window.0).collect();
        assert_eq!(serde_json::json!(windows), case["windows"], "{name}");
        assert_eq!(language, case["language"].as_str().unwrap(), "{name}");
        let expected = case["segments"].as_array().unwrap();
        for (segment, expected) in segments.iter().zip(expected) {
            compare(&name, segment, expected, frames as f64 / 100.0);
        }
        assert_eq!(segments.len(), expected.len(), "{name}");
    }
}
