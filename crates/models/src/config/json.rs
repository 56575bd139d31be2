//! `Architecture` from a config.json of transformers, in the spelling of version 5 (`rope_parameters`) or 4
//! (`rope_theta`, `rope_scaling`). Where a key is absent, transformers' default for the family holds.

use serde_json::{Map, Value};

use super::ConfigError;
use super::blueprint::{Blueprint, LayerKind, derived_head_dim, invalid, layer_count};
use crate::architecture::{Activation, Architecture, LayerNorms, Rope, RopeScaling};

/// `model_type`s that are understood.
pub const SUPPORTED_MODEL_TYPES: &[&str] = &["llama", "mistral", "qwen2", "qwen3", "gemma3_text"];

const FULL: &str = "full_attention";
const SLIDING: &str = "sliding_attention";

/// What a config.json describes.
///
/// # Errors
/// A family, rope or activation that is not supported; keys that are missing or make no sense.
pub fn architecture_from_json(config: &Value) -> Result<Architecture, ConfigError> {
    let Value::Object(map) = config else {
        return Err(invalid("config.json", "no object", "a JSON object"));
    };
    let config = Fields { map };
    let model_type = config.str("model_type")?.ok_or_else(|| missing("model_type"))?;
    if !SUPPORTED_MODEL_TYPES.contains(&model_type) {
        return Err(ConfigError::UnsupportedFamily {
            model_type: model_type.to_owned(),
            supported: SUPPORTED_MODEL_TYPES.to_vec(),
        });
    }
    if let Some(quantization) = config.object("quantization_config")? {
        let method = quantization.str("quant_method")?.unwrap_or("unknown");
        return Err(unsupported(format!("a safetensors model quantised with \"{method}\"")));
    }
    if model_type == "gemma3_text" { gemma3(&config) } else { llama_like(&config, model_type) }
}

fn llama_like(config: &Fields<'_>, model_type: &str) -> Result<Architecture, ConfigError> {
    let qwen = matches!(model_type, "qwen2" | "qwen3");
    let hidden_size = config.required("hidden_size")?;
    let n_heads = config.required("num_attention_heads")?;
    let n_layers = layer_count("num_hidden_layers", config.required("num_hidden_layers")?)?;
    let default_kv_heads = match model_type {
        "mistral" => 8,
        "qwen2" | "qwen3" => 32,
        _ => n_heads,
    };
    let head_dim = match config.usize("head_dim")? {
        Some(head_dim) => head_dim,
        // transformers gives Qwen3 a default of its own.
        None if model_type == "qwen3" => 128,
        None => derived_head_dim(hidden_size, n_heads)?,
    };
    // Qwen2 always has biases on q, k and v, and none on o; Mistral has none.
    let bias = matches!(model_type, "llama" | "qwen3") && config.bool("attention_bias")?.unwrap_or(false);
    let layers = match model_type {
        "mistral" => {
            // Only null turns the window off; transformers' default is 4096.
            let window = if config.has("sliding_window") { config.usize("sliding_window")? } else { Some(4096) };
            vec![LayerKind { window, rope: 0 }; n_layers]
        }
        "qwen2" | "qwen3" => qwen_windows(config, n_layers)?,
        _ => vec![LayerKind::FULL; n_layers],
    };
    Blueprint {
        family: model_type.to_owned(),
        vocab_size: config.required("vocab_size")?,
        hidden_size,
        intermediate_size: config.required("intermediate_size")?,
        max_position_embeddings: config.usize("max_position_embeddings")?.unwrap_or(match model_type {
            "llama" => 2048,
            "mistral" => 131_072,
            _ => 32_768,
        }),
        n_heads,
        n_kv_heads: config.usize("num_key_value_heads")?.unwrap_or(default_kv_heads),
        head_dim,
        norm_eps: config.f64("rms_norm_eps")?.unwrap_or(1e-6),
        norm_plus_one: false,
        norms: LayerNorms::Pre,
        activation: activation("hidden_act", config.str("hidden_act")?.unwrap_or("silu"))?,
        embedding_scale: 1.0,
        attention_scale: (head_dim as f64).powf(-0.5),
        qkv_bias: model_type == "qwen2" || bias,
        o_bias: bias,
        mlp_bias: !qwen && model_type != "mistral" && config.bool("mlp_bias")?.unwrap_or(false),
        qk_norm: model_type == "qwen3",
        softcap: None,
        final_logit_softcap: None,
        tied_head: config.bool("tie_word_embeddings")?.unwrap_or(false),
        ropes: vec![rope(config, config.rope_parameters()?.as_ref(), head_dim, 10_000.0)?],
        layers,
    }
    .build()
}

