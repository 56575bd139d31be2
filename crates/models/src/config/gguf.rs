//! `Architecture` from the metadata of a GGUF file, and the token ids it names.

use super::blueprint::{Blueprint, LayerKind, derived_head_dim, invalid, layer_count, within};
use super::{ConfigError, SpecialIds};
use crate::architecture::{Activation, Architecture, LayerNorms, Rope, RopeScaling};
use crate::error::ModelError;
use crate::weights::{GgufMetadata, GgufValue, Weights};

/// `general.architecture`s that are understood.
pub const SUPPORTED_GGUF_ARCHITECTURES: &[&str] = &["llama", "qwen2", "qwen3", "gemma3"];

/// Gemma 3: rope base of the layers with a window, and every how many layers there is one without.
const GEMMA3_LOCAL_ROPE_BASE: f64 = 10_000.0;
const GEMMA3_PATTERN: usize = 6;
/// Gemma 3 27B alone scales its scores by the width per head instead of the head dimension; the file does not say so,
/// its number of layers tells it from the others (llama.cpp's rule).
const GEMMA3_27B_LAYERS: usize = 62;

/// Texts of control tokens that end an answer, besides the end token that the file names: files made from a chat model
/// often name only one of several.
const END_TOKENS: &[&str] =
    &["<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<end_of_turn>", "<|end|>"];
/// `tokenizer.ggml.token_type` of control tokens.
const CONTROL: i32 = 3;

/// What a GGUF file describes.
///
/// # Errors
/// An architecture or rope that is not supported; keys that are missing or make no sense; a rope table that cannot be
/// read.
pub fn architecture_from_gguf(metadata: &GgufMetadata, weights: &Weights) -> Result<Architecture, ModelError> {
    let family = metadata.str("general.architecture").ok_or_else(|| missing("general.architecture"))?;
    if !SUPPORTED_GGUF_ARCHITECTURES.contains(&family) {
        let supported = SUPPORTED_GGUF_ARCHITECTURES.to_vec();
        return Err(ConfigError::UnsupportedFamily { model_type: family.to_owned(), supported }.into());
    }
    let keys = Keys { metadata, family };
    if keys.usize("expert_count")?.is_some_and(|n| n > 0) {
        return Err(unsupported(format!("a mixture of experts of architecture \"{family}\"")).into());
    }
    let gemma = family == "gemma3";
    let n_layers = layer_count(&keys.key("block_count"), keys.required("block_count")?)?;
    let hidden_size = keys.required("embedding_length")?;
    let n_heads = keys.required("attention.head_count")?;
    let head_dim = match keys.usize("attention.key_length")? {
        Some(head_dim) => head_dim,
        None => derived_head_dim(hidden_size, n_heads)?,
    };
    if keys.usize("attention.value_length")?.is_some_and(|len| len != head_dim) {
        return Err(unsupported("keys and values of different lengths").into());
    }
    let embedding = weights.info("token_embd.weight");
    let vocab_size = embedding
        .and_then(|info| info.shape.first().copied())
        .ok_or_else(|| ModelError::MissingTensor { name: "token_embd.weight".to_owned(), family: family.to_owned() })?;
    let has = |name: &str| weights.info(name).is_some();
    let attention_scale = match keys.f64("attention.scale")? {
        Some(scale) => scale,
        None if gemma && n_layers == GEMMA3_27B_LAYERS => (derived_head_dim(hidden_size, n_heads)? as f64).powf(-0.5),
        None => (head_dim as f64).powf(-0.5),
    };
    let rope = rope(&keys, weights, head_dim)?;
    let (layers, ropes) = if gemma {
        let theta = keys.f64("rope.freq_base_swa")?.unwrap_or(GEMMA3_LOCAL_ROPE_BASE);
        let local = Rope { theta, rotary_dim: rope.rotary_dim, scaling: RopeScaling::None };
        (gemma3_windows(&keys, n_layers)?, vec![rope, local])
    } else {
        (vec![LayerKind::FULL; n_layers], vec![rope])
    };
    let softcap = |key| Ok::<_, ConfigError>(keys.f64(key)?.filter(|&cap| cap != 0.0).map(|cap| cap as f32));
    let blueprint = Blueprint {
        family: family.to_owned(),
        vocab_size,
        hidden_size,
        intermediate_size: keys.required("feed_forward_length")?,
        max_position_embeddings: keys.required("context_length")?,
        n_heads,
        n_kv_heads: keys.usize("attention.head_count_kv")?.unwrap_or(n_heads),
        head_dim,
        norm_eps: {
            let key = "attention.layer_norm_rms_epsilon";
            keys.f64(key)?.ok_or_else(|| missing(&keys.key(key)))?
        },
        // The converter adds the one.
        norm_plus_one: false,
        norms: if gemma { LayerNorms::Sandwich } else { LayerNorms::Pre },
        activation: if gemma { Activation::GeluTanh } else { Activation::Silu },
        embedding_scale: if gemma { (hidden_size as f64).sqrt() as f32 } else { 1.0 },
        attention_scale,
        qkv_bias: family == "qwen2" || has("blk.0.attn_q.bias"),
        o_bias: has("blk.0.attn_output.bias"),
        mlp_bias: has("blk.0.ffn_gate.bias"),
        qk_norm: matches!(family, "qwen3" | "gemma3"),
        softcap: softcap("attn_logit_softcapping")?,
        final_logit_softcap: softcap("final_logit_softcapping")?,
        tied_head: !has("output.weight"),
        ropes,
        layers,
    };
    Ok(blueprint.build()?)
}

