//! The paged KV cache: per layer two tensors of block rows, grouped by how long positions are kept.

use candle_core::{DType, Device, Result, Tensor};
use tsserve_engine::CacheKind;

use super::device::Dtype;
use crate::architecture::{Architecture, Attention};

/// Positions per KV block.
pub const BLOCK_SIZE: usize = 16;

/// One cache group of a model, before memory is given to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvGroupLayout {
    pub kind: CacheKind,
    /// The decoder layers that live in the group, ascending.
    pub layers: Vec<usize>,
    /// Bytes of one block over all layers of the group.
    pub bytes_per_block: usize,
}

/// The cache groups of a model, in the order in which plans carry block tables: layers that see everything first (if
/// there are any), then one group per window size in order of first appearance.
pub fn kv_layout(architecture: &Architecture, dtype: Dtype) -> Vec<KvGroupLayout> {
    let mut groups: Vec<KvGroupLayout> = Vec::new();
    let layers = architecture.layers.iter().enumerate();
    let full = layers.clone().filter(|(_, layer)| layer.attention.window.is_none());
    for (index, layer) in full.chain(layers.filter(|(_, layer)| layer.attention.window.is_some())) {
        let kind = layer.attention.window.map_or(CacheKind::Full, CacheKind::Window);
        let bytes = 2 * BLOCK_SIZE * row_len(&layer.attention) * dtype.size_in_bytes();
        match groups.iter_mut().find(|group| group.kind == kind) {
            Some(group) => {
                group.layers.push(index);
                group.bytes_per_block += bytes;
            }
            None => groups.push(KvGroupLayout { kind, layers: vec![index], bytes_per_block: bytes }),
        }
    }
    groups
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
