//! Features of recordings: streamed against in memory, windows in any order, where somebody speaks.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Random, bytes, input, json, wav};
use tsserve_speech::{FeatureOptions, Features, KEPT_SECONDS, RecordingFeatures, SpeechError, VadOptions};

const N_MELS: usize = 80;

fn options() -> FeatureOptions {
    FeatureOptions { n_mels: N_MELS, vad: VadOptions::default() }
}

fn clip(name: &str) -> Vec<i16> {
    bytes(&format!("inputs/speech/{name}.wav"))[44..]
        .chunks_exact(2)
        .map(|b| i16::from_le_bytes([b[0], b[1]]))
        .collect()
}

fn floats(samples: &[i16]) -> Vec<f32> {
    samples.iter().map(|&sample| f32::from(sample) / 32768.0).collect()
}

fn window(features: &mut dyn Features, start: usize, content: Range<usize>, frames: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; N_MELS * frames];
    features.window(start, content, &mut out).unwrap();
    out
}

/// Longer than what is kept: the second pass decodes anew.
fn long() -> Vec<i16> {
    let clip = clip("sense_0870");
    let times = (KEPT_SECONDS + 40) * 16_000 / clip.len();
    // Each time as loud as nowhere else, so that no window equals another.
    (0..times)
        .flat_map(|i| clip.iter().map(move |&sample| (f32::from(sample) * (0.4 + i as f32 * 0.01)) as i16))
        .collect()
}

#[test]
fn streamed_windows_equal_those_in_memory() {
    let samples = long();
    let mut memory = RecordingFeatures::from_samples(floats(&samples), &options());
    let cancelled = Arc::new(AtomicBool::new(false));
    let audio = input(wav(16_000, 1, &samples));
    let mut streamed = RecordingFeatures::open(&audio, &options(), Arc::clone(&cancelled)).unwrap();
    assert_eq!(streamed.n_samples(), samples.len() as u64);
    assert_eq!((streamed.n_frames(), memory.n_frames()), (samples.len() / 160, samples.len() / 160));
    assert!((streamed.duration() - samples.len() as f64 / 16_000.0).abs() < 1e-9);
    assert_eq!(streamed.speech().unwrap(), memory.speech().unwrap());
    let n = memory.n_frames();
    // Forward by uneven steps, a little back, over the end, back to the start, far ahead, far back.
    let starts = [0, 2800, 5000, 4990, 2100, 20_000, n - 3000, n - 100, n + 50, 0, 30_000, 1234];
    for start in starts {
        let all = 0..n + 3000;
        let a = window(&mut streamed, start, all.clone(), 3000);
        assert_eq!(a, window(&mut memory, start, all, 3000), "{start}");
    }
    cancelled.store(true, Ordering::Relaxed);
    let mut out = vec![0.0; N_MELS * 100];
    assert!(matches!(streamed.window(20_000, 0..n, &mut out), Err(SpeechError::Cancelled)));
}

#[test]
fn what_is_not_content_is_zero_and_what_follows_is_silence() {
    let samples = floats(&clip("sense_0880"));
    let mut features = RecordingFeatures::from_samples(samples, &options());
    assert_eq!(features.n_frames(), 299);
    let whole = window(&mut features, 0, 0..400, 400);
    let part = window(&mut features, 50, 100..250, 300);
    let silence = whole[399];
    for mel in 0..N_MELS {
        for column in 0..300 {
            let expected = if (50..200).contains(&column) { whole[mel * 400 + 50 + column] } else { 0.0 };
            assert_eq!(part[mel * 300 + column], expected);
        }
        // Half a frame behind the end nothing is heard.
        assert!(whole[mel * 400 + 302..mel * 400 + 400].iter().all(|&value| value == silence));
    }
    assert!(whole.iter().all(|&value| value >= silence));
    assert_eq!(window(&mut features, 5000, 0..400, 10), vec![0.0; N_MELS * 10]);
    assert_eq!(window(&mut features, 0, 0..0, 10), vec![0.0; N_MELS * 10]);
    assert!(window(&mut features, 0, 0..10, 0).is_empty());
}

#[test]
fn a_single_sample_is_a_recording() {
    for n in [1, 159, 160, 199, 200, 201] {
        let mut features = RecordingFeatures::from_samples(vec![0.5; n], &options());
        assert_eq!(features.n_frames(), n / 160);
        let out = window(&mut features, 0, 0..10, 10);
        assert!(out.iter().all(|value| value.is_finite()));
        assert!(features.speech().unwrap().iter().all(|range| range.end <= n / 160));
    }
}

/// White noise with this root mean square, added.
fn with_noise(samples: &[f32], rms: f32, random: &mut Random) -> Vec<f32> {
    // The sum of twelve uniform numbers is nearly normal, with variance 1.
    let mut noise = || (0..12).map(|_| (random.next() >> 40) as f32 / (1 << 24) as f32).sum::<f32>() - 6.0;
    samples.iter().map(|sample| sample + noise() * rms).collect()
}

/// The clips with pauses between, and where their words are, in seconds.
fn conversation() -> (Vec<f32>, Vec<(f64, f64)>) {
    let golden = json("real/whisper-base.json");
    let (mut samples, mut words) = (vec![0.0; 4 * 16_000], Vec::new());
    for (name, pause) in [("0870", 6), ("0880", 3), ("0870", 15)] {
        let start = samples.len() as f64 / 16_000.0;
        for segment in golden["clips"][name]["segments"].as_array().unwrap() {
            for word in segment["words"].as_array().unwrap() {
                let at = |key: &str| start + word[key].as_f64().unwrap();
                words.push((at("start"), at("end")));
            }
        }
        samples.extend(floats(&clip(&format!("sense_{name}"))));
        samples.resize(samples.len() + pause * 16_000, 0.0);
    }
    (samples, words)
}

#[test]
fn no_word_is_lost_and_pauses_are_found() {
    let (clean, words) = conversation();
    assert!(words.len() > 30);
    let mut random = Random(3);
    // Clean, a quiet room, a loud one: speech is about 0.05.
    for rms in [0.0, 1e-4, 1e-3, 4e-3] {
        for gain in [1.0, 0.05] {
            let noisy: Vec<f32> = with_noise(&clean, rms, &mut random).iter().map(|sample| sample * gain).collect();
            let seconds = noisy.len() as f64 / 16_000.0;
            let mut features = RecordingFeatures::from_samples(noisy, &options());
            let speech = features.speech().unwrap();
            for &(start, end) in &words {
                let (start, end) = ((start * 100.0) as usize, (end * 100.0) as usize);
                let inside = speech.iter().any(|range| range.start <= start && range.end >= end);
                assert!(inside, "noise {rms} gain {gain}: {start}..{end} is not in {speech:?}");
            }
            // 28 of 45 seconds are pauses; half a second of each is padding.
            let spoken = speech.iter().map(|range| range.len()).sum::<usize>() as f64 / 100.0;
            assert!(spoken < 20.5, "noise {rms} gain {gain}: {spoken} of {seconds} s in {speech:?}");
        }
    }
}

#[test]
fn noise_and_silence_are_no_speech() {
    let mut random = Random(4);
    for rms in [0.0, 1e-5, 1e-3, 0.1, 0.5] {
        let noise = with_noise(&vec![0.0; 120 * 16_000], rms, &mut random);
        let mut features = RecordingFeatures::from_samples(noise, &options());
        let speech = features.speech().unwrap();
        assert!(speech.is_empty(), "{rms}: {speech:?}");
    }
}
