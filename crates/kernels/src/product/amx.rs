//! Products of many rows with AMX: `tdpbf16ps` multiplies a tile of 16 rows x 32 inputs with one of 32 inputs x 16
//! outputs, 8192 multiplications at once, and keeps the sums of 16 x 16 outputs in a third tile. Weights of a few groups
//! are unpacked to bf16 once ([`TilePanel`]; a BF16 matrix is taken as it lies), and activations are rounded to bf16
//! ([`TileRows`]).
//!
//! What is computed, to the bit: weights are the values of [`Matrix::dequantize_row`](crate::Matrix::dequantize_row),
//! and activations what they are, both rounded to the nearest bf16, ties to even. `acc` starts from 0 or the bias. For
//! each tile of 32 inputs, in increasing order, `even = fma(x[k], w[k], even)` over its 16 even inputs and likewise
//! `odd`, both from 0, and then `acc = acc + (even + odd)`: each rounded once to the nearest f32, ties to even, and with
//! subnormal numbers, taken or made, being zeros. That is what Intel's manual says of the instruction; portable code says
//! it again, and computes it at all other levels. A row's result depends on that row alone.
//!
//! The level decides that AMX is used, and nothing is timed first: by Intel's figures a core multiplies four times as many
//! pairs in a cycle as with `vpdpbusd`, and it does so without a scale for each 32 inputs; and since bf16 gives other bits
//! than integers do, a choice by time would be a choice of answers by chance. For a step of few such rows unpacking takes
//! most of the time; they are multiplied in the same way all the same, so that their bits do not depend on their number.

#[cfg(target_arch = "x86_64")]
mod detect;
#[cfg(feature = "amx-emulation")]
pub mod emulation;
mod panel;
mod portable;
mod rows;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod trial;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "x86_64")]
pub(crate) use detect::is_available;
pub use panel::{TilePanel, TileWeights};
pub use rows::{TileBlocks, TileRows, TileRowsWriter, round_tiles};

use crate::{Level, ROW_GROUP};

/// Writes `out[r * stride + 16 * g + lane]` for every row `r` of `rows` and every group `g` of `weights` (numbered as in
/// their matrix): the product of row `16 * g + lane` of the matrix with row `r`, plus the bias of that row, if there is
/// one. The lanes that pad the last group are written too.
///
/// # Safety
/// `out` is valid for these writes, and nobody else accesses what is written meanwhile.
///
/// # Panics
/// If rows and weights are of different widths, the bias does not have a value for each row of the groups, padding
/// included, or the machine cannot run `level`.
pub unsafe fn multiply_tiles(
    level: Level,
    weights: &TileWeights<'_>,
    rows: &TileBlocks<'_>,
    bias: Option<&[f32]>,
    out: *mut f32,
    stride: usize,
) {
    assert_eq!(rows.n_tiles, weights.n_tiles, "tiles of the rows and of the weights");
    if let Some(bias) = bias {
        assert!(bias.len() >= weights.groups.end * ROW_GROUP, "a bias of {} values", bias.len());
    }
    match level.checked() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the machine has AMX; the widths were compared, and the rest is the caller's promise.
        Level::Amx if rows.n_tiles > 0 => unsafe { x86::multiply(weights, rows, bias, out, stride) },
        // SAFETY: as above.
        _ => unsafe { portable::multiply(weights, rows, bias, out, stride) },
    }
}
