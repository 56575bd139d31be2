//! Configurations in both spellings, and GGUF metadata, give the architecture that transformers has for them.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail by panicking")]

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tsserve_models::architecture::{Activation, Architecture, LayerNorms, RopeScaling};
use tsserve_models::checkpoint::Checkpoint;
use tsserve_models::config::{architecture_from_json, special_ids_from_json};
use tsserve_models::weights::ModelFiles;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

fn config(path: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixtures().join(path)).unwrap()).unwrap()
}

fn v5(name: &str) -> Architecture {
    architecture_from_json(&config(&format!("models/{name}/config.json"))).unwrap()
}

#[test]
fn both_spellings_are_one_architecture() {
    for name in ["llama", "llama_smollm2", "qwen2", "qwen3", "gemma3_text"] {
        let v4 = architecture_from_json(&config(&format!("golden/configs_v4/{name}.json"))).unwrap();
        assert_eq!(v4, v5(name), "{name}");
    }
}

#[test]
fn llama_has_its_own_rope_scaling() {
    let llama = v5("llama");
    let expected =
        RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max_position: 64 };
    assert_eq!(llama.ropes[0].scaling, expected);
    assert_eq!((llama.ropes[0].theta, llama.ropes[0].rotary_dim), (10_000.0, 32));
    assert_eq!((llama.vocab_size, llama.hidden_size, llama.layers.len()), (512, 64, 4));
    assert!(!llama.tied_head && !llama.norm_plus_one);
    assert_eq!((llama.norm_eps, llama.embedding_scale, llama.max_position_embeddings), (1e-5, 1.0, 4096));
    let layer = &llama.layers[3];
    assert_eq!((layer.attention.n_heads, layer.attention.n_kv_heads, layer.attention.head_dim), (4, 2, 32));
    assert_eq!(layer.attention.scale, 32_f32.powf(-0.5));
    assert!(!layer.attention.qkv_bias && !layer.attention.o_bias && !layer.attention.qk_norm && !layer.mlp.bias);
    assert_eq!((layer.mlp.intermediate_size, layer.mlp.activation), (144, Activation::Silu));
    assert_eq!((layer.norms, layer.attention.window), (LayerNorms::Pre, None));
}

#[test]
fn qwens_differ_in_biases_and_norms() {
    let (qwen2, qwen3) = (v5("qwen2"), v5("qwen3"));
    assert!(qwen2.layers.iter().all(|l| l.attention.qkv_bias && !l.attention.o_bias && !l.attention.qk_norm));
    assert!(qwen3.layers.iter().all(|l| !l.attention.qkv_bias && l.attention.qk_norm));
    assert_eq!((qwen2.layers[0].attention.head_dim, qwen3.layers[0].attention.head_dim), (16, 32));
    // The v4 configuration has a window of 8 that use_sliding_window turns off.
    assert!(qwen2.layers.iter().all(|l| l.attention.window.is_none()));
}

#[test]
fn qwen2_slides_from_max_window_layers_on() {
    let mut config = config("golden/configs_v4/qwen2.json");
    config["use_sliding_window"] = json!(true);
    let windows = |config: &Value| -> Vec<_> {
        architecture_from_json(config).unwrap().layers.iter().map(|l| l.attention.window).collect()
    };
    assert_eq!(windows(&config), [None, None, Some(8), Some(8)]);
    config["layer_types"] = json!(["sliding_attention", "full_attention", "full_attention", "full_attention"]);
    assert_eq!(windows(&config), [Some(8), None, None, None]);
}

#[test]
fn mistral_has_one_window_unless_it_is_null() {
    let mut config = config("golden/configs_v4/llama_smollm2.json");
    config["model_type"] = json!("mistral");
    let window = |config: &Value| architecture_from_json(config).unwrap().layers[4].attention.window;
    assert_eq!(window(&config), Some(4096));
    config["sliding_window"] = json!(8);
    assert_eq!(window(&config), Some(8));
    config["sliding_window"] = Value::Null;
    assert_eq!(window(&config), None);
}

#[test]
fn gemma3_has_two_ropes_and_four_norms() {
    let gemma = v5("gemma3_text");
    let windows: Vec<_> = gemma.layers.iter().map(|l| (l.attention.window, l.attention.rope)).collect();
    assert_eq!(windows[..5], [(Some(8), Some(1)); 5]);
    assert_eq!(windows[5], (None, Some(0)));
    assert_eq!((gemma.ropes[0].theta, gemma.ropes[1].theta), (1e6, 1e4));
    assert_eq!(gemma.ropes[0].scaling, RopeScaling::Linear { factor: 8.0 });
    assert_eq!(gemma.ropes[1].scaling, RopeScaling::None);
    assert!(gemma.norm_plus_one && gemma.tied_head);
    assert_eq!(gemma.embedding_scale, 48_f32.sqrt());
    let layer = &gemma.layers[0];
    assert_eq!((layer.norms, layer.mlp.activation), (LayerNorms::Sandwich, Activation::GeluTanh));
    assert!(layer.attention.qk_norm);
    assert!((layer.attention.scale - 24_f32.powf(-0.5)).abs() < 1e-7);
}

