//! What a tensor is for, and what it is called on disk.

use std::fmt;

/// What a tensor is for. All matrices are `[out, in]`, all others are vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TensorRole {
    /// `[vocab_size, hidden_size]`
    Embedding,
    /// `[hidden_size]`
    FinalNorm,
    /// `[vocab_size, hidden_size]`; the embedding matrix where the head is tied.
    Head,
    /// A tensor of a layer, counted from 0.
    Layer(usize, LayerTensor),
}

/// A tensor of one decoder layer. `heads`, `kv_heads` and `head_dim` are those of the layer's `Attention`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerTensor {
    /// Norm before attention, `[hidden_size]`.
    AttnNorm,
    /// Norm after attention, before the residual addition (`LayerNorms::Sandwich`), `[hidden_size]`.
    PostAttnNorm,
    /// Norm before the MLP, `[hidden_size]`.
    MlpNorm,
    /// Norm after the MLP, before the residual addition (`LayerNorms::Sandwich`), `[hidden_size]`.
    PostMlpNorm,
    /// `[heads * head_dim, hidden_size]`
    Q,
    /// `[kv_heads * head_dim, hidden_size]`
    K,
    /// `[kv_heads * head_dim, hidden_size]`
    V,
    /// `[hidden_size, heads * head_dim]`
    O,
    /// `[heads * head_dim]`, with `qkv_bias`
    QBias,
    /// `[kv_heads * head_dim]`, with `qkv_bias`
    KBias,
    /// `[kv_heads * head_dim]`, with `qkv_bias`
    VBias,
    /// `[hidden_size]`, with `o_bias`
    OBias,
    /// `[head_dim]`, with `qk_norm`
    QNorm,
    /// `[head_dim]`, with `qk_norm`
    KNorm,
    /// `[intermediate_size, hidden_size]`
    Gate,
    /// `[intermediate_size, hidden_size]`
    Up,
    /// `[hidden_size, intermediate_size]`
    Down,
    /// `[intermediate_size]`, with `Mlp::bias`
    GateBias,
    /// `[intermediate_size]`, with `Mlp::bias`
    UpBias,
    /// `[hidden_size]`, with `Mlp::bias`
    DownBias,
}

impl LayerTensor {
    /// Every kind of tensor that a layer can have.
    pub const ALL: [Self; 20] = [
        Self::AttnNorm,
        Self::PostAttnNorm,
        Self::MlpNorm,
        Self::PostMlpNorm,
        Self::Q,
        Self::K,
        Self::V,
        Self::O,
        Self::QBias,
        Self::KBias,
        Self::VBias,
        Self::OBias,
        Self::QNorm,
        Self::KNorm,
        Self::Gate,
        Self::Up,
        Self::Down,
        Self::GateBias,
        Self::UpBias,
        Self::DownBias,
    ];
}

impl fmt::Display for TensorRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedding => f.write_str("embedding"),
            Self::FinalNorm => f.write_str("final norm"),
            Self::Head => f.write_str("head"),
            Self::Layer(layer, tensor) => write!(f, "{tensor:?} of layer {layer}"),
        }
    }
}
