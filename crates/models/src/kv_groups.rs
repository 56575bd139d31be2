//! Which layers share block tables: those that keep positions equally long.

use tsserve_engine::CacheKind;

use crate::architecture::{Architecture, Attention};

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
/// there are any), then one group per window size in order of first appearance. `block_bytes`: bytes of one block of
/// a layer.
pub(crate) fn kv_groups(
    architecture: &Architecture,
    block_bytes: impl Fn(usize, &Attention) -> usize,
) -> Vec<KvGroupLayout> {
    let mut groups: Vec<KvGroupLayout> = Vec::new();
    let layers = architecture.layers.iter().enumerate();
    let full = layers.clone().filter(|(_, layer)| layer.attention.window.is_none());
    for (index, layer) in full.chain(layers.filter(|(_, layer)| layer.attention.window.is_some())) {
        let kind = layer.attention.window.map_or(CacheKind::Full, CacheKind::Window);
        let bytes = block_bytes(index, &layer.attention);
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
