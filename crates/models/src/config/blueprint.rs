//! The few numbers that make a decoder of Llama's kind, checked, as an `Architecture`.

use super::ConfigError;
use crate::architecture::{Activation, Architecture, Attention, Layer, LayerNorms, Mlp, Rope};

/// Largest values believed; anything above is a broken or malicious file, and would ask for absurd amounts of memory.
const MAX_LAYERS: usize = 1024;
const MAX_HIDDEN: usize = 1 << 16;
const MAX_INTERMEDIATE: usize = 1 << 20;
const MAX_HEADS: usize = 4096;
const MAX_HEAD_DIM: usize = 1024;
const MAX_VOCAB: usize = 1 << 22;
const MAX_CONTEXT: usize = 1 << 27;

/// What all layers share, and what differs between them.
pub(super) struct Blueprint {
    pub family: String,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub max_position_embeddings: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    pub norm_eps: f64,
    pub norm_plus_one: bool,
    pub norms: LayerNorms,
    pub activation: Activation,
    pub embedding_scale: f32,
    pub attention_scale: f64,
    pub qkv_bias: bool,
    pub o_bias: bool,
    pub mlp_bias: bool,
    pub qk_norm: bool,
    pub softcap: Option<f32>,
    pub final_logit_softcap: Option<f32>,
    pub tied_head: bool,
    pub ropes: Vec<Rope>,
    pub layers: Vec<LayerKind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LayerKind {
    pub window: Option<usize>,
    /// Index into `Blueprint::ropes`.
    pub rope: usize,
}

impl LayerKind {
    /// Sees everything before it; first rope.
    pub const FULL: Self = Self { window: None, rope: 0 };
}

impl Blueprint {
    pub fn build(self) -> Result<Architecture, ConfigError> {
        within("number of layers", self.layers.len(), MAX_LAYERS)?;
        within("hidden size", self.hidden_size, MAX_HIDDEN)?;
        within("intermediate size", self.intermediate_size, MAX_INTERMEDIATE)?;
        within("number of attention heads", self.n_heads, MAX_HEADS)?;
        within("number of key-value heads", self.n_kv_heads, self.n_heads)?;
        within("head dimension", self.head_dim, MAX_HEAD_DIM)?;
        within("vocabulary size", self.vocab_size, MAX_VOCAB)?;
        within("context length", self.max_position_embeddings, MAX_CONTEXT)?;
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            let expected = format!("a divisor of the {} attention heads", self.n_heads);
            return Err(invalid("number of key-value heads", self.n_kv_heads, expected));
        }
        if !(self.norm_eps > 0.0 && self.norm_eps < 1.0) {
            return Err(invalid("norm epsilon", self.norm_eps, "a number between 0 and 1"));
        }
        if !(self.attention_scale.is_finite() && self.attention_scale > 0.0) {
            return Err(invalid("attention scale", self.attention_scale, "a positive number"));
        }
        for cap in [self.softcap, self.final_logit_softcap].into_iter().flatten() {
            if !(cap.is_finite() && cap > 0.0) {
                return Err(invalid("soft cap", cap, "a positive number"));
            }
        }
        for rope in &self.ropes {
            if !(rope.theta.is_finite() && rope.theta >= 1.0) {
                return Err(invalid("rope base", rope.theta, "a number of at least 1"));
            }
            if rope.rotary_dim == 0 || rope.rotary_dim > self.head_dim || !rope.rotary_dim.is_multiple_of(2) {
                let expected = format!("an even number up to the head dimension {}", self.head_dim);
                return Err(invalid("rotary dimension", rope.rotary_dim, expected));
            }
        }
        if let Some(window) = self.layers.iter().find_map(|layer| layer.window.filter(|&w| w == 0 || w > MAX_CONTEXT)) {
            return Err(invalid("sliding window", window, format!("a whole number from 1 to {MAX_CONTEXT}")));
        }
        let layers = self.layers.iter().map(|layer| self.layer(*layer)).collect();
        Ok(Architecture {
            family: self.family,
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            max_position_embeddings: self.max_position_embeddings,
            embedding_scale: self.embedding_scale,
            tied_head: self.tied_head,
            final_logit_softcap: self.final_logit_softcap,
            norm_eps: self.norm_eps as f32,
            norm_plus_one: self.norm_plus_one,
            layers,
            ropes: self.ropes,
        })
    }

    fn layer(&self, kind: LayerKind) -> Layer {
        Layer {
            attention: Attention {
                n_heads: self.n_heads,
                n_kv_heads: self.n_kv_heads,
                head_dim: self.head_dim,
                scale: self.attention_scale as f32,
                qkv_bias: self.qkv_bias,
                o_bias: self.o_bias,
                qk_norm: self.qk_norm,
                window: kind.window,
                rope: Some(kind.rope),
                softcap: self.softcap,
            },
            mlp: Mlp { intermediate_size: self.intermediate_size, activation: self.activation, bias: self.mlp_bias },
            norms: self.norms,
        }
    }
}

/// Is `value` from 1 to `max`?
pub(super) fn within(key: &str, value: usize, max: usize) -> Result<(), ConfigError> {
    if (1..=max).contains(&value) {
        return Ok(());
    }
    Err(invalid(key, value, format!("a whole number from 1 to {max}")))
}

/// The number of layers of a file that is not checked yet, before anything of that length is made.
pub(super) fn layer_count(key: &str, value: usize) -> Result<usize, ConfigError> {
    within(key, value, MAX_LAYERS)?;
    Ok(value)
}

pub(super) fn invalid(key: &str, found: impl ToString, expected: impl Into<String>) -> ConfigError {
    ConfigError::Invalid { key: key.to_owned(), found: found.to_string(), expected: expected.into() }
}

/// The head dimension of a model that does not state it.
pub(super) fn derived_head_dim(hidden_size: usize, n_heads: usize) -> Result<usize, ConfigError> {
    within("number of attention heads", n_heads, MAX_HEADS)?;
    if hidden_size.is_multiple_of(n_heads) {
        return Ok(hidden_size / n_heads);
    }
    Err(invalid("hidden size", hidden_size, format!("a multiple of the {n_heads} attention heads")))
}
