//! How each layer's cache keeps keys and values.

use tsserve_kernels::attention::{CacheType, KvPages};

use crate::architecture::Architecture;
use crate::checkpoint::{Checkpoint, LayerTensor, TensorRole};
use crate::kv_groups::{KvGroupLayout, kv_groups};

/// The root of the mean square that a head's key bias has at most where 8 bits hold keys. Other keys have one of about 2.
/// Qwen2 and 2.5 have biases of up to 35 in a few layers (of 214 in single channels), which every key has and the softmax
/// does not see, but which take the scale: what differs between keys, about 1, is lost in its steps.
const MOST_BIAS: f64 = 5.0;

/// The type of each layer's cache if `asked` is wished for: where 8 bits hold a layer's keys too badly, f16.
pub(super) fn layer_types(checkpoint: &Checkpoint, asked: CacheType) -> Vec<CacheType> {
    let held = |index| asked == CacheType::F16 || !has_large_key_bias(checkpoint, index);
    (0..checkpoint.architecture.layers.len()).map(|index| if held(index) { asked } else { CacheType::F16 }).collect()
}

/// Whether a bias makes the keys of a layer's heads large; a norm after it would make them small again.
fn has_large_key_bias(checkpoint: &Checkpoint, index: usize) -> bool {
    let attention = &checkpoint.architecture.layers[index].attention;
    if !attention.qkv_bias || attention.qk_norm {
        return false;
    }
    // A bias that cannot be read fails the load where weights are packed.
    let bias = checkpoint.load_f32(TensorRole::Layer(index, LayerTensor::KBias)).unwrap_or_default();
    let mean_square = |head: &[f32]| head.iter().map(|&x| f64::from(x * x)).sum::<f64>() / head.len() as f64;
    bias.chunks(attention.head_dim).any(|head| mean_square(head).sqrt() > MOST_BIAS)
}

/// The cache groups of a model on this runner, in the order in which plans carry block tables.
pub fn kv_layout(checkpoint: &Checkpoint, asked: CacheType) -> Vec<KvGroupLayout> {
    layout_of(&checkpoint.architecture, &layer_types(checkpoint, asked))
}

/// As [`kv_layout`], of layers whose types are known.
pub(super) fn layout_of(architecture: &Architecture, types: &[CacheType]) -> Vec<KvGroupLayout> {
    kv_groups(architecture, |index, attention| types[index].bytes_per_block(attention.n_kv_heads, attention.head_dim))
}

/// What a cache of type `asked` becomes, for people: "q8_0", or "q8_0, f16 in 5 of 24 layers".
pub fn cache_summary(checkpoint: &Checkpoint, asked: CacheType) -> String {
    let types = layer_types(checkpoint, asked);
    match types.iter().filter(|&&cache_type| cache_type != asked).count() {
        0 => asked.name().to_owned(),
        n => format!("{asked}, {} in {n} of {} layers", CacheType::F16, types.len()),
    }
}

/// The cache of each layer, of its type; `groups` is the cache group of each.
pub(super) fn kv_caches(
    architecture: &Architecture,
    types: &[CacheType],
    layout: &[KvGroupLayout],
    groups: &[usize],
    blocks: &[usize],
) -> Vec<KvPages> {
    let mut by_group: Vec<_> = layout
        .iter()
        .zip(blocks)
        .map(|(group, &n_blocks)| {
            let first = group.layers.first().map(|&layer| &architecture.layers[layer].attention);
            let (heads, head_dim) = first.map_or((0, 8), |attention| (attention.n_kv_heads, attention.head_dim));
            let types: Vec<_> = group.layers.iter().map(|&layer| types[layer]).collect();
            KvPages::for_layers(&types, n_blocks, heads, head_dim).into_iter()
        })
        .collect();
    // Layers of a group are in ascending order.
    groups.iter().filter_map(|&group| by_group[group].next()).collect()
}
