//! The type of the KV cache, from the options to what the load reports.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::path::Path;
use std::sync::atomic::AtomicBool;

use tsserve_core::{CacheType, CoreError, DeviceKind, Dtype, LoadOptions, LoadedModel, Service};

fn options(model: &str) -> LoadOptions {
    LoadOptions {
        model: Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(model).display().to_string(),
        hub_only: false,
        device: DeviceKind::Cpu,
        dtype: None,
        quantization: None,
        max_model_len: Some(256),
        max_num_seqs: Some(2),
        max_queue: None,
        max_batch_tokens: Some(64),
        kv_cache_memory: Some(1 << 20),
        kv_cache_type: None,
        threads: None,
        prefix_cache: None,
        speculation: None,
        no_download: true,
        default_seed: None,
    }
}

fn load(options: &LoadOptions) -> Result<LoadedModel, CoreError> {
    Service::new(|_| {}).load(options, &mut |_| {}, &AtomicBool::new(false))
}

#[test]
fn the_same_memory_holds_more_blocks_of_8_bits() {
    let half = load(&options("models/llama")).unwrap();
    let q8 = load(&LoadOptions { kv_cache_type: Some(CacheType::Q8_0), ..options("models/llama") }).unwrap();
    assert_eq!((half.kv_cache_type.as_deref(), q8.kv_cache_type.as_deref()), (Some("f16"), Some("q8_0")));
    // Of heads with 32 dimensions: 2048 bytes a block in f16, 1152 in 8 bits.
    let ratio = q8.kv_blocks as f64 / half.kv_blocks as f64;
    assert!((1.75..1.8).contains(&ratio), "{} blocks, and {} of f16", q8.kv_blocks, half.kv_blocks);
    assert!(q8.kv_bytes <= 1 << 20 && half.kv_bytes <= 1 << 20);
}

#[test]
fn other_runners_keep_what_they_compute_in() {
    let exact = load(&LoadOptions { dtype: Some(Dtype::F32), ..options("models/llama") }).unwrap();
    assert_eq!(exact.kv_cache_type.as_deref(), Some("f32"));
}

#[test]
fn what_cannot_be_had_is_refused_before_the_load() {
    let q8 = |model| LoadOptions { kv_cache_type: Some(CacheType::Q8_0), ..options(model) };
    for (options, message) in [
        (
            // Nothing is looked for.
            LoadOptions { dtype: Some(Dtype::F32), ..q8("models/nowhere") },
            "kv-cache-type q8_0 is for packed weights on the CPU, not for dtype f32",
        ),
        (
            LoadOptions { device: DeviceKind::Cuda, ..q8("models/nowhere") },
            "kv-cache-type q8_0 is for packed weights on the CPU, not for device cuda",
        ),
        (
            q8("golden/quant/qwen3_kquants.gguf"),
            "kv-cache-type q8_0 is for packed weights on the CPU: K of layer 0 is stored as IQ4_XS",
        ),
    ] {
        let error = load(&options).unwrap_err();
        assert_eq!(
            (error.code(), error.param(), error.to_string().as_str()),
            ("invalid_request", Some("kvCacheType"), message)
        );
    }
}
