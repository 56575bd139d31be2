//! What a level must do for attention, and the table of who does it.

use super::{CacheType, Partial, SPAN, q8, scalar};
use crate::Level;

/// Pages of one span.
pub(super) const SPAN_PAGES: usize = SPAN / super::PAGE;

/// A few query rows against the positions of one span: scores, weights, weighted values.
///
/// Row r sees the positions `ranges[r].0..ranges[r].1`, counted from the span's start. What it gets depends on nothing
/// but its query and those positions' keys and values. In an f16 cache (`q8` has the other type's definition):
/// 1. `s[j]` grows from 0 by one fused multiply-add per dimension, first to last; then the soft-cap.
/// 2. `max` is the largest score, `p[j] = exp(s[j] - max)`; 16 lanes sum the weights, position j in lane j % 16, in
///    order, and `sum` is the sum of the lanes ([`super::math::sum_lanes`]).
/// 3. `out[d]` grows from 0 by one fused multiply-add per position, first to last.
///
/// A row that sees nothing gets `max` of minus infinity and `sum` 0, and its outputs are not touched.
pub(super) struct Tile<'a> {
    /// Packed by `Kernels::pack`, `head_dim * tile_rows` long.
    pub q: &'a [f32],
    pub head_dim: usize,
    /// The span's pages; null where no row sees a position.
    pub pages: &'a [*const u8; SPAN_PAGES],
    /// What will be read soon.
    pub ahead: Option<&'a Ahead>,
    /// One per row; as many rows as these, up to the level's `tile_rows`.
    pub ranges: &'a [(usize, usize)],
    pub soft_cap: Option<f32>,
    /// `[rows][SPAN]`, for the kernel.
    pub scores: &'a mut [f32],
    /// `[rows]`
    pub partials: &'a mut [Partial],
    /// `[rows][head_dim]`
    pub out: &'a mut [f32],
}

/// What to fetch meanwhile: keys or values of a page for every page whose keys, and then whose values, are worked on.
/// Only hints.
pub(super) struct Ahead {
    pub keys: [*const u8; SPAN_PAGES],
    pub values: [*const u8; SPAN_PAGES],
}

/// The kernels of one level for one type of cache.
///
/// All are unsafe for the same reason: the machine must have the level. Beside it, every pointer must be valid for what
/// it is used for, and pages are not written meanwhile.
pub(super) struct Kernels {
    /// Rows of one tile, at most.
    pub tile_rows: usize,
    /// Packs the queries of a tile, up to `tile_rows`, into `head_dim * tile_rows` f32 of memory.
    pub pack: unsafe fn(rows: &[&[f32]], head_dim: usize, tile: &mut [f32]),
    pub tile: unsafe fn(Tile<'_>),
    /// Adds a span's outputs to those of the spans before it: with M the larger maximum,
    /// `out = out * exp(max - M) + o * exp(add.max - M)`, the second product fused; the sums likewise.
    pub fold: unsafe fn(state: &mut Partial, out: &mut [f32], add: Partial, o: &[f32]),
    /// `out *= 1 / sum`
    pub finish: unsafe fn(sum: f32, out: &mut [f32]),
    /// Writes one position's key and value, as the cache keeps them, into a page.
    pub write: unsafe fn(page: *mut u8, offset: usize, k: &[f32], v: &[f32]),
}

/// The largest `tile_rows` of all levels.
pub(super) const MAX_TILE_ROWS: usize = 12;

/// The kernels of a level. For f16 the levels between have nothing of their own to gain.
pub(super) fn kernels(level: Level, cache_type: CacheType) -> &'static Kernels {
    match level {
        _ if cache_type == CacheType::Q8_0 => q8::kernels(level),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 | Level::AvxVnni => &super::avx2::KERNELS,
        #[cfg(target_arch = "x86_64")]
        Level::Vnni | Level::Amx => &super::avx512::KERNELS,
        #[cfg(target_arch = "aarch64")]
        Level::Neon | Level::I8mm => &super::neon::KERNELS,
        _ => &scalar::KERNELS,
    }
}

/// Hints that the cache line there will be read. Any address may be hinted.
#[inline(always)]
pub(super) fn prefetch<T>(line: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint reads nothing.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(line.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a hint reads nothing.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) line, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = line;
}
