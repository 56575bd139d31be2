//! aarch64 with the matrix multiply instructions: one `usmmla` adds the products of 2 rows x 8 inputs of a tile with 2
//! rows of activations x the same 8 inputs to 2 x 2 sums. One row of activations would leave half of it idle: that is
//! the dot product kernel's.
//!
//! A tile is taken in four quarters of 4 rows, as there: two registers of 2 rows. The rows of activations are taken in
//! pairs. Sums stay 2 x 2 from the first tile to the last: what they are scaled by is brought into their order, once a
//! tile for a pair of rows (`rows.rs`) and once for a quarter of the weights.
//!
//! `usmmla` multiplies unsigned bytes with signed ones, so that codes are taken as they are, and what they are too high by,
//! times the sum of the activations, is what sums start from: a sum is the exact `i` of the definition.

mod rows;
mod weights;

use std::arch::aarch64::*;
use std::arch::asm;
use std::ops::Range;

use self::rows::RowPairs;
use self::weights::codes;
use super::neon;
use super::weights::{Weights, for_format};
use crate::{Format, Matrix, Planes, QuantizedBlock, ROW_GROUP, TILE};

/// # Safety
/// As [`crate::multiply`], which has checked the arguments; the machine has the dot product and the matrix multiply
/// instructions.
pub(super) unsafe fn multiply(
    matrix: &Matrix,
    groups: Range<usize>,
    input: &QuantizedBlock<'_>,
    out: *mut f32,
    stride: usize,
    prefetch: usize,
) {
    if input.n_rows == 1 {
        // SAFETY: the caller's promises.
        return unsafe { neon::multiply(matrix, groups, input, out, stride, prefetch) };
    }
    let run = for_format!(matrix.format(), kernel(input));
    // SAFETY: the kernel of this format and of the rows and planes of this input; the rest is promised by the caller.
    unsafe { run(matrix, groups, input, out, stride, prefetch) }
}

type Kernel = unsafe fn(&Matrix, Range<usize>, &QuantizedBlock<'_>, *mut f32, usize, usize);

fn kernel<F: Weights>(input: &QuantizedBlock<'_>) -> Kernel {
    match (input.planes, input.n_rows.div_ceil(2)) {
        (Planes::One, 1) => product::<F, 1, 1>,
        (Planes::One, 2) => product::<F, 2, 1>,
        (Planes::One, 3) => product::<F, 3, 1>,
        (Planes::One, _) => product::<F, 4, 1>,
        (Planes::Two, 1) => product::<F, 1, 2>,
        (Planes::Two, 2) => product::<F, 2, 2>,
        (Planes::Two, 3) => product::<F, 3, 2>,
        (Planes::Two, _) => product::<F, 4, 2>,
    }
}

/// 2 x 2 sums of two rows of weights with two rows of activations: `[w0 x0, w0 x1, w1 x0, w1 x1]`; for the first and the
/// last two rows of a quarter.
type Sums = [float32x4_t; 2];

/// The groups' products with the rows of `input`, which are `N` pairs (the last may lack its second) in `P` planes.
///
/// # Safety
/// As [`multiply`]; `F` is the matrix's format.
#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn product<F: Weights, const N: usize, const P: usize>(
    matrix: &Matrix,
    groups: Range<usize>,
    input: &QuantizedBlock<'_>,
    out: *mut f32,
    stride: usize,
    prefetch: usize,
) {
    let n_rows = input.n_rows;
    for group in groups {
        let bytes = matrix.group(group);
        let mut acc = [[[vdupq_n_f32(0.0); 2]; N]; 4];
        let mut x = input.values.as_ptr();
        let mut sums = input.sums.as_ptr();
        let mut header = neon::Header::new();
        for unit in bytes.chunks_exact(F::LAYOUT.unit()) {
            let unit = unit.as_ptr();
            // SAFETY: `unit` has a header and the tiles after it. Each tile has the rows' sums and their values in P planes,
            // and the matrix has as many tiles as the input: the pointers stay inside, the last ends one past.
            unsafe {
                header.read::<F>(unit);
                for t in 0..F::LAYOUT.tiles {
                    let tile = unit.add(F::LAYOUT.header + t * F::LAYOUT.tile);
                    if prefetch > 0 {
                        for line in (0..F::LAYOUT.unit() / F::LAYOUT.tiles).step_by(64) {
                            neon::fetch_ahead(tile.wrapping_add(prefetch + line));
                        }
                    }
                    let rows = RowPairs::<N, P>::read::<F>(x, sums, n_rows);
                    for (q, acc) in acc.iter_mut().enumerate() {
                        multiply_quarter::<F, N, P>(acc, &header, tile, t, q, &rows);
                    }
                    x = x.add(n_rows * P * TILE);
                    sums = sums.add(n_rows);
                }
            }
        }
        for (q, acc) in acc.iter().enumerate() {
            for (n, &[first, last]) in acc.iter().enumerate() {
                for (r, row) in [vuzp1q_f32(first, last), vuzp2q_f32(first, last)].into_iter().enumerate() {
                    if 2 * n + r < n_rows {
                        // SAFETY: 4 of the elements that the caller has promised.
                        unsafe { vst1q_f32(out.add((2 * n + r) * stride + group * ROW_GROUP + 4 * q), row) };
                    }
                }
            }
        }
    }
}

