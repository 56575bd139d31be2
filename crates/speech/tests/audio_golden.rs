//! Decoding against librosa: `fixtures/golden/audio`.

mod common;

use common::{bytes, decode, fixture, input, json, rms, tensor};
use tsserve_speech::{AudioInput, AudioReader};

/// Files that hold a signal which another file holds too.
fn same_signal(name: &str) -> &str {
    match name {
        "s16.wav" | "16k.flac" => "clip",
        "short_s16.wav" => "f32.wav",
        "opus.webm" => "opus.ogg",
        other => other,
    }
}

/// Greatest difference of samples: 0 where nothing is lossy or resampled. `None`: librosa's samples are not stored.
fn tolerance(name: &str) -> Option<f32> {
    match name {
        "s16.wav" | "short_s16.wav" | "f32.wav" | "s24.wav" | "u8.wav" | "16k.flac" => Some(0.0),
        "44k_stereo.mp3" | "aac.aac" => None,
        // The same sums in another order.
        "mono.mp3" | "vorbis.ogg" | "aac.m4a" => Some(1e-4),
        // 16 kHz from the same decoder.
        "opus.ogg" | "opus.webm" => Some(1e-5),
        // Two resamplers with filters of their own; in these the sound reaches the end of the band.
        "8k.wav" | "mulaw.wav" => Some(5e-3),
        _ => Some(3e-3),
    }
}

#[test]
fn every_format_equals_the_reference() {
    let expected = bytes("golden/audio/expected.safetensors");
    let golden = json("golden/audio/audio.json");
    let clip: Vec<f32> = bytes("golden/audio/files/s16.wav")[44..]
        .chunks_exact(2)
        .map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32768.0)
        .collect();
    let mut wrong = Vec::new();
    for (name, entry) in golden["files"].as_object().unwrap() {
        let samples = decode(&AudioInput::Path(fixture(&format!("golden/audio/files/{name}")))).unwrap();
        let length = entry["librosa"]["samples"].as_u64().unwrap() as usize;
        let level = entry["librosa"]["rms"].as_f64().unwrap();
        if samples.len() != length {
            wrong.push(format!("{name}: {} samples, not {length}", samples.len()));
            continue;
        }
        let off = (rms(&samples) / level - 1.0).abs();
        if off > 1e-3 {
            wrong.push(format!("{name}: RMS is off by {off:.5}"));
        }
        let Some(tolerance) = tolerance(name) else { continue };
        let reference = match same_signal(name) {
            "clip" => clip.clone(),
            other => tensor(&expected, &format!("{other}.pcm")).0,
        };
        let worst = samples.iter().zip(&reference).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        if worst > tolerance {
            wrong.push(format!("{name}: samples differ by {worst:.6}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn from_memory_and_again_from_the_start_is_the_same() {
    for name in ["44k_mono.wav", "16k.flac", "mono.mp3", "vorbis.ogg", "opus.webm", "aac.m4a"] {
        let whole = decode(&AudioInput::Path(fixture(&format!("golden/audio/files/{name}")))).unwrap();
        let mut reader = AudioReader::open(&input(bytes(&format!("golden/audio/files/{name}")))).unwrap();
        let mut samples = Vec::new();
        assert!(reader.read(&mut samples).unwrap());
        reader.rewind().unwrap();
        samples.clear();
        while reader.read(&mut samples).unwrap() {}
        assert!(!reader.read(&mut samples).unwrap());
        assert_eq!(samples, whole, "{name}");
    }
}

#[test]
fn names_do_not_matter() {
    let flac = bytes("golden/audio/files/16k.flac");
    let named = AudioInput::Bytes { bytes: flac.into(), name: Some("speech.mp3".to_owned()) };
    assert_eq!(decode(&named).unwrap().len(), 47_840);
    let path = fixture("golden/audio/broken/flac_named.wav");
    assert_eq!(decode(&AudioInput::Path(path)).unwrap().len(), 47_840);
}

/// Weights of a low-pass of 65 taps for samples at 16 kHz that passes what is a few hundred Hz below `hertz`.
fn low_pass(hertz: f64) -> Vec<f64> {
    let (half, cut) = (32.0, hertz / 8000.0);
    let taps = (0..65).map(|i| {
        let x = f64::from(i) - half;
        let sinc = if x == 0.0 { cut } else { (std::f64::consts::PI * cut * x).sin() / (std::f64::consts::PI * x) };
        sinc * (0.54 + 0.46 * (std::f64::consts::PI * x / half).cos())
    });
    taps.collect()
}

/// Resamplers differ in how they end the band and in nothing else: neither in delay nor in what is below.
#[test]
fn below_the_end_of_the_band_resampled_sound_is_the_reference() {
    let expected = bytes("golden/audio/expected.safetensors");
    for (name, end) in
        [("44k_mono.wav", 6500.0), ("48k_stereo.wav", 6500.0), ("48k_stereo.flac", 6500.0), ("8k.wav", 3200.0)]
    {
        let samples = decode(&AudioInput::Path(fixture(&format!("golden/audio/files/{name}")))).unwrap();
        let reference = tensor(&expected, &format!("{name}.pcm")).0;
        let taps = low_pass(end);
        let below = |samples: &[f32]| -> Vec<f64> {
            let product = |window: &[f32]| window.iter().zip(&taps).map(|(&x, tap)| f64::from(x) * tap).sum();
            samples.windows(taps.len()).map(product).collect()
        };
        let (found, wanted) = (below(&samples), below(&reference));
        let power = |values: &[f64]| values.iter().map(|x| x * x).sum::<f64>();
        let noise: Vec<f64> = found.iter().zip(&wanted).map(|(a, b)| a - b).collect();
        let decibels = 10.0 * (power(&noise) / power(&wanted)).log10();
        assert!(decibels < -90.0, "{name}: {decibels:.1} dB");
    }
}
