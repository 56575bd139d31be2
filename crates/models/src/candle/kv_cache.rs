//! The paged KV cache: per layer two tensors of block rows, grouped by how long positions are kept.

use candle_core::{DType, Device, Result, Tensor};

use super::device::Dtype;
use crate::architecture::{Architecture, Attention};
use crate::kv_groups::{KvGroupLayout, kv_groups};
use crate::step::BLOCK_SIZE;

/// The cache groups of a model whose cache holds `dtype`; see [`kv_groups`].
pub fn kv_layout(architecture: &Architecture, dtype: Dtype) -> Vec<KvGroupLayout> {
    kv_groups(architecture, |_, attention| 2 * BLOCK_SIZE * row_len(attention) * dtype.size_in_bytes())
}

/// Keys and values of one layer, each `[n_blocks * BLOCK_SIZE, kv_heads * head_dim]`: row `b * BLOCK_SIZE + i` is
/// position `i` of block `b`.
#[derive(Debug)]
pub struct LayerCache {
    pub group: usize,
    pub k: Tensor,
    pub v: Tensor,
}

/// Allocates the cache of every layer.
pub fn allocate(
    architecture: &Architecture,
    layout: &[KvGroupLayout],
    n_blocks: &[usize],
    dtype: DType,
    device: &Device,
) -> Result<Vec<LayerCache>> {
    let mut caches = Vec::with_capacity(architecture.layers.len());
    for (index, layer) in architecture.layers.iter().enumerate() {
        let group = layout.iter().position(|group| group.layers.contains(&index)).unwrap_or(0);
        let shape = (n_blocks[group] * BLOCK_SIZE, row_len(&layer.attention));
        caches.push(LayerCache {
            group,
            k: Tensor::zeros(shape, dtype, device)?,
            v: Tensor::zeros(shape, dtype, device)?,
        });
    }
    Ok(caches)
}

fn row_len(attention: &Attention) -> usize {
    attention.n_kv_heads * attention.head_dim
}
