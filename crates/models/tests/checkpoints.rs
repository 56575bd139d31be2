//! Tiny checkpoints: tensors by role, and the texts beside them.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail by panicking")]

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use tsserve_models::checkpoint::{Checkpoint, LayerTensor, TensorRole};
use tsserve_models::weights::ModelFiles;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

fn open(path: &str) -> Checkpoint {
    Checkpoint::open(&ModelFiles::discover(&fixtures().join(path)).unwrap()).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn golden(name: &str, tensor: &str) -> Tensor {
    let path = fixtures().join(format!("golden/{name}.safetensors"));
    candle_core::safetensors::load(path, &Device::Cpu).unwrap().remove(tensor).unwrap()
}

#[test]
fn all_roles_load_with_the_shape_of_the_file() {
    for name in ["llama", "llama_smollm2", "qwen2", "qwen3", "gemma3_text"] {
        let checkpoint = open(&format!("models/{name}"));
        let roles = checkpoint.roles();
        let mut bytes = 0;
        for role in &roles {
            let tensor = checkpoint.load(*role, DType::F32, &Device::Cpu).unwrap();
            assert_eq!(tensor.dims(), checkpoint.tensor_info(*role).unwrap().shape, "{name}: {role}");
            bytes += 4 * tensor.elem_count() as u64;
        }
        // Every tensor of the file has a role, except a tied head that the file repeats.
        assert_eq!(roles.len(), checkpoint.weights().names().count(), "{name}");
        assert_eq!(checkpoint.loaded_bytes(4), bytes);
        assert_eq!(checkpoint.weights().f32_bytes(), bytes);
        assert_eq!(checkpoint.weights().format_summary(), "BF16 (safetensors)");
    }
}

#[test]
fn bf16_loads_as_it_is_and_as_f32() {
    let checkpoint = open("models/qwen2");
    for tensor in LayerTensor::ALL {
        let role = TensorRole::Layer(2, tensor);
        let Ok(wide) = checkpoint.load(role, DType::F32, &Device::Cpu) else { continue };
        let narrow = checkpoint.load(role, DType::BF16, &Device::Cpu).unwrap();
        assert_eq!(narrow.dtype(), DType::BF16);
        assert_eq!(values(&narrow), values(&wide));
        let half = checkpoint.load(role, DType::F16, &Device::Cpu).unwrap();
        assert_eq!(values(&half), values(&wide.to_dtype(DType::F16).unwrap()));
    }
    assert!(checkpoint.load(TensorRole::Layer(2, LayerTensor::QBias), DType::F32, &Device::Cpu).is_ok());
}

/// What layer 0 gets: rows of the embedding, and Gemma's scale on them.
#[test]
fn scaled_embeddings_are_those_of_transformers() {
    for name in ["llama", "llama_smollm2", "qwen2", "qwen3", "gemma3_text"] {
        let checkpoint = open(&format!("models/{name}"));
        let embedding = checkpoint.load(TensorRole::Embedding, DType::F32, &Device::Cpu).unwrap();
        let ids = golden(name, "a.input_ids").to_dtype(DType::U32).unwrap();
        let scale = f64::from(checkpoint.architecture.embedding_scale);
        let rows = (embedding.index_select(&ids, 0).unwrap() * scale).unwrap();
        let difference = (rows - golden(name, "a.hidden.embed")).unwrap().abs().unwrap().max_all().unwrap();
        let difference = difference.to_scalar::<f32>().unwrap();
        assert!(difference <= 1e-6, "{name}: {difference}");
    }
}

#[test]
fn roles_that_a_family_lacks_are_errors() {
    let checkpoint = open("models/llama");
    for tensor in [LayerTensor::QBias, LayerTensor::QNorm, LayerTensor::PostMlpNorm, LayerTensor::DownBias] {
        let error = checkpoint.load(TensorRole::Layer(0, tensor), DType::F32, &Device::Cpu).unwrap_err();
        assert!(error.to_string().contains("layer 0"), "{error}");
    }
    assert!(checkpoint.load(TensorRole::Layer(4, LayerTensor::Q), DType::F32, &Device::Cpu).is_err());
    assert!(checkpoint.load(TensorRole::Embedding, DType::U8, &Device::Cpu).is_err());
}

#[test]
fn a_tied_head_is_the_embedding() {
    let checkpoint = open("models/llama_smollm2");
    assert_eq!(checkpoint.tensor_name(TensorRole::Head).unwrap(), "model.embed_tokens.weight");
    assert!(!checkpoint.roles().contains(&TensorRole::Head));
}

#[test]
fn texts_come_from_the_folder() {
    let checkpoint = open("models/llama");
    assert_eq!(checkpoint.special_ids().eos_token_ids, [506, 509, 510]);
    assert_eq!(checkpoint.special_ids().bos_token_id, Some(505));
    assert!(checkpoint.generation_config_json().unwrap().contains("\"temperature\": 0.6"));
    assert!(checkpoint.tokenizer_json().unwrap().ends_with("tokenizer.json"));
    let templates = checkpoint.chat_templates();
    assert_eq!((templates.len(), templates[0].name.as_str()), (1, "default"));
    let file = std::fs::read_to_string(fixtures().join("models/llama/chat_template.jinja")).unwrap();
    assert_eq!(templates[0].source, file);
    assert_eq!(checkpoint.special_tokens()["bos_token"], "<|begin_of_text|>");
    assert!(checkpoint.gguf_metadata().is_none() && checkpoint.gguf_tokenizer().is_none());
}

#[test]
fn texts_come_from_gguf_metadata() {
    let checkpoint = open("golden/quant/llama_mixed32.gguf");
    assert_eq!(checkpoint.special_ids().bos_token_id, Some(505));
    assert_eq!(checkpoint.special_ids().eos_token_ids[0], 510);
    assert_eq!(checkpoint.chat_templates().len(), 1);
    assert!(checkpoint.chat_templates()[0].source.contains("<|start_header_id|>"));
    assert_eq!(checkpoint.special_tokens()["bos_token"], "<|begin_of_text|>");
    let tokenizer = checkpoint.gguf_tokenizer().unwrap();
    assert_eq!((tokenizer.model.as_str(), tokenizer.pre.as_str()), ("gpt2", "llama-bpe"));
    assert_eq!((tokenizer.tokens.len(), tokenizer.token_types.len(), tokenizer.merges.len()), (512, 512, 249));
    assert_eq!(
        (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id),
        (Some(505), Some(510), Some(506))
    );
    assert_eq!((tokenizer.add_bos, tokenizer.add_space_prefix), (Some(true), None));
    assert!(tokenizer.scores.is_empty());
}

/// GGUF stores q and k of Llama with the rows of each head interleaved.
#[test]
fn llama_gguf_rows_come_in_the_order_of_transformers() {
    let checkpoint = open("golden/quant/llama_mixed32.gguf");
    let head_dim = 16;
    for (tensor, permuted) in [(LayerTensor::Q, true), (LayerTensor::K, true), (LayerTensor::V, false)] {
        let role = TensorRole::Layer(0, tensor);
        assert_eq!(checkpoint.is_row_permuted(role), permuted);
        let stored = checkpoint.weights().tensor_f32(&checkpoint.tensor_name(role).unwrap()).unwrap();
        let loaded = values(&checkpoint.load(role, DType::F32, &Device::Cpu).unwrap());
        for (row, loaded) in loaded.chunks(64).enumerate() {
            let (head, within) = (row / head_dim, row % head_dim);
            let from = if permuted { head * head_dim + within % 8 * 2 + within / 8 } else { row };
            assert_eq!(loaded, &stored[from * 64..(from + 1) * 64], "{tensor:?} row {row}");
        }
    }
}