fn gemma3_windows(keys: &Keys<'_>, n_layers: usize) -> Result<Vec<LayerKind>, ConfigError> {
    let window = keys.required("attention.sliding_window")?;
    let key = "attention.sliding_window_pattern";
    let pattern = keys.metadata.get(&keys.key(key));
    let slides: Vec<bool> = match pattern.map(|value| (value, value.as_u64(), value.as_u64s())) {
        None => (1..=n_layers).map(|n| !n.is_multiple_of(GEMMA3_PATTERN)).collect(),
        Some((_, Some(pattern), _)) if pattern > 0 => {
            (1..=n_layers as u64).map(|n| !n.is_multiple_of(pattern)).collect()
        }
        Some((_, _, Some(slides))) if slides.len() == n_layers => slides.into_iter().map(|s| s != 0).collect(),
        Some((value, ..)) => {
            return Err(invalid(&keys.key(key), value.describe(), "a positive whole number or one entry per layer"));
        }
    };
    let kind = |slides| if slides { LayerKind { window: Some(window), rope: 1 } } else { LayerKind::FULL };
    Ok(slides.into_iter().map(kind).collect())
}

fn rope(keys: &Keys<'_>, weights: &Weights, head_dim: usize) -> Result<Rope, ModelError> {
    let rotary_dim = keys.usize("rope.dimension_count")?.unwrap_or(head_dim);
    if rotary_dim != head_dim && keys.family == "llama" {
        // The converter's permutation of q and k is known for whole heads only.
        return Err(unsupported("rope on a part of each head in a GGUF file of architecture \"llama\"").into());
    }
    let linear = |factor: f64| match factor {
        1.0 => Ok(RopeScaling::None),
        factor if factor.is_finite() && factor > 0.0 => Ok(RopeScaling::Linear { factor }),
        factor => Err(invalid(&keys.key("rope.scaling.factor"), factor, "a positive number")),
    };
    let factor = match keys.f64("rope.scaling.factor")? {
        Some(factor) => Some(factor),
        None => keys.f64("rope.scale_linear")?,
    };
    let scaling = match keys.str("rope.scaling.type")? {
        Some("none") => RopeScaling::None,
        None => factor.map_or(Ok(RopeScaling::None), linear)?,
        Some("linear") => linear(factor.unwrap_or(1.0))?,
        Some(other) => return Err(unsupported(format!("rope scaling of type \"{other}\"")).into()),
    };
    let scaling = match weights.info("rope_freqs.weight") {
        None => scaling,
        Some(info) => {
            let factors = weights.tensor_f32("rope_freqs.weight")?;
            if factors.len() != rotary_dim / 2 {
                let (name, expected) = ("rope_freqs.weight".to_owned(), vec![rotary_dim / 2]);
                return Err(ModelError::Shape { name, expected, found: info.shape.clone() });
            }
            if let Some(factor) = factors.iter().find(|factor| !(factor.is_finite() && **factor > 0.0)) {
                return Err(invalid("rope_freqs.weight", factor, "positive numbers").into());
            }
            if scaling != RopeScaling::None {
                return Err(unsupported("linear rope scaling together with rope factors").into());
            }
            RopeScaling::Factors(factors)
        }
    };
    let theta = keys.f64("rope.freq_base")?.unwrap_or(10_000.0);
    Ok(Rope { theta, rotary_dim, scaling })
}

