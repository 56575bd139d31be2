//! What tensors are called on disk, what shape they must have, and in what order GGUF stores rows.

use super::{LayerTensor, TensorRole};
use crate::architecture::{Architecture, Layer, LayerNorms};
use crate::error::ModelError;

/// How a file names its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// As transformers does; `prefix` is that of the decoder: "model." or, saved without a head, nothing.
    Transformers {
        prefix: &'static str,
    },
    Gguf,
}

impl Naming {
    /// The name of a role's tensor. The head has its own name also where it is tied.
    pub fn name(self, role: TensorRole, norms: LayerNorms) -> String {
        match (self, role) {
            (Self::Transformers { prefix }, TensorRole::Embedding) => format!("{prefix}embed_tokens.weight"),
            (Self::Transformers { prefix }, TensorRole::FinalNorm) => format!("{prefix}norm.weight"),
            (Self::Transformers { .. }, TensorRole::Head) => "lm_head.weight".to_owned(),
            (Self::Transformers { prefix }, TensorRole::Layer(layer, tensor)) => {
                format!("{prefix}layers.{layer}.{}", transformers_layer_name(tensor, norms))
            }
            (Self::Gguf, TensorRole::Embedding) => "token_embd.weight".to_owned(),
            (Self::Gguf, TensorRole::FinalNorm) => "output_norm.weight".to_owned(),
            (Self::Gguf, TensorRole::Head) => "output.weight".to_owned(),
            (Self::Gguf, TensorRole::Layer(layer, tensor)) => format!("blk.{layer}.{}", gguf_layer_name(tensor)),
        }
    }
}

fn transformers_layer_name(tensor: LayerTensor, norms: LayerNorms) -> &'static str {
    match tensor {
        LayerTensor::AttnNorm => "input_layernorm.weight",
        LayerTensor::PostAttnNorm => "post_attention_layernorm.weight",
        // The same name means two things: Llama's norm *before* the MLP, Gemma's norm *after* attention.
        LayerTensor::MlpNorm if norms == LayerNorms::Pre => "post_attention_layernorm.weight",
        LayerTensor::MlpNorm => "pre_feedforward_layernorm.weight",
        LayerTensor::PostMlpNorm => "post_feedforward_layernorm.weight",
        LayerTensor::Q => "self_attn.q_proj.weight",
        LayerTensor::K => "self_attn.k_proj.weight",
        LayerTensor::V => "self_attn.v_proj.weight",
        LayerTensor::O => "self_attn.o_proj.weight",
        LayerTensor::QBias => "self_attn.q_proj.bias",
        LayerTensor::KBias => "self_attn.k_proj.bias",
        LayerTensor::VBias => "self_attn.v_proj.bias",
        LayerTensor::OBias => "self_attn.o_proj.bias",
        LayerTensor::QNorm => "self_attn.q_norm.weight",
        LayerTensor::KNorm => "self_attn.k_norm.weight",
        LayerTensor::Gate => "mlp.gate_proj.weight",
        LayerTensor::Up => "mlp.up_proj.weight",
        LayerTensor::Down => "mlp.down_proj.weight",
        LayerTensor::GateBias => "mlp.gate_proj.bias",
        LayerTensor::UpBias => "mlp.up_proj.bias",
        LayerTensor::DownBias => "mlp.down_proj.bias",
    }
}

fn gguf_layer_name(tensor: LayerTensor) -> &'static str {
    match tensor {
        LayerTensor::AttnNorm => "attn_norm.weight",
        LayerTensor::PostAttnNorm => "post_attention_norm.weight",
        LayerTensor::MlpNorm => "ffn_norm.weight",
        LayerTensor::PostMlpNorm => "post_ffw_norm.weight",
        LayerTensor::Q => "attn_q.weight",
        LayerTensor::K => "attn_k.weight",
        LayerTensor::V => "attn_v.weight",
        LayerTensor::O => "attn_output.weight",
        LayerTensor::QBias => "attn_q.bias",
        LayerTensor::KBias => "attn_k.bias",
        LayerTensor::VBias => "attn_v.bias",
        LayerTensor::OBias => "attn_output.bias",
        LayerTensor::QNorm => "attn_q_norm.weight",
        LayerTensor::KNorm => "attn_k_norm.weight",
        LayerTensor::Gate => "ffn_gate.weight",
        LayerTensor::Up => "ffn_up.weight",
        LayerTensor::Down => "ffn_down.weight",
        LayerTensor::GateBias => "ffn_gate.bias",
        LayerTensor::UpBias => "ffn_up.bias",
        LayerTensor::DownBias => "ffn_down.bias",
    }
}