#[test]
fn tiny_gguf_files_are_their_configs() {
    let quant = config("golden/quant/quant.json");
    for name in ["llama_mixed32", "qwen3_kquants"] {
        let model = &quant["models"][name];
        let file = fixtures().join("golden/quant").join(model["file"].as_str().unwrap());
        let checkpoint = Checkpoint::open(&ModelFiles::discover(&file).unwrap()).unwrap();
        let mut config = model["config"].clone();
        config["model_type"] = model["architecture"].clone();
        assert_eq!(checkpoint.architecture, architecture_from_json(&config).unwrap(), "{name}");
        for (tensor, kind) in model["types"].as_object().unwrap() {
            assert_eq!(checkpoint.weights().info(tensor).unwrap().dtype.to_string(), kind.as_str().unwrap());
        }
    }
}

#[test]
fn nonsense_is_refused_with_the_key() {
    let base = config("models/llama/config.json");
    let broken = [
        ("num_attention_heads", json!(0), "attention heads"),
        ("num_attention_heads", json!(5), "key-value heads"),
        ("num_key_value_heads", json!(3), "key-value heads"),
        ("num_key_value_heads", json!(8), "key-value heads"),
        ("num_hidden_layers", json!(1_000_000_000_000_u64), "num_hidden_layers"),
        ("num_hidden_layers", json!(-1), "num_hidden_layers"),
        ("hidden_size", json!(1_u64 << 40), "hidden size"),
        ("hidden_size", json!("64"), "hidden_size"),
        ("hidden_size", Value::Null, "hidden_size"),
        ("head_dim", json!(31), "rotary dimension"),
        ("head_dim", json!(1 << 20), "head dimension"),
        ("vocab_size", json!(0), "vocabulary size"),
        ("rms_norm_eps", json!(0.0), "norm epsilon"),
        ("rms_norm_eps", json!("a"), "rms_norm_eps"),
        ("rope_parameters", json!([1]), "rope_parameters"),
        ("rope_parameters", json!({"rope_type": "linear"}), "factor"),
        ("rope_parameters", json!({"rope_type": "linear", "factor": -1.0}), "factor"),
        ("rope_parameters", json!({"rope_theta": 0}), "rope base"),
        ("tie_word_embeddings", json!(1), "tie_word_embeddings"),
    ];
    for (key, value, says) in broken {
        let mut config = base.clone();
        config[key] = value.clone();
        let error = architecture_from_json(&config).expect_err(&format!("{key} = {value}"));
        assert_eq!(error.code(), "model_broken", "{key} = {value}: {error}");
        assert!(error.to_string().contains(says), "{key} = {value}: {error}");
    }
    assert_eq!(architecture_from_json(&json!([])).unwrap_err().code(), "model_broken");
    assert_eq!(architecture_from_json(&json!({})).unwrap_err().code(), "model_broken");
}

#[test]
fn what_is_not_supported_is_named() {
    let base = config("models/llama/config.json");
    let cases = [
        ("model_type", json!("deepseek_v3"), "\"deepseek_v3\""),
        ("model_type", json!("deepseek_v3"), "llama, mistral, qwen2, qwen3, gemma3_text"),
        ("rope_parameters", json!({"rope_type": "yarn", "factor": 4.0}), "\"yarn\""),
        ("rope_parameters", json!({"rope_theta": 1e4, "partial_rotary_factor": 0.5}), "partial_rotary_factor"),
        ("hidden_act", json!("relu2"), "relu2"),
        ("quantization_config", json!({"quant_method": "awq"}), "awq"),
    ];
    for (key, value, says) in cases {
        let mut config = base.clone();
        config[key] = value;
        let error = architecture_from_json(&config).unwrap_err();
        assert_eq!(error.code(), "model_unsupported", "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn end_tokens_come_from_the_generation_config_first() {
    let config = json!({"eos_token_id": 7, "bos_token_id": 1, "pad_token_id": -1});
    let ids = special_ids_from_json(Some(&json!({"eos_token_id": [2, 3, 2]})), &config).unwrap();
    assert_eq!((ids.eos_token_ids, ids.bos_token_id, ids.pad_token_id), (vec![2, 3], Some(1), None));
    let ids = special_ids_from_json(Some(&json!({"eos_token_id": null})), &config).unwrap();
    assert_eq!(ids.eos_token_ids, [7]);
    assert_eq!(special_ids_from_json(None, &json!({})).unwrap().eos_token_ids, Vec::<u32>::new());
    assert!(special_ids_from_json(None, &json!({"eos_token_id": "x"})).is_err());
}
