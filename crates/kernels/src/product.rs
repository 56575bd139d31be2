//! Products of packed matrices with a few rows of activations.
//!
//! What integer kernels compute, at every level to the bit: for each tile of 32 inputs (each half of 16 for Q6_K), in
//! increasing order, `i` = the dot product of the weights (codes minus offset) with the activations' integers, exact
//! in i32; then `acc = fma(i as f32, d * scale, acc)` and, for formats with minima, `acc = fma(m, scaled_sum, acc)`,
//! where `d` and `m` are the row's scale and minimum in the tile, in f32: exact products of what is stored. A row's
//! result depends on that row alone.

mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
mod bf16;
mod conv;
mod float;
#[cfg(target_arch = "aarch64")]
mod i8mm;
#[cfg(target_arch = "aarch64")]
mod neon;
mod panel;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod vnni;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
mod weights;

use std::ops::Range;

#[cfg(feature = "amx-emulation")]
pub use amx::emulation;
#[cfg(target_arch = "x86_64")]
pub(crate) use amx::is_available as has_amx;
pub use amx::{TileBlocks, TilePanel, TileRows, TileRowsWriter, TileWeights, multiply_tiles, round_tiles};
pub use bf16::{gemm_bf16, has_bf16_dots, multiply_bf16_rows, round_to_bf16};
pub use conv::Conv1d;
pub use float::{Start, gemm_f32, multiply_f32, multiply_f32_rows};
pub(crate) use panel::Panel;

use crate::{Level, MAX_BLOCK_ROWS, Matrix, QuantizedBlock, TILE};

/// Writes `out[r * stride + 16 * g + lane]` for every row `r` of `input` and every group `g` of `groups`: the product of
/// row `16 * g + lane` of a matrix of a quantised format with row `r`. The lanes that pad the last group are written
/// too. `prefetch` is how many bytes ahead of the weights being read memory is prefetched; 0 for not at all.
///
/// # Safety
/// This machine can run `level`. `out` is valid for these writes, and nobody else accesses what is written meanwhile.
///
/// # Panics
/// If `groups` are not groups of the matrix, or `input` is not 1 to [`MAX_BLOCK_ROWS`] rows of its width.
#[cfg_attr(
    not(any(target_arch = "aarch64", target_arch = "x86_64")),
    expect(unused_variables, reason = "portable code does not prefetch")
)]
pub unsafe fn multiply(
    level: Level,
    matrix: &Matrix,
    groups: Range<usize>,
    input: &QuantizedBlock<'_>,
    out: *mut f32,
    stride: usize,
    prefetch: usize,
) {
    let n_tiles = matrix.n_cols() / TILE;
    assert!(matrix.format().is_quantized(), "{} is not multiplied with integers", matrix.format());
    assert!(
        groups.start <= groups.end && groups.end <= matrix.n_groups(),
        "groups {groups:?} of {}",
        matrix.n_groups()
    );
    assert!((1..=MAX_BLOCK_ROWS).contains(&input.n_rows), "{} rows", input.n_rows);
    assert_eq!(input.sums.len(), n_tiles * input.n_rows, "tiles of the input");
    assert_eq!(input.values.len(), n_tiles * input.n_rows * TILE * input.planes.count(), "values of the input");
    debug_assert!(level.is_available(), "{level} is not available");
    match level {
        // SAFETY: what was asserted, and the caller's promises.
        #[cfg(target_arch = "x86_64")]
        Level::Vnni | Level::Amx => unsafe { vnni::multiply(matrix, groups, input, out, stride, prefetch) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { avx2::multiply::<avx2::Maddubs>(matrix, groups, input, out, stride, prefetch) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::AvxVnni => unsafe { avx2::multiply::<avx2::Dpbusd>(matrix, groups, input, out, stride, prefetch) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Level::Neon => unsafe { neon::multiply(matrix, groups, input, out, stride, prefetch) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Level::I8mm => unsafe { i8mm::multiply(matrix, groups, input, out, stride, prefetch) },
        // SAFETY: as above.
        _ => unsafe { scalar::multiply(matrix, groups, input, out, stride) },
    }
}
