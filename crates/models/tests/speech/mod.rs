//! What the Whisper tests share: goldens and models.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

pub mod ggml;
#[path = "../levels/mod.rs"]
mod levels;
pub mod mel;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use tsserve_engine::ComputePool;
use tsserve_models::cpu::Level;
use tsserve_models::whisper::{Precision, WhisperCheckpoint, WhisperModel, WhisperOptions, WhisperRow};

#[allow(unused_imports, reason = "each test binary uses its own part")]
pub use levels::{asked_level, fastest, levels, unlike_levels};

pub const TINY: [&str; 3] = ["whisper", "whisper_en", "whisper_30s"];

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

pub fn json(path: &str) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(fixtures().join(path)).unwrap()).unwrap()
}

/// Tensors of a golden file by name.
pub struct Golden(HashMap<String, Tensor>);

impl Golden {
    pub fn load(name: &str) -> Self {
        let path = fixtures().join(format!("golden/{name}.safetensors"));
        Self(candle_core::safetensors::load(path, &Device::Cpu).unwrap())
    }

    pub fn ids(&self, name: &str) -> Vec<u32> {
        self.0[name].to_dtype(DType::U32).unwrap().to_vec1().unwrap()
    }

    pub fn values(&self, name: &str) -> Vec<f32> {
        self.0[name].flatten_all().unwrap().to_vec1().unwrap()
    }
}

pub fn options(level: Level, precision: Precision) -> WhisperOptions {
    let pool = ComputePool::new();
    WhisperOptions { level, threads: 2, precision, arithmetic: None, max_windows: 8, max_caches: 8, pool }
}

pub fn tiny(name: &str, level: Level, precision: Precision) -> WhisperModel {
    WhisperModel::load(&open(name), options(level, precision), &mut |_, _| {}).unwrap()
}

pub fn open(name: &str) -> WhisperCheckpoint {
    WhisperCheckpoint::open(&fixtures().join("models").join(name)).unwrap()
}

/// Logits after every token, all computed at once over an empty cache.
pub fn teacher_forced(model: &mut WhisperModel, audio: u32, tokens: &[u32]) -> Vec<f32> {
    let cache = model.new_cache().unwrap();
    let wanted: Vec<usize> = (0..tokens.len()).collect();
    let mut logits = Vec::new();
    model.decode(&[WhisperRow { audio, cache, tokens, wanted: &wanted }], &mut logits).unwrap();
    model.release_cache(cache);
    logits
}

/// The greatest difference.
pub fn worst(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len(), "lengths");
    assert!(found.iter().all(|x| x.is_finite()));
    found.iter().zip(expected).fold(0.0, |worst, (a, b)| worst.max((a - b).abs()))
}

/// The folder of real Whisper base weights.
pub fn real_folder() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tsserve/weights");
    let folder = std::env::var_os("TSSERVE_WEIGHTS_DIR").map_or_else(default, PathBuf::from).join("whisper-base-ct2");
    let file = folder.join("model.bin");
    assert!(file.is_file(), "{} is missing; fetch the weights first, or set TSSERVE_WEIGHTS_DIR", file.display());
    folder
}

/// Features of a clip of the fixtures, one window of 30 s.
pub fn clip_features(clip: &str, n_mels: usize) -> Vec<f32> {
    let wav = std::fs::read(fixtures().join(format!("inputs/speech/sense_{clip}.wav"))).unwrap();
    mel::log_mel(&mel::read_wav(&wav), n_mels, 3000)
}

/// Log of the softmax.
pub fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().fold(f32::NEG_INFINITY, |max, &x| max.max(x));
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    logits.iter().map(|&x| f64::from(x - max) - sum.ln()).collect()
}

/// The features that the golden of `whisper_v3` was computed from.
pub fn v3_features(golden: &Golden) -> Vec<f32> {
    let (kept, beyond) = (golden.values("short.mel_kept"), golden.values("short.mel_beyond")[0]);
    let n_kept = kept.len() / 128;
    kept.chunks(n_kept).flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(beyond, 3000 - n_kept))).collect()
}