/// Token ids that a GGUF file names: the end token, and every control token that ends a turn.
pub fn special_ids_from_gguf(metadata: &GgufMetadata) -> SpecialIds {
    let id = |key: &str| metadata.u32(&format!("tokenizer.ggml.{key}"));
    let mut eos_token_ids: Vec<u32> =
        ["eos_token_id", "eot_token_id", "eom_token_id"].into_iter().filter_map(id).collect();
    let tokens = metadata.strings("tokenizer.ggml.tokens").unwrap_or_default();
    let types = metadata.get("tokenizer.ggml.token_type").and_then(GgufValue::as_i32s).unwrap_or_default();
    for (id, (token, kind)) in (0_u32..).zip(tokens.iter().zip(types)) {
        if *kind == CONTROL && END_TOKENS.contains(&token.as_str()) {
            eos_token_ids.push(id);
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    eos_token_ids.retain(|id| seen.insert(*id));
    SpecialIds { eos_token_ids, bos_token_id: id("bos_token_id"), pad_token_id: id("padding_token_id") }
}

fn missing(key: &str) -> ConfigError {
    ConfigError::Missing { key: key.to_owned() }
}

fn unsupported(what: impl Into<String>) -> ConfigError {
    ConfigError::Unsupported { what: what.into() }
}

/// Keys below the architecture's name.
struct Keys<'a> {
    metadata: &'a GgufMetadata,
    family: &'a str,
}

impl<'a> Keys<'a> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.family)
    }

    fn read<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl Fn(&'a GgufValue) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let key = self.key(name);
        let Some(value) = self.metadata.get(&key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| invalid(&key, value.describe(), expected))
    }

    /// A whole number, or an array that says the same for all layers.
    fn usize(&self, name: &str) -> Result<Option<usize>, ConfigError> {
        self.read(name, "a whole number that is the same for all layers", |value| {
            let same =
                |values: Vec<u64>| values.iter().all(|v| Some(v) == values.first()).then(|| values.first().copied());
            value.as_u64().or_else(|| same(value.as_u64s()?)?)?.try_into().ok()
        })
    }

    fn required(&self, name: &str) -> Result<usize, ConfigError> {
        let value = self.usize(name)?.ok_or_else(|| missing(&self.key(name)))?;
        within(&self.key(name), value, u32::MAX as usize)?;
        Ok(value)
    }

    fn f64(&self, name: &str) -> Result<Option<f64>, ConfigError> {
        self.read(name, "a number", GgufValue::as_f64)
    }

    fn str(&self, name: &str) -> Result<Option<&'a str>, ConfigError> {
        self.read(name, "a string", GgufValue::as_str)
    }
}
