//! What a decoder is, as data. Both runners interpret an `Architecture`; a family of Llama's kind is a value of this
//! type, not code.

/// A decoder-only language model.
#[derive(Debug, Clone, PartialEq)]
pub struct Architecture {
    /// The family's name, `model_type` of config.json or `general.architecture` of GGUF: "llama".
    pub family: String,
    pub vocab_size: usize,
    pub hidden_size: usize,
    /// Longest context the model was made for, in tokens.
    pub max_position_embeddings: usize,
    /// Embeddings are multiplied by this (Gemma: sqrt(hidden_size), rounded as the family does).
    pub embedding_scale: f32,
    /// The head is the embedding matrix.
    pub tied_head: bool,
    /// tanh soft cap on the final logits.
    pub final_logit_softcap: Option<f32>,
    pub norm_eps: f32,
    /// Norm weights are stored as w with the layer multiplying by 1 + w (Gemma safetensors). GGUF stores 1 + w, so its
    /// reader sets this to false.
    pub norm_plus_one: bool,
    pub layers: Vec<Layer>,
    /// Rope tables that layers name by index.
    pub ropes: Vec<Rope>,
}

/// One decoder layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    pub attention: Attention,
    pub mlp: Mlp,
    pub norms: LayerNorms,
}

/// Where a layer normalises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerNorms {
    /// Before attention and before the MLP.
    Pre,
    /// Gemma: before and after each of the two, four in all.
    Sandwich,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Attention {
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    /// Scores are multiplied by this (1/sqrt(head_dim), or Gemma's query_pre_attn_scalar^-0.5).
    pub scale: f32,
    pub qkv_bias: bool,
    pub o_bias: bool,
    /// RMS norm per head on q and k, before rope.
    pub qk_norm: bool,
    /// `Some(w)`: token q sees keys k with k > q - w.
    pub window: Option<usize>,
    /// Index into `Architecture::ropes`; `None`: no rope.
    pub rope: Option<usize>,
    /// tanh soft cap on the scores.
    pub softcap: Option<f32>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Mlp {
    pub intermediate_size: usize,
    pub activation: Activation,
    pub bias: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    Silu,
    GeluTanh,
    Gelu,
}

/// A rotary embedding (rotate-half form).
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    pub theta: f64,
    /// Dimensions of a head that rotate (even, at most head_dim).
    pub rotary_dim: usize,
    pub scaling: RopeScaling,
}

#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    None,
    Linear {
        factor: f64,
    },
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        original_max_position: usize,
    },
    /// GGUF's `rope_freqs.weight`: each inverse frequency is divided by its factor (rotary_dim / 2 of them).
    Factors(Vec<f32>),
}
