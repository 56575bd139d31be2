//! The real GGUF files are what they are said to be.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail by panicking")]

use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use tsserve_models::architecture::{Activation, LayerNorms};
use tsserve_models::checkpoint::{Checkpoint, TensorRole};
use tsserve_models::weights::{ModelFiles, WeightType};

fn open(name: &str) -> Checkpoint {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tsserve/weights");
    let folder = std::env::var_os("TSSERVE_WEIGHTS_DIR").map_or_else(default, PathBuf::from);
    let file = folder.join(format!("{name}.gguf"));
    assert!(file.is_file(), "{} is missing; fetch the weights first, or set TSSERVE_WEIGHTS_DIR", file.display());
    Checkpoint::open(&ModelFiles::discover(&file).unwrap()).unwrap()
}

fn count(checkpoint: &Checkpoint, kind: WeightType) -> usize {
    let weights = checkpoint.weights();
    weights.names().filter(|name| weights.info(name).unwrap().dtype == kind).count()
}

#[test]
fn smollm2_is_a_llama() {
    let checkpoint = open("smollm2-135m-instruct-q4_1");
    let llama = &checkpoint.architecture;
    assert_eq!((llama.family.as_str(), llama.layers.len(), llama.hidden_size), ("llama", 30, 576));
    assert_eq!((llama.vocab_size, llama.max_position_embeddings, llama.tied_head), (49_152, 8192, true));
    let layer = &llama.layers[29];
    assert_eq!((layer.attention.n_heads, layer.attention.n_kv_heads, layer.attention.head_dim), (9, 3, 64));
    assert_eq!((layer.mlp.intermediate_size, layer.mlp.activation), (1536, Activation::Silu));
    assert_eq!(llama.ropes[0].theta, 100_000.0);
    assert_eq!(checkpoint.weights().format_summary(), "Q4_1 x210 + Q8_0 (GGUF)");
    assert_eq!(checkpoint.weights().file_bytes(), 98_362_432);
    assert_eq!(checkpoint.weights().n_parameters(), 134_515_008);
    assert_eq!(checkpoint.loaded_bytes(4), 4 * 134_515_008);
    // <|im_end|> by name, <|endoftext|> by its text.
    assert_eq!(checkpoint.special_ids().eos_token_ids, [2, 0]);
    let tokenizer = checkpoint.gguf_tokenizer().unwrap();
    assert_eq!((tokenizer.pre.as_str(), tokenizer.merges.len(), tokenizer.add_bos), ("smollm", 48_900, Some(false)));
    assert_eq!(checkpoint.chat_templates().len(), 1);
}

#[test]
fn qwen_coder_is_a_qwen2_with_its_own_head() {
    let checkpoint = open("qwen2.5-coder-0.5b-instruct-q4_k_m");
    let qwen = &checkpoint.architecture;
    assert_eq!((qwen.family.as_str(), qwen.layers.len(), qwen.hidden_size), ("qwen2", 24, 896));
    assert_eq!((qwen.vocab_size, qwen.max_position_embeddings, qwen.tied_head), (151_936, 32_768, false));
    let layer = &qwen.layers[0];
    assert_eq!((layer.attention.n_heads, layer.attention.n_kv_heads, layer.attention.head_dim), (14, 2, 64));
    assert_eq!((layer.attention.qkv_bias, layer.attention.o_bias, layer.mlp.intermediate_size), (true, false, 4864));
    let counts =
        [WeightType::Q5_0, WeightType::Q8_0, WeightType::Q6_K, WeightType::Q4_K].map(|t| count(&checkpoint, t));
    assert_eq!(counts, [133, 13, 12, 12]);
    assert_eq!(checkpoint.tensor_info(TensorRole::Head).unwrap().dtype, WeightType::Q8_0);
    // <|im_end|> and <|endoftext|>, as in the model's generation_config.json.
    assert_eq!(checkpoint.special_ids().eos_token_ids, [151_645, 151_643]);
    assert!(checkpoint.chat_templates()[0].source.contains("tools"));
}

#[test]
fn gemma_has_windows_and_two_ropes() {
    let checkpoint = open("gemma-3-270m-q4_k_m");
    let gemma = &checkpoint.architecture;
    assert_eq!((gemma.family.as_str(), gemma.layers.len(), gemma.hidden_size), ("gemma3", 18, 640));
    assert_eq!((gemma.vocab_size, gemma.max_position_embeddings, gemma.tied_head), (262_144, 32_768, true));
    assert_eq!((gemma.ropes[0].theta, gemma.ropes[1].theta), (1e6, 1e4));
    assert!(!gemma.norm_plus_one);
    assert_eq!(gemma.embedding_scale, 640_f32.sqrt());
    for (index, layer) in gemma.layers.iter().enumerate() {
        let full = index % 6 == 5;
        assert_eq!(layer.attention.window, if full { None } else { Some(512) });
        assert_eq!(layer.attention.rope, Some(if full { 0 } else { 1 }));
        assert_eq!((layer.norms, layer.mlp.activation), (LayerNorms::Sandwich, Activation::GeluTanh));
        assert_eq!((layer.attention.n_heads, layer.attention.n_kv_heads, layer.attention.head_dim), (4, 1, 256));
        assert_eq!((layer.attention.scale, layer.attention.qk_norm), (1.0 / 16.0, true));
    }
    let counts =
        [WeightType::Q5_0, WeightType::Q4_K, WeightType::Q8_0, WeightType::Q6_K].map(|t| count(&checkpoint, t));
    assert_eq!(counts, [81, 27, 10, 9]);
    assert!(checkpoint.chat_templates().is_empty());
    let tokenizer = checkpoint.gguf_tokenizer().unwrap();
    assert_eq!((tokenizer.model.as_str(), tokenizer.scores.len(), tokenizer.add_bos), ("llama", 262_144, Some(true)));
    assert_eq!(checkpoint.special_tokens()["bos_token"], "<bos>");
}

/// Every tensor loads, with finite values.
#[test]
fn all_tensors_load() {
    for name in ["smollm2-135m-instruct-q4_1", "gemma-3-270m-q4_k_m", "qwen2.5-coder-0.5b-instruct-q4_k_m"] {
        let started = std::time::Instant::now();
        let checkpoint = open(name);
        let opened = started.elapsed();
        let mut loading = std::time::Duration::ZERO;
        for role in checkpoint.roles() {
            let started = std::time::Instant::now();
            let tensor = checkpoint.load(role, DType::F32, &Device::Cpu).unwrap();
            loading += started.elapsed();
            let sum = tensor.sum_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(sum.is_finite(), "{name}: {role}");
        }
        println!("{name}: opened in {opened:.1?}, loaded as f32 in {loading:.1?}");
    }
}
