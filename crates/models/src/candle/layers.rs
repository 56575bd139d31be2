//! The decoder's layers: what `Architecture` describes, as tensors and a forward pass over flat token rows.

use candle_core::{DType, Result, Tensor};

use super::attention::{GroupStep, rotate};
use super::cpu_ops::{AddOp, AttentionOp, GatedOp, LinearOp, RopeOp, WriteRowsOp};
use super::kv_cache::LayerCache;
use super::rope::RopeTable;
use super::simd::Level;
use super::step::Step;
use crate::architecture::{Activation, Attention, Mlp};
use tsserve_engine::CacheKind;

/// Who computes: our own CPU operations, or candle's on whatever device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ops {
    Cpu(Level),
    Candle,
}

/// `x W^T + b`.
#[derive(Debug)]
pub struct Linear {
    /// `[out, in]`
    pub weight: Tensor,
    /// `[out]`
    pub bias: Option<Tensor>,
}

impl Linear {
    /// `[tokens, in] -> [tokens, out]`
    pub fn forward(&self, x: &Tensor, ops: Ops) -> Result<Tensor> {
        let y = match ops {
            Ops::Cpu(level) => x.apply_op2_no_bwd(&self.weight, &LinearOp { level })?,
            Ops::Candle => x.matmul(&self.weight.t()?)?,
        };
        match (&self.bias, ops) {
            (None, _) => Ok(y),
            (Some(bias), Ops::Cpu(_)) => y.inplace_op2(bias, &AddOp).map(|()| y),
            (Some(bias), Ops::Candle) => y.broadcast_add(bias),
        }
    }
}

/// Root-mean-square norm over the last dimension, computed in f32 whatever the model's type.
#[derive(Debug)]
pub struct RmsNorm {
    /// f32, with any "1 +" already added.
    pub weight: Tensor,
    pub eps: f32,
}

impl RmsNorm {
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let dtype = x.dtype();
        let x = x.to_dtype(DType::F32)?.contiguous()?;
        candle_nn::ops::rms_norm(&x, &self.weight, self.eps)?.to_dtype(dtype)
    }

    /// Over every head of `[tokens, heads * head_dim]`.
    fn forward_heads(&self, x: &Tensor) -> Result<Tensor> {
        let (tokens, width) = x.dims2()?;
        let head_dim = self.weight.dim(0)?;
        // [tokens * heads, head_dim]
        self.forward(&x.reshape((tokens * width / head_dim, head_dim))?)?.reshape((tokens, width))
    }
}

/// One decoder layer.
#[derive(Debug)]
pub struct DecoderLayer {
    pub attention: Attention,
    pub mlp: Mlp,
    pub attn_norm: RmsNorm,
    /// Rows of q, then k, then v: one matrix, one pass over x.
    pub qkv: Linear,
    pub qk_norm: Option<(RmsNorm, RmsNorm)>,
    pub o: Linear,
    pub post_attn_norm: Option<RmsNorm>,
    pub mlp_norm: RmsNorm,
    /// Rows of gate, then up.
    pub gate_up: Linear,
    pub down: Linear,
    pub post_mlp_norm: Option<RmsNorm>,
}

/// What the layers share in one step.
#[derive(Debug)]
pub struct StepContext<'s> {
    pub ops: Ops,
    pub step: &'s Step<'s>,
    pub kinds: Vec<CacheKind>,
    pub ropes: Vec<RopeTable>,
    /// Per rope, on the device; empty with our own operations.
    pub device_ropes: Vec<(Tensor, Tensor)>,
    /// Per cache group; empty with our own operations.
    pub groups: Vec<GroupStep>,
}

impl DecoderLayer {
    /// `[tokens, hidden] -> [tokens, hidden]`; writes the tokens' keys and values into `cache`.
    pub fn forward(&self, x: &Tensor, cache: &LayerCache, context: &StepContext<'_>) -> Result<Tensor> {
        let attended = self.attend(&self.attn_norm.forward(x)?, cache, context)?;
        let x = add(normed(self.post_attn_norm.as_ref(), attended)?, x, context.ops)?;
        let gate_up = self.gate_up.forward(&self.mlp_norm.forward(&x)?, context.ops)?;
        let inner = gated(&gate_up, self.mlp.activation, context.ops)?;
        let mlp = self.down.forward(&inner, context.ops)?;
        add(normed(self.post_mlp_norm.as_ref(), mlp)?, &x, context.ops)
    }

    fn attend(&self, x: &Tensor, cache: &LayerCache, context: &StepContext<'_>) -> Result<Tensor> {
        let Attention { n_heads, n_kv_heads, head_dim, rope, .. } = self.attention;
        let (q_len, kv_len) = (n_heads * head_dim, n_kv_heads * head_dim);
        // [tokens, q_len + 2 * kv_len]
        let qkv = self.qkv.forward(x, context.ops)?;
        let mut q = qkv.narrow(1, 0, q_len)?.contiguous()?;
        let mut k = qkv.narrow(1, q_len, kv_len)?.contiguous()?;
        let v = qkv.narrow(1, q_len + kv_len, kv_len)?.contiguous()?;
        if let Some((q_norm, k_norm)) = &self.qk_norm {
            q = q_norm.forward_heads(&q)?;
            k = k_norm.forward_heads(&k)?;
        }
        let attended = match context.ops {
            Ops::Cpu(level) => {
                if let Some(rope) = rope {
                    let op = RopeOp { table: &context.ropes[rope], head_dim };
                    q.inplace_op1(&op)?;
                    k.inplace_op1(&op)?;
                }
                let write = WriteRowsOp { slots: &context.step.slots[cache.group] };
                cache.k.inplace_op2(&k, &write)?;
                cache.v.inplace_op2(&v, &write)?;
                let op = AttentionOp {
                    level,
                    attention: &self.attention,
                    spans: &context.step.spans,
                    group: cache.group,
                    kind: context.kinds[cache.group],
                };
                q.apply_op3_no_bwd(&cache.k, &cache.v, &op)?
            }
            Ops::Candle => {
                if let Some(rope) = rope {
                    q = rotate(&q, &context.device_ropes[rope], head_dim)?;
                    k = rotate(&k, &context.device_ropes[rope], head_dim)?;
                }
                let group = &context.groups[cache.group];
                group.write(&cache.k, &k)?;
                group.write(&cache.v, &v)?;
                group.attend(&q, cache, &self.attention)?
            }
        };
        self.o.forward(&attended, context.ops)
    }
}

fn normed(norm: Option<&RmsNorm>, x: Tensor) -> Result<Tensor> {
    match norm {
        Some(norm) => norm.forward(&x),
        None => Ok(x),
    }
}

/// Residual addition; takes `x` over.
fn add(x: Tensor, residual: &Tensor, ops: Ops) -> Result<Tensor> {
    match ops {
        Ops::Cpu(_) => x.inplace_op2(residual, &AddOp).map(|()| x),
        Ops::Candle => x + residual,
    }
}

/// `[tokens, 2 * intermediate] -> [tokens, intermediate]`
fn gated(gate_up: &Tensor, activation: Activation, ops: Ops) -> Result<Tensor> {
    if let Ops::Cpu(_) = ops {
        return gate_up.apply_op1_no_bwd(&GatedOp { activation });
    }
    let half = gate_up.dim(1)? / 2;
    let gate = gate_up.narrow(1, 0, half)?.contiguous()?;
    let gate = match activation {
        Activation::Silu => gate.silu()?,
        Activation::GeluTanh => gate.gelu()?,
        Activation::Gelu => gate.gelu_erf()?,
    };
    gate * gate_up.narrow(1, half, half)?
}
