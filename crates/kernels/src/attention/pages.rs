//! The cache of keys and values, in pages of 16 positions.

use std::sync::Arc;

use half::f16;

use super::CacheType;
use super::kernels::kernels;
use crate::{AlignedBytes, Level};

/// Positions of one page: the lanes of one 512-bit register of scores.
pub const PAGE: usize = 16;

/// The cache of one layer: `[block]`, and in it `[kv_head]`, of pages. A page holds [`PAGE`] positions: their keys, then
/// their values. In f16 keys are `[head_dim][16]` and values `[16][head_dim]`; `q8` says what they are in 8 bits.
///
/// Keys lie with positions side by side, so 16 scores grow in 16 lanes and are never summed across; values lie with
/// dimensions side by side, so outputs do.
///
/// Threads share it: it is written through `&self`. What makes that sound is the caller's order, stated at
/// [`Self::write`] and at the functions that read: no position is written while its page is read, and every position
/// has one writer.
#[derive(Debug)]
pub struct KvPages {
    /// Start of this layer's part of the first block, taken while the bytes were borrowed exclusively; the only way they
    /// are reached.
    start: *mut u8,
    /// Bytes from one block to the next.
    block_stride: usize,
    n_blocks: usize,
    n_kv_heads: usize,
    head_dim: usize,
    cache_type: CacheType,
    _bytes: Arc<AlignedBytes>,
}

// SAFETY: it keeps its bytes alive, `start` points into them wherever `self` is moved, and no two layers share a page.
unsafe impl Send for KvPages {}
// SAFETY: every access through `&self` is in an unsafe function whose contract rules out races.
unsafe impl Sync for KvPages {}

impl KvPages {
    /// `n_blocks` blocks of zeros for one layer. Memory is taken as blocks are first written.
    ///
    /// # Panics
    /// If `head_dim` is not a positive multiple of 8.
    pub fn new(cache_type: CacheType, n_blocks: usize, n_kv_heads: usize, head_dim: usize) -> Self {
        let mut layers = Self::for_layers(&[cache_type], n_blocks, n_kv_heads, head_dim);
        layers.remove(0)
    }

    /// The caches of layers that share their blocks, each of its type. A block's pages lie side by side,
    /// `[block][layer]`: with a region per layer the first position alone would take a huge page in each.
    ///
    /// # Panics
    /// If `head_dim` is not a positive multiple of 8.
    pub fn for_layers(layers: &[CacheType], n_blocks: usize, n_kv_heads: usize, head_dim: usize) -> Vec<Self> {
        assert!(head_dim > 0 && head_dim.is_multiple_of(8), "heads of {head_dim} are not a multiple of 8");
        let bytes_of = |cache_type: &CacheType| cache_type.bytes_per_block(n_kv_heads, head_dim);
        let block_stride = layers.iter().map(bytes_of).sum();
        let mut bytes = AlignedBytes::zeroed(n_blocks * block_stride);
        let start = bytes.as_mut_ptr();
        let bytes = Arc::new(bytes);
        let mut before = 0;
        let layer = |cache_type: &CacheType| {
            // SAFETY: there is at least one block, or nothing is ever read or written.
            let start = if n_blocks == 0 { start } else { unsafe { start.add(before) } };
            before += bytes_of(cache_type);
            let cache_type = *cache_type;
            Self { start, block_stride, n_blocks, n_kv_heads, head_dim, cache_type, _bytes: Arc::clone(&bytes) }
        };
        layers.iter().map(layer).collect()
    }

    pub fn n_blocks(&self) -> usize {
        self.n_blocks
    }

    pub fn n_kv_heads(&self) -> usize {
        self.n_kv_heads
    }

    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    pub fn cache_type(&self) -> CacheType {
        self.cache_type
    }

    /// Writes the key and the value of position `offset` of a block, rounded to what the cache keeps, for one head.
    ///
    /// # Safety
    /// Meanwhile no other thread reads this head's page of the block, and none writes this position of it. The machine
    /// has `level`.
    ///
    /// # Panics
    /// If the position does not exist, or `k` or `v` is not one head long.
    pub unsafe fn write(&self, level: Level, block: u32, head: usize, offset: usize, k: &[f32], v: &[f32]) {
        assert!(offset < PAGE && k.len() == self.head_dim && v.len() == self.head_dim, "not a position of this cache");
        let page = self.page(block, head);
        // SAFETY: the page is of this type and width, and the position lies in it; no one else uses it, by contract.
        unsafe {
            (kernels(level, self.cache_type).write)(page, offset, k, v);
        }
    }

    /// The page of one head of a block.
    ///
    /// # Panics
    /// If there is no such page.
    pub(super) fn page(&self, block: u32, head: usize) -> *mut u8 {
        let block = block as usize;
        assert!(block < self.n_blocks && head < self.n_kv_heads, "no page {block} of head {head}");
        // SAFETY: the page lies within the bytes.
        unsafe { self.start.add(block * self.block_stride + head * self.cache_type.page_bytes(self.head_dim)) }
    }
}

/// Rounds to the nearest f16, ties to even, as the conversions of the machines do.
pub(super) fn to_half(x: f32) -> u16 {
    f16::from_f32(x).to_bits()
}

pub(super) fn from_half(bits: u16) -> f32 {
    f16::from_bits(bits).to_f32()
}
