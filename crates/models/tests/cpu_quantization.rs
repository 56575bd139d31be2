//! Weights quantised at load: what they become, how near the logits stay, and Q4_K's search beside GGML's.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests are not seen as tests")]

mod runner;

use std::collections::HashMap;
use std::path::Path;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use runner::{TestRunner, fixtures, open};
use tsserve_engine::RowRole;
use tsserve_kernels::{Format, Matrix};
use tsserve_models::checkpoint::Checkpoint;
use tsserve_models::cpu::{CacheType, Level, Quantization, packed_size};

/// Number of tokens of a prompt.
const PROMPT: u32 = 40;

/// A folder of the system's for one test, removed in the end.
struct Folder(std::path::PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // Nothing is lost if it stays.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A llama of random bf16 weights whose rows divide into 256, but for those of its last matrix (384).
fn wide(name: &str) -> (Folder, Checkpoint) {
    let folder = Folder(std::env::temp_dir().join(format!("tsserve-{name}-{}", std::process::id())));
    std::fs::create_dir_all(&folder.0).unwrap();
    let text = std::fs::read_to_string(fixtures().join("models/llama/config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    let (hidden, inner, heads, kv_heads, dim, vocab) = (256, 384, 8, 2, 32, 512);
    for (key, value) in [
        ("hidden_size", hidden),
        ("intermediate_size", inner),
        ("num_attention_heads", heads),
        ("num_key_value_heads", kv_heads),
        ("head_dim", dim),
        ("num_hidden_layers", 3),
        ("vocab_size", vocab),
    ] {
        config[key] = value.into();
    }
    config["tie_word_embeddings"] = false.into();
    std::fs::write(folder.0.join("config.json"), config.to_string()).unwrap();
    let mut seed = 1_u64;
    let mut tensors = HashMap::new();
    let mut matrix = |name: String, rows: usize, columns: usize| {
        // A sum of uniforms (splitmix64) of variance 1 / columns.
        let mut next = || {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (0..4).map(|i| f32::from(((z >> (16 * i)) & 0xffff) as u16) / 32768.0 - 1.0).sum::<f32>() * 0.866
        };
        let values: Vec<f32> = (0..rows * columns).map(|_| next() / (columns as f32).sqrt()).collect();
        let tensor = Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap();
        tensors.insert(name, tensor.to_dtype(DType::BF16).unwrap());
    };
    matrix("model.embed_tokens.weight".into(), vocab, hidden);
    matrix("lm_head.weight".into(), vocab, hidden);
    for layer in 0..3 {
        let name = |tensor: &str| format!("model.layers.{layer}.{tensor}.weight");
        matrix(name("self_attn.q_proj"), heads * dim, hidden);
        matrix(name("self_attn.k_proj"), kv_heads * dim, hidden);
        matrix(name("self_attn.v_proj"), kv_heads * dim, hidden);
        matrix(name("self_attn.o_proj"), hidden, heads * dim);
        matrix(name("mlp.gate_proj"), inner, hidden);
        matrix(name("mlp.up_proj"), inner, hidden);
        matrix(name("mlp.down_proj"), hidden, inner);
    }
    let ones = Tensor::ones(hidden, DType::BF16, &Device::Cpu).unwrap();
    tensors.insert("model.norm.weight".into(), ones.clone());
    for layer in 0..3 {
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            tensors.insert(format!("model.layers.{layer}.{norm}.weight"), ones.clone());
        }
    }
    candle_core::safetensors::save(&tensors, folder.0.join("model.safetensors")).unwrap();
    let checkpoint = open(&folder.0);
    (folder, checkpoint)
}

/// Logits of a prompt as an answer's rows are computed, so that only the weights differ; and bytes of the weights.
fn logits(checkpoint: &Checkpoint, quantization: Option<Quantization>) -> (Vec<Vec<f32>>, usize) {
    let mut model = TestRunner::cpu_as(checkpoint, Level::detect(), quantization, CacheType::F16, 128, 1024);
    model.role = RowRole::Decode;
    let tokens: Vec<u32> = (0..PROMPT).map(|i| (i * 37 + 11) % 400).collect();
    (model.prompt_logits(&tokens, 7), model.runner.weight_bytes())
}

/// Square root of the sum of squared differences, in parts of that of squares.
fn distance(found: &[Vec<f32>], expected: &[Vec<f32>]) -> f64 {
    let square = |x: f64| x * x;
    let pairs = || found.iter().flatten().zip(expected.iter().flatten());
    let error: f64 = pairs().map(|(a, b)| square(f64::from(a - b))).sum();
    (error / pairs().map(|(_, b)| square(f64::from(*b))).sum::<f64>()).sqrt()
}

/// Random weights have nothing that errors average out in: those of a matrix are 0.5 %, 8.5 % and 7 %, and the matrices'
/// add up, here to 4.5 times as much. Limits with room above what was measured.
const NEAR: [(Quantization, f64); 3] =
    [(Quantization::Q8_0, 0.034), (Quantization::Q4_0, 0.55), (Quantization::Q4_K, 0.45)];

#[test]
fn logits_stay_near_those_of_the_stored_weights() {
    let (_folder, checkpoint) = wide("near");
    let (expected, stored_bytes) = logits(&checkpoint, None);
    let mut distances = Vec::new();
    for (quantization, most) in NEAR {
        let (found, bytes) = logits(&checkpoint, Some(quantization));
        let distance = distance(&found, &expected);
        println!("{}: {distance:.4}, {bytes} of {stored_bytes} bytes", quantization.name());
        assert!(distance > 1e-4 && distance <= most, "{}: {distance}", quantization.name());
        distances.push(distance);
        let size = packed_size(&checkpoint, Some(quantization));
        // Seven norms of 256 in f32 are not in matrices.
        assert_eq!(size.bytes, bytes as u64 + 7 * 256 * 4, "{}", quantization.name());
    }
    assert!(distances[0] < distances[2] && distances[2] < distances[1], "{distances:?}");
}

#[test]
fn every_matrix_becomes_what_it_should() {
    let (_folder, checkpoint) = wide("formats");
    let counts = |quantization| {
        let size = packed_size(&checkpoint, quantization);
        size.quantized.into_iter().map(|(format, count)| format!("{format} x{count}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(counts(None), "");
    assert_eq!(counts(Some(Quantization::Q8_0)), "Q8_0 x23");
    assert_eq!(counts(Some(Quantization::Q4_0)), "Q4_0 x21 Q8_0 x2");
    // The three of 384 columns beside embedding and head.
    assert_eq!(counts(Some(Quantization::Q4_K)), "Q4_K x18 Q8_0 x5");
}

#[test]
fn tiny_models_with_odd_rows_stay_near_too() {
    for name in ["llama", "qwen2", "qwen3", "gemma3_text", "llama_smollm2"] {
        let checkpoint = open(&fixtures().join("models").join(name));
        let (expected, _) = logits(&checkpoint, None);
        for quantization in Quantization::ALL {
            let distance = distance(&logits(&checkpoint, Some(quantization)).0, &expected);
            println!("{name} {}: {distance:.4}", quantization.name());
            // Rows of 48 and 120 are left as they are: some of these models change in a few matrices or in none.
            let most = if quantization == Quantization::Q4_0 { 0.5 } else { 0.05 };
            assert!(distance <= most, "{name} {}: {distance}", quantization.name());
        }
    }
}

#[test]
fn what_is_quantised_stays_as_it_is() {
    let checkpoint = open(&fixtures().join("golden/quant/llama_mixed32.gguf"));
    let (expected, bytes) = logits(&checkpoint, None);
    let size = packed_size(&checkpoint, Some(Quantization::Q4_0));
    let (found, found_bytes) = logits(&checkpoint, Some(Quantization::Q4_0));
    // Two matrices in F16 and two in BF16, and none of the other twelve.
    assert_eq!(size.quantized.into_iter().collect::<Vec<_>>(), [("Q4_0".to_owned(), 4)]);
    assert!(found_bytes < bytes && found != expected);
    let twice = open(&fixtures().join("golden/quant/qwen3_kquants.gguf"));
    assert_eq!(packed_size(&twice, Some(Quantization::Q4_0)).quantized.len(), 0);
}

/// GGML's reference search, as candle has it, weighs errors of large weights more. Ours counts all the same, and by that
/// measure is at least as near everywhere.
#[test]
fn q4_k_is_at_least_as_near_as_ggmls_search() {
    let checkpoint = open(Path::new(&fixtures().join("models/llama")));
    let mut sources: Vec<(String, Vec<f32>)> = Vec::new();
    let golden =
        candle_core::safetensors::load(fixtures().join("golden/quant/blocks.safetensors"), &Device::Cpu).unwrap();
    for kind in ["Q4_0", "Q8_0", "BF16"] {
        let name = format!("{kind}.source");
        sources.push((name.clone(), golden[&name].flatten_all().unwrap().to_vec1().unwrap()));
    }
    for role in checkpoint.roles() {
        let values = checkpoint.load_f32(role).unwrap();
        if values.len().is_multiple_of(256) && checkpoint.stored_rows(role).is_ok() {
            sources.push((role.to_string(), values));
        }
    }
    let square = |x: f32| f64::from(x) * f64::from(x);
    for (name, values) in sources {
        let n_rows = values.len() / 256;
        let tensor = Tensor::from_slice(&values, (n_rows, 256), &Device::Cpu).unwrap();
        let ggml = QTensor::quantize(&tensor, GgmlDType::Q4K).unwrap().dequantize(&Device::Cpu).unwrap();
        let ggml: Vec<f32> = ggml.flatten_all().unwrap().to_vec1().unwrap();
        let row = |i: usize, out: &mut [f32]| out.copy_from_slice(&values[256 * i..][..256]);
        let matrix = Matrix::encode(Format::Q4_K, n_rows, 256, 1, &row).unwrap();
        let mut ours = vec![0.0; values.len()];
        ours.chunks_exact_mut(256).enumerate().for_each(|(i, out)| matrix.dequantize_row(i, out));
        let error = |found: &[f32]| values.iter().zip(found).map(|(a, b)| square(a - b)).sum::<f64>();
        let norm: f64 = values.iter().map(|x| square(*x)).sum();
        println!("{name}: {:.3e}, GGML {:.3e}", error(&ours) / norm, error(&ggml) / norm);
        assert!(error(&ours) <= error(&ggml), "{name}");
    }
}