fn qwen_windows(config: &Fields<'_>, n_layers: usize) -> Result<Vec<LayerKind>, ConfigError> {
    if !config.bool("use_sliding_window")?.unwrap_or(false) {
        return Ok(vec![LayerKind::FULL; n_layers]);
    }
    let Some(window) = config.usize("sliding_window")? else {
        return Ok(vec![LayerKind::FULL; n_layers]);
    };
    let sliding = LayerKind { window: Some(window), rope: 0 };
    if let Some(types) = config.layer_types(n_layers)? {
        return Ok(types.into_iter().map(|slides| if slides { sliding } else { LayerKind::FULL }).collect());
    }
    let first = config.usize("max_window_layers")?.unwrap_or(28);
    Ok((0..n_layers).map(|layer| if layer >= first { sliding } else { LayerKind::FULL }).collect())
}

fn gemma3(config: &Fields<'_>) -> Result<Architecture, ConfigError> {
    if config.bool("use_bidirectional_attention")?.unwrap_or(false) {
        return Err(unsupported("bidirectional attention"));
    }
    let hidden_size = config.required("hidden_size")?;
    let head_dim = config.usize("head_dim")?.unwrap_or(256);
    let n_layers = layer_count("num_hidden_layers", config.required("num_hidden_layers")?)?;
    let window = config.usize("sliding_window")?.unwrap_or(4096);
    let slides = match config.layer_types(n_layers)? {
        Some(types) => types,
        None => {
            let pattern = match config.usize("sliding_window_pattern")? {
                Some(pattern) => pattern,
                None => config.usize("_sliding_window_pattern")?.unwrap_or(6),
            };
            if pattern == 0 {
                return Err(invalid("sliding_window_pattern", pattern, "a positive whole number"));
            }
            (1..=n_layers).map(|n| !n.is_multiple_of(pattern)).collect()
        }
    };
    let layers = slides
        .into_iter()
        .map(|slides| if slides { LayerKind { window: Some(window), rope: 1 } } else { LayerKind::FULL })
        .collect();

    // Version 5 has one set of parameters per layer type, version 4 a scaling that holds for the full layers only.
    let parameters = config.rope_parameters()?;
    let per_type = |kind: &str| match &parameters {
        Some(parameters) => parameters.object(kind),
        None => Ok(None),
    };
    let (full, local) = (per_type(FULL)?, per_type(SLIDING)?);
    let ropes = if full.is_some() || local.is_some() {
        vec![rope(config, full.as_ref(), head_dim, 1e6)?, rope(&Fields::empty(), local.as_ref(), head_dim, 1e4)?]
    } else {
        let theta = config.f64("rope_local_base_freq")?.unwrap_or(1e4);
        let local = Rope { theta, rotary_dim: head_dim, scaling: RopeScaling::None };
        vec![rope(config, parameters.as_ref(), head_dim, 1e6)?, local]
    };
    let bias = config.bool("attention_bias")?.unwrap_or(false);
    let activation_name = config.str("hidden_activation")?.unwrap_or("gelu_pytorch_tanh");
    Blueprint {
        family: "gemma3_text".to_owned(),
        vocab_size: config.required("vocab_size")?,
        hidden_size,
        intermediate_size: config.required("intermediate_size")?,
        max_position_embeddings: config.usize("max_position_embeddings")?.unwrap_or(131_072),
        n_heads: config.required("num_attention_heads")?,
        n_kv_heads: config.usize("num_key_value_heads")?.unwrap_or(4),
        head_dim,
        norm_eps: config.f64("rms_norm_eps")?.unwrap_or(1e-6),
        norm_plus_one: true,
        norms: LayerNorms::Sandwich,
        activation: activation("hidden_activation", activation_name)?,
        embedding_scale: (hidden_size as f64).sqrt() as f32,
        attention_scale: config.f64("query_pre_attn_scalar")?.unwrap_or(256.0).powf(-0.5),
        qkv_bias: bias,
        o_bias: bias,
        mlp_bias: false,
        qk_norm: true,
        softcap: config.f64("attn_logit_softcapping")?.map(|cap| cap as f32),
        final_logit_softcap: config.f64("final_logit_softcapping")?.map(|cap| cap as f32),
        tied_head: config.bool("tie_word_embeddings")?.unwrap_or(true),
        ropes,
        layers,
    }
    .build()
}