/// Adds a tile's products with rows `4 * q` to `4 * q + 3` of the group.
///
/// # Safety
/// `tile` is tile `t` of a unit with this header, `rows` are the tile's, and `q` is below 4.
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn multiply_quarter<F: Weights, const N: usize, const P: usize>(
    acc: &mut [Sums; N],
    header: &neon::Header,
    tile: *const u8,
    t: usize,
    q: usize,
    rows: &RowPairs<N, P>,
) {
    // SAFETY: the caller's promises are those of what is called here.
    unsafe {
        let [first, second] = header.scales::<F>(tile, t, q);
        let mut dots = start::<N, P, 0>(rows);
        dot::<F, N, P, 0>(&mut dots, tile, q, rows);
        if F::HALVES {
            add(acc, &dots, first, rows);
            dots = start::<N, P, 1>(rows);
        }
        dot::<F, N, P, 1>(&mut dots, tile, q, rows);
        add(acc, &dots, if F::HALVES { second } else { first }, rows);
        if F::MINS {
            let mins = twice(second);
            for (acc, &scaled_sums) in acc.iter_mut().zip(&rows.scaled_sums) {
                *acc = [vfmaq_f32(acc[0], mins[0], scaled_sums), vfmaq_f32(acc[1], mins[1], scaled_sums)];
            }
        }
    }
}

/// Integer sums of a quarter, in the order of [`Sums`]: of the first and the last two rows, per plane.
type Dots<const N: usize, const P: usize> = [[[int32x4_t; P]; 2]; N];

/// What the sums of a tile, or of its half `H`, start from.
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
fn start<const N: usize, const P: usize, const H: usize>(rows: &RowPairs<N, P>) -> Dots<N, P> {
    let mut dots = [[[vdupq_n_s32(0); P]; 2]; N];
    for (dots, starts) in dots.iter_mut().zip(&rows.starts) {
        // The last plane is the one that is not shifted.
        (dots[0][P - 1], dots[1][P - 1]) = (starts[H], starts[H]);
    }
    dots
}

/// Adds the products of inputs `16 * H` to `16 * H + 15`.
///
/// # Safety
/// `tile` is a whole tile of format `F`, and `q` is below 4.
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn dot<F: Weights, const N: usize, const P: usize, const H: usize>(
    dots: &mut Dots<N, P>,
    tile: *const u8,
    q: usize,
    rows: &RowPairs<N, P>,
) {
    // SAFETY: the caller's promise.
    let codes = unsafe { codes::<F, H>(tile, q) };
    for (part, [first, last]) in codes.into_iter().enumerate() {
        for (dots, x) in dots.iter_mut().zip(&rows.values) {
            for (p, x) in x.iter().enumerate() {
                dots[0][p] = usmmla(dots[0][p], first, x[H][part]);
                dots[1][p] = usmmla(dots[1][p], last, x[H][part]);
            }
        }
    }
}

/// Adds the products of two rows of 8 codes with two rows of 8 activations. (Written as assembly because the instruction's
/// function is not stable.)
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
fn usmmla(mut sums: int32x4_t, codes: uint8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction is one of this function's features, and changes nothing but `sums`.
    unsafe {
        asm!(
            "usmmla {sums:v}.4s, {codes:v}.16b, {x:v}.16b",
            sums = inout(vreg) sums,
            codes = in(vreg) codes,
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

/// Adds scaled sums of products.
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
fn add<const N: usize, const P: usize>(acc: &mut [Sums; N], dots: &Dots<N, P>, d: float32x4_t, rows: &RowPairs<N, P>) {
    let d = twice(d);
    for ((acc, dots), &scales) in acc.iter_mut().zip(dots).zip(&rows.scales) {
        for ((acc, planes), d) in acc.iter_mut().zip(dots).zip(d) {
            let mut dot = planes[0];
            if P == 2 {
                dot = vaddq_s32(vshlq_n_s32::<8>(dot), planes[P - 1]);
            }
            *acc = vfmaq_f32(*acc, vcvtq_f32_s32(dot), vmulq_f32(d, scales));
        }
    }
}

/// What belongs to 4 rows of weights, in the order of [`Sums`].
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
fn twice(of_rows: float32x4_t) -> Sums {
    [vzip1q_f32(of_rows, of_rows), vzip2q_f32(of_rows, of_rows)]
}
