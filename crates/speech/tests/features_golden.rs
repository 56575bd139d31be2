//! Features against the reference: filter banks, mels of synthetic signals and of speech.

mod common;

use common::{bytes, fixture, json, tensor};
use tsserve_speech::{
    AudioInput, FeatureOptions, Features, LogMel, MelFilters, RecordingFeatures, VadOptions, WINDOW_FRAMES,
};

const TOLERANCE: f32 = 1e-4;

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn options(n_mels: usize) -> FeatureOptions {
    FeatureOptions { n_mels, vad: VadOptions::default() }
}

/// Columns `range` of `[rows][columns]`.
fn columns(matrix: &[f32], columns: usize, range: std::ops::Range<usize>) -> Vec<f32> {
    matrix.chunks_exact(columns).flat_map(|row| row[range.clone()].to_vec()).collect()
}

#[test]
fn filters_equal_the_reference() {
    let golden = bytes("golden/mel_dtw.safetensors");
    for n_mels in [80, 128] {
        let (expected, shape) = tensor(&golden, &format!("filters{n_mels}"));
        assert_eq!(shape, [201, n_mels]);
        let off = worst(&MelFilters::new(n_mels).dense(), &expected);
        assert!(off < 1e-8, "{n_mels}: {off}");
    }
}

#[test]
fn mels_of_signals_equal_the_reference() {
    let golden = bytes("golden/mel_dtw.safetensors");
    for n_mels in [80, 128] {
        let mut mel = LogMel::new(n_mels);
        for signal in ["silence", "sine440", "noise", "chirp", "clipped"] {
            let (pcm, _) = tensor(&golden, &format!("{signal}.pcm"));
            let (expected, shape) = tensor(&golden, &format!("{signal}.mel{n_mels}"));
            let window = mel.window(&pcm, 200);
            let off = worst(&columns(&window, 200, 0..shape[1]), &expected);
            assert!(off < TOLERANCE, "{signal} {n_mels}: {off}");
        }
    }
}

#[test]
fn mels_of_speech_equal_the_reference() {
    for (file, n_mels, frames) in [("whisper", 80, 200), ("whisper_en", 80, 200), ("whisper_30s", 80, WINDOW_FRAMES)] {
        let golden = bytes(&format!("golden/{file}.safetensors"));
        let (pcm, _) = tensor(&golden, "short.pcm_s16");
        let (expected, shape) = tensor(&golden, "short.mel");
        assert_eq!(shape, [n_mels, frames]);
        let off = worst(&LogMel::new(n_mels).window(&pcm, frames), &expected);
        assert!(off < TOLERANCE, "{file}: {off}");
    }
    let golden = bytes("golden/whisper.safetensors");
    let (pcm, _) = tensor(&golden, "long.pcm_s16");
    let (expected, shape) = tensor(&golden, "long.mel");
    let off = worst(&LogMel::new(80).whole(&pcm), &expected);
    assert!(off < TOLERANCE, "{off}");

    // The rules of the original differ at the end only, where silence follows.
    let mut features = RecordingFeatures::from_samples(pcm, &options(80));
    assert_eq!((features.n_frames(), shape[1]), (710, 710));
    let mut out = vec![0.0; 80 * 710];
    features.window(0, 0..710, &mut out).unwrap();
    let off = worst(&columns(&out, 710, 0..708), &columns(&expected, 710, 0..708));
    assert!(off < TOLERANCE, "{off}");
}

#[test]
fn windows_of_a_file_equal_the_probes() {
    let golden = json("real/whisper-base.json");
    for clip in ["0870", "0880"] {
        let probe = &golden["clips"][clip]["mel_probe"];
        let path = fixture(&format!("inputs/speech/sense_{clip}.wav"));
        let mut features =
            RecordingFeatures::open(&AudioInput::Path(path), &options(80), std::sync::Arc::default()).unwrap();
        let mut out = vec![0.0; 80 * WINDOW_FRAMES];
        features.window(0, 0..WINDOW_FRAMES, &mut out).unwrap();
        for at in probe["at"].as_array().unwrap() {
            let at: Vec<f64> = at.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
            let value = f64::from(out[at[0] as usize * WINDOW_FRAMES + at[1] as usize]);
            assert!((value - at[2]).abs() < 1e-4, "{clip}: {value} {at:?}");
        }
        let mean = out.iter().map(|&v| f64::from(v)).sum::<f64>() / out.len() as f64;
        assert!((mean - probe["mean"].as_f64().unwrap()).abs() < 1e-5, "{clip}: {mean}");
    }
}
