//! Types of caches on the CPU runner: how long their blocks are, and which layers keep f16.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

mod runner;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, safetensors};
use runner::{TINY, TestRunner, fixtures, open};
use tsserve_models::checkpoint::Checkpoint;
use tsserve_models::cpu::{CacheType, Level, cache_summary, kv_layout};

/// The tiny model with biases of queries and keys.
const BIASED: &str = "qwen2";

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // Nothing is lost if it stays.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn tiny(name: &str) -> Checkpoint {
    open(&fixtures().join("models").join(name))
}

/// [`BIASED`], with the key biases of layer 1 `factor` times as large, in `folder`.
fn with_key_bias(folder: &Path, factor: f64) -> Checkpoint {
    std::fs::create_dir_all(folder).unwrap();
    let from = fixtures().join("models").join(BIASED);
    for entry in std::fs::read_dir(&from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    let file = folder.join("model.safetensors");
    let mut tensors: HashMap<_, _> = safetensors::load(&file, &Device::Cpu).unwrap();
    let bias = tensors.get_mut("model.layers.1.self_attn.k_proj.bias").unwrap();
    *bias = (&*bias * factor).unwrap();
    safetensors::save(&tensors, &file).unwrap();
    open(folder)
}

#[test]
fn blocks_are_little_more_than_half_as_long() {
    for name in TINY {
        let checkpoint = tiny(name);
        let [half, q8] = CacheType::ALL.map(|cache_type| kv_layout(&checkpoint, cache_type));
        assert_eq!(half.len(), q8.len());
        for (half, q8) in half.iter().zip(&q8) {
            assert_eq!((half.kind, &half.layers), (q8.kind, &q8.layers));
            let heads: usize = q8.layers.iter().map(|&i| checkpoint.architecture.layers[i].attention.n_kv_heads).sum();
            // Two lines of scales for each head: much, beside heads as small as these.
            assert_eq!(q8.bytes_per_block, half.bytes_per_block / 2 + heads * 128, "{name}");
        }
        assert_eq!(cache_summary(&checkpoint, CacheType::Q8_0), "q8_0");
        assert_eq!(cache_summary(&checkpoint, CacheType::F16), "f16");
    }
}

#[test]
fn layers_with_large_key_biases_keep_f16() {
    let folder = Folder(std::env::temp_dir().join(format!("tsserve-cache-{}", std::process::id())));
    let checkpoint = with_key_bias(&folder.0, 1000.0);
    let layers = checkpoint.architecture.layers.len();
    assert_eq!(cache_summary(&checkpoint, CacheType::Q8_0), format!("q8_0, f16 in 1 of {layers} layers"));
    let [half, mixed] = CacheType::ALL.map(|cache_type| kv_layout(&checkpoint, cache_type)[0].bytes_per_block);
    let all = kv_layout(&tiny(BIASED), CacheType::Q8_0)[0].bytes_per_block;
    assert_eq!(mixed, all + (half - all) / layers);

    // Both types side by side in a block: one layer's positions are not another's.
    let tokens: Vec<u32> = (0..150).map(|i| (i * 37 + 11) % 400).collect();
    let [half, mixed] = CacheType::ALL.map(|cache_type| {
        TestRunner::cpu_as(&checkpoint, Level::detect(), None, cache_type, 128, 1024).prompt_logits(&tokens, 64)
    });
    let largest = half.iter().flatten().fold(0.0f32, |largest, x| largest.max(x.abs()));
    let worst =
        half.iter().flatten().zip(mixed.iter().flatten()).fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
    assert!(worst > 0.0 && worst < 0.05 * largest, "{worst} of {largest}");
}