/// `parameters`: version 5's `rope_parameters` or version 4's `rope_scaling`.
fn rope(
    config: &Fields<'_>,
    parameters: Option<&Fields<'_>>,
    head_dim: usize,
    default_theta: f64,
) -> Result<Rope, ConfigError> {
    let none = Fields::empty();
    let parameters = parameters.unwrap_or(&none);
    let theta = match parameters.f64("rope_theta")? {
        Some(theta) => theta,
        None => config.f64("rope_theta")?.unwrap_or(default_theta),
    };
    for fields in [parameters, config] {
        if fields.f64("partial_rotary_factor")?.is_some_and(|factor| factor != 1.0) {
            return Err(unsupported("rope on a part of each head (partial_rotary_factor)"));
        }
    }
    let kind = match parameters.str("rope_type")? {
        Some(kind) => kind,
        None => parameters.str("type")?.unwrap_or("default"),
    };
    let positive = |key: &str| match parameters.f64(key)? {
        Some(value) if value > 0.0 => Ok(value),
        Some(value) => Err(invalid(key, value, "a positive number")),
        None => Err(missing(key)),
    };
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: positive("factor")? },
        "llama3" => {
            let key = "original_max_position_embeddings";
            let original = match parameters.usize(key)? {
                Some(original) => original,
                None => config.usize(key)?.ok_or_else(|| missing(key))?,
            };
            let (low_freq_factor, high_freq_factor) = (positive("low_freq_factor")?, positive("high_freq_factor")?);
            if original == 0 || high_freq_factor <= low_freq_factor {
                return Err(invalid(
                    "rope scaling",
                    format!("high_freq_factor {high_freq_factor}, low_freq_factor {low_freq_factor}, {key} {original}"),
                    "a high factor above the low one and a positive original length",
                ));
            }
            let factor = positive("factor")?;
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position: original }
        }
        other => return Err(unsupported(format!("rope scaling of type \"{other}\""))),
    };
    Ok(Rope { theta, rotary_dim: head_dim, scaling })
}

fn activation(key: &str, name: &str) -> Result<Activation, ConfigError> {
    match name {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu" => Ok(Activation::Gelu),
        "gelu_pytorch_tanh" | "gelu_new" => Ok(Activation::GeluTanh),
        other => Err(unsupported(format!("activation {key} = \"{other}\""))),
    }
}

fn missing(key: &str) -> ConfigError {
    ConfigError::Missing { key: key.to_owned() }
}

fn unsupported(what: impl Into<String>) -> ConfigError {
    ConfigError::Unsupported { what: what.into() }
}

/// A JSON object whose absent keys and nulls are the same, as in most of transformers.
struct Fields<'a> {
    map: &'a Map<String, Value>,
}

static NO_FIELDS: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);

impl<'a> Fields<'a> {
    fn empty() -> Fields<'static> {
        Fields { map: &NO_FIELDS }
    }

    fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn read<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match read(value) {
            Some(value) => Ok(Some(value)),
            None => Err(invalid(key, value.to_string().chars().take(80).collect::<String>(), expected)),
        }
    }

    fn usize(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        self.read(key, "a whole number that is not negative", |value| value.as_u64()?.try_into().ok())
    }

    fn required(&self, key: &str) -> Result<usize, ConfigError> {
        self.usize(key)?.ok_or_else(|| missing(key))
    }

    fn f64(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        self.read(key, "a number", Value::as_f64)
    }

    fn bool(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        self.read(key, "true or false", Value::as_bool)
    }

    fn str(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        self.read(key, "a string", Value::as_str)
    }

    fn object(&self, key: &str) -> Result<Option<Self>, ConfigError> {
        self.read(key, "an object", |value| value.as_object().map(|map| Self { map }))
    }

    fn rope_parameters(&self) -> Result<Option<Self>, ConfigError> {
        match self.object("rope_parameters")? {
            Some(parameters) => Ok(Some(parameters)),
            None => self.object("rope_scaling"),
        }
    }

    /// Which layers have a sliding window, where `layer_types` says so.
    fn layer_types(&self, n_layers: usize) -> Result<Option<Vec<bool>>, ConfigError> {
        let Some(types) = self.read("layer_types", "an array", Value::as_array)? else { return Ok(None) };
        if types.len() != n_layers {
            return Err(invalid(
                "layer_types",
                format!("{} entries", types.len()),
                format!("one for each of {n_layers} layers"),
            ));
        }
        let slides = types.iter().map(|kind| match kind.as_str() {
            Some(FULL) => Ok(false),
            Some(SLIDING) => Ok(true),
            _ => Err(unsupported(format!("a layer of type {kind}"))),
        });
        slides.collect::<Result<_, _>>().map(Some)
    }
}
