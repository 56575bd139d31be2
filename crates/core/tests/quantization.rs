//! Quantisation at load, from the options to what the load reports.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::path::Path;
use std::sync::atomic::AtomicBool;

use tsserve_core::{CoreError, DeviceKind, Dtype, LoadOptions, LoadedModel, Quantization, Service};

fn load(model: &str, dtype: Option<Dtype>, quantization: Option<Quantization>) -> Result<LoadedModel, CoreError> {
    let options = LoadOptions {
        model: Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(model).display().to_string(),
        hub_only: false,
        device: DeviceKind::Cpu,
        dtype,
        quantization,
        max_model_len: Some(256),
        max_num_seqs: Some(2),
        max_queue: None,
        max_batch_tokens: Some(64),
        kv_cache_memory: None,
        kv_cache_type: None,
        threads: None,
        prefix_cache: None,
        speculation: None,
        no_download: true,
        default_seed: None,
    };
    Service::new(|_| {}).load(&options, &mut |_| {}, &AtomicBool::new(false))
}

#[test]
fn the_report_says_what_became_of_the_weights() {
    let stored = load("models/llama", None, None).unwrap();
    assert_eq!(stored.weight_format, "BF16 (safetensors)");
    let packed = load("models/llama", None, Some(Quantization::Q8_0)).unwrap();
    assert_eq!(packed.weight_format, "BF16 (safetensors) as Q8_0");
    assert!(packed.weight_bytes < stored.weight_bytes, "{} of {}", packed.weight_bytes, stored.weight_bytes);
    let mixed = load("models/llama", None, Some(Quantization::Q4_0)).unwrap();
    assert!(mixed.weight_format.starts_with("BF16 (safetensors) as Q4_0 x"), "{}", mixed.weight_format);
    assert!(mixed.weight_bytes < packed.weight_bytes);
    assert!(packed.warnings.iter().chain(&mixed.warnings).all(|warning| !warning.contains("quantization")));
}

#[test]
fn a_quantisation_that_changes_nothing_is_said() {
    // Rows of 48 and 120.
    let model = load("models/llama_smollm2", None, Some(Quantization::Q4_K)).unwrap();
    let warning = "quantization q4_k has no effect: no matrix of the model can take it".to_owned();
    assert!(model.warnings.contains(&warning), "{:?}", model.warnings);
    assert_eq!(model.weight_format, "BF16 (safetensors)");
}

#[test]
fn what_cannot_be_quantised_is_refused() {
    let error = load("models/llama", Some(Dtype::F32), Some(Quantization::Q4_0)).unwrap_err();
    let message = "quantization and dtype exclude each other: quantised weights have no such type";
    assert_eq!((error.code(), error.to_string().as_str()), ("invalid_request", message));
}