/// The shape that the architecture gives a role.
///
/// # Errors
/// The architecture has no such tensor.
pub(super) fn shape(architecture: &Architecture, role: TensorRole) -> Result<Vec<usize>, ModelError> {
    let hidden = architecture.hidden_size;
    match role {
        TensorRole::Embedding | TensorRole::Head => Ok(vec![architecture.vocab_size, hidden]),
        TensorRole::FinalNorm => Ok(vec![hidden]),
        TensorRole::Layer(index, tensor) => {
            let layer = architecture.layers.get(index).filter(|layer| has(layer, tensor));
            let layer = layer.ok_or_else(|| ModelError::NoSuchRole {
                family: architecture.family.clone(),
                role: role.to_string(),
            })?;
            Ok(layer_shape(layer, hidden, tensor))
        }
    }
}

fn has(layer: &Layer, tensor: LayerTensor) -> bool {
    match tensor {
        LayerTensor::PostAttnNorm | LayerTensor::PostMlpNorm => layer.norms == LayerNorms::Sandwich,
        LayerTensor::QBias | LayerTensor::KBias | LayerTensor::VBias => layer.attention.qkv_bias,
        LayerTensor::OBias => layer.attention.o_bias,
        LayerTensor::QNorm | LayerTensor::KNorm => layer.attention.qk_norm,
        LayerTensor::GateBias | LayerTensor::UpBias | LayerTensor::DownBias => layer.mlp.bias,
        _ => true,
    }
}

fn layer_shape(layer: &Layer, hidden: usize, tensor: LayerTensor) -> Vec<usize> {
    let q = layer.attention.n_heads * layer.attention.head_dim;
    let kv = layer.attention.n_kv_heads * layer.attention.head_dim;
    let intermediate = layer.mlp.intermediate_size;
    match tensor {
        LayerTensor::AttnNorm
        | LayerTensor::PostAttnNorm
        | LayerTensor::MlpNorm
        | LayerTensor::PostMlpNorm
        | LayerTensor::OBias
        | LayerTensor::DownBias => vec![hidden],
        LayerTensor::Q => vec![q, hidden],
        LayerTensor::K | LayerTensor::V => vec![kv, hidden],
        LayerTensor::O => vec![hidden, q],
        LayerTensor::QBias => vec![q],
        LayerTensor::KBias | LayerTensor::VBias => vec![kv],
        LayerTensor::QNorm | LayerTensor::KNorm => vec![layer.attention.head_dim],
        LayerTensor::Gate | LayerTensor::Up => vec![intermediate, hidden],
        LayerTensor::Down => vec![hidden, intermediate],
        LayerTensor::GateBias | LayerTensor::UpBias => vec![intermediate],
    }
}

/// All tensors of an architecture; the head only where it is a matrix of its own.
pub(super) fn roles(architecture: &Architecture) -> Vec<TensorRole> {
    let mut roles = vec![TensorRole::Embedding, TensorRole::FinalNorm];
    if !architecture.tied_head {
        roles.push(TensorRole::Head);
    }
    for (index, layer) in architecture.layers.iter().enumerate() {
        let tensors = LayerTensor::ALL.iter().filter(|tensor| has(layer, **tensor));
        roles.extend(tensors.map(|tensor| TensorRole::Layer(index, *tensor)));
    }
    roles
}

/// In GGUF files of architecture "llama" the rows of q and k are permuted within each head, for a rope that turns
/// neighbouring pairs: row `2 i + half` there is row `half * head_dim / 2 + i` of transformers. Returns the head
/// dimension if that is so for `role`.
pub(super) fn permuted_head_dim(naming: Naming, architecture: &Architecture, role: TensorRole) -> Option<usize> {
    let TensorRole::Layer(layer, tensor) = role else { return None };
    let rotates = matches!(tensor, LayerTensor::Q | LayerTensor::K | LayerTensor::QBias | LayerTensor::KBias);
    let permuted = rotates && naming == Naming::Gguf && architecture.family == "llama";
    permuted.then(|| architecture.layers.get(layer).map(|layer| layer.attention.head_dim)).flatten()
}

/// The row of the file that holds row `row` of transformers' order.
pub(super) fn unpermute(row: usize, head_dim: usize) -> usize {
    let (head, within) = (row / head_dim, row % head_dim);
    let (half, pair) = (within / (head_dim / 2), within % (head_dim / 2));
    head * head_dim + 2 * pair + half
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_permuted_heads_come_back_in_order() {
        // The converter: [heads, 2, head_dim / 2] -> [heads, head_dim / 2, 2].
        let head_dim = 6;
        let stored: Vec<usize> = (0..2).flat_map(|h| [0, 3, 1, 4, 2, 5].map(|r| h * head_dim + r)).collect();
        let restored: Vec<usize> = (0..12).map(|row| stored[unpermute(row, head_dim)]).collect();
        assert_eq!(restored, (0..12).collect::<Vec<_>>());
    }
}
