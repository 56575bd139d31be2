//! The cache in 8-bit integers, and attention over it in exact integer sums.
//!
//! **A key** is cut in blocks of [`BLOCK`] dimensions, the last maybe shorter. Each is turned by `numbers::rotate` and
//! then rounded to integers from -127 to 127 times a scale in f16. Keys have a few channels far larger than the others,
//! always the same; turned, they share their size with their neighbours, and the scale leaves something of all. Queries
//! are turned likewise, so scores stay what they were. **A value** is rounded as it is, with one scale. All of it is a
//! function of the position's own key and value, whoever writes it.
//!
//! **A page** has, with n blocks: the keys' integers plus 128, `[head_dim / 4][16][4]`; their scales, `[n][16]`, to the
//! next multiple of 64 bytes; the values' integers, `[4][head_dim][4]`, four positions side by side; their scales,
//! `[16]`, in 64 bytes. So one instruction multiplies and adds four dimensions of 16 positions for scores, and four
//! positions of 16 dimensions for outputs.
//!
//! **A row** is computed as in `kernels::Tile`, but for two of its sums:
//! 1. The query is turned, times 1/n for blocks of n dimensions, and rounded to integers up to [`WIDE`] times one scale.
//!    A block's `i` is the exact sum of products, and `s[j]` grows from 0 by one fused multiply-add per block, `i` as f32
//!    times the key's scale; then it is multiplied by the query's.
//! 2. Weights times the values' scales (0 where the weight is 0) are rounded to integers up to [`WIDE`] times one scale,
//!    and `out[d]` is the exact sum of their products with values, as f32, times that scale.
//!
//! A key or value with a NaN or an infinity in it has a scale of NaN: all answers that see it are NaN.

mod numbers;
mod scalar;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[macro_use]
mod tiles;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avxvnni;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(test)]
pub(super) mod tests;

use super::PAGE;
use super::kernels::Kernels;
use crate::Level;

/// Dimensions of a key that share a scale.
const BLOCK: usize = 32;

/// Dimensions, or positions, whose products one instruction adds.
const GROUP: usize = 4;

/// The largest integer of a query and of a weight: in two planes, 127 times 256 and what the second plane holds above.
const WIDE: f32 = 32512.0;

/// What keys' integers are stored above themselves: they are multiplied as unsigned bytes.
const KEY_OFFSET: i32 = 128;

/// Bytes of a cache line, to which parts of a page are aligned.
const LINE: usize = 64;

/// Blocks of a head.
const fn n_blocks(head_dim: usize) -> usize {
    head_dim.div_ceil(BLOCK)
}

/// Where in a page the keys' scales begin.
const fn key_scales(head_dim: usize) -> usize {
    PAGE * head_dim
}

/// Bytes of a page's keys.
pub(super) const fn key_bytes(head_dim: usize) -> usize {
    key_scales(head_dim) + (n_blocks(head_dim) * PAGE * size_of::<u16>()).next_multiple_of(LINE)
}

/// Where in a page the values' scales begin.
const fn value_scales(head_dim: usize) -> usize {
    key_bytes(head_dim) + PAGE * head_dim
}

/// Bytes of a page's values.
pub(super) const fn value_bytes(head_dim: usize) -> usize {
    PAGE * head_dim + LINE
}

/// The kernels of a level.
pub(super) fn kernels(level: Level) -> &'static Kernels {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => &avx2::KERNELS,
        #[cfg(target_arch = "x86_64")]
        Level::AvxVnni => &avxvnni::KERNELS,
        #[cfg(target_arch = "x86_64")]
        Level::Vnni | Level::Amx => &avx512::KERNELS,
        #[cfg(target_arch = "aarch64")]
        level if level != Level::Scalar => &neon::KERNELS,
        _ => &scalar::KERNELS,
    }
}
