//! NEON with the dot product instructions: one register is 4 rows x 4 inputs of a tile, and one `sdot` adds their products
//! with 4 inputs of a row of activations to 4 sums. A tile is taken in four quarters of 4 rows, and those in two halves of
//! 16 inputs, whose activations are one register per row and plane.
//!
//! `sdot` multiplies signed bytes. Codes up to 63 are signed bytes as they are, and what they are too high by, times the
//! sum of the activations, is what their sums start from; all others are made weights first. Either way a sum is the
//! exact `i` of the definition.

mod weights;

use std::arch::aarch64::*;
use std::arch::asm;
use std::ops::Range;

pub(super) use self::weights::Header;
use self::weights::{codes, offset};
use super::weights::{Weights, for_format};
use crate::{BlockSums, Format, Matrix, Planes, QuantizedBlock, ROW_GROUP, TILE};

/// # Safety
/// As [`crate::multiply`], which has checked the arguments; the machine has the dot product instructions.
pub(super) unsafe fn multiply(
    matrix: &Matrix,
    groups: Range<usize>,
    input: &QuantizedBlock<'_>,
    out: *mut f32,
    stride: usize,
    prefetch: usize,
) {
    let run = for_format!(matrix.format(), kernel(input));
    // SAFETY: the kernel of this format and of the rows and planes of this input; the rest is promised by the caller.
    unsafe { run(matrix, groups, input, out, stride, prefetch) }
}

type Kernel = unsafe fn(&Matrix, Range<usize>, &QuantizedBlock<'_>, *mut f32, usize, usize);

fn kernel<F: Weights>(input: &QuantizedBlock<'_>) -> Kernel {
    match (input.planes, input.n_rows) {
        (Planes::One, 1) => product::<F, 1, 1>,
        (Planes::One, 2) => product::<F, 2, 1>,
        (Planes::One, 3) => product::<F, 3, 1>,
        (Planes::One, 4) => product::<F, 4, 1>,
        (Planes::One, 5) => product::<F, 5, 1>,
        (Planes::One, 6) => product::<F, 6, 1>,
        (Planes::One, 7) => product::<F, 7, 1>,
        (Planes::One, _) => product::<F, 8, 1>,
        (Planes::Two, 1) => product::<F, 1, 2>,
        (Planes::Two, 2) => product::<F, 2, 2>,
        (Planes::Two, 3) => product::<F, 3, 2>,
        (Planes::Two, 4) => product::<F, 4, 2>,
        (Planes::Two, 5) => product::<F, 5, 2>,
        (Planes::Two, 6) => product::<F, 6, 2>,
        (Planes::Two, 7) => product::<F, 7, 2>,
        (Planes::Two, _) => product::<F, 8, 2>,
    }
}

/// The groups' products with the `M` rows of `input`, which has `P` planes.
///
/// # Safety
/// As [`multiply`]; `F` is the matrix's format.
#[target_feature(enable = "neon,dotprod")]
unsafe fn product<F: Weights, const M: usize, const P: usize>(
    matrix: &Matrix,
    groups: Range<usize>,
    input: &QuantizedBlock<'_>,
    out: *mut f32,
    stride: usize,
    prefetch: usize,
) {
    for group in groups {
        let bytes = matrix.group(group);
        let mut acc = [[vdupq_n_f32(0.0); M]; 4];
        let mut x = input.values.as_ptr();
        let mut sums = input.sums.as_ptr();
        let mut header = Header::new();
        for unit in bytes.chunks_exact(F::LAYOUT.unit()) {
            let unit = unit.as_ptr();
            // SAFETY: `unit` has a header and the tiles after it. Each tile has M sums and M rows of values in P planes,
            // and the matrix has as many tiles as the input: the pointers stay inside, the last ends one past.
            unsafe {
                header.read::<F>(unit);
                for t in 0..F::LAYOUT.tiles {
                    let tile = unit.add(F::LAYOUT.header + t * F::LAYOUT.tile);
                    if prefetch > 0 {
                        for line in (0..F::LAYOUT.unit() / F::LAYOUT.tiles).step_by(64) {
                            fetch_ahead(tile.wrapping_add(prefetch + line));
                        }
                    }
                    for (q, acc) in acc.iter_mut().enumerate() {
                        multiply_quarter::<F, M, P>(acc, &header, tile, t, q, x, sums);
                    }
                    x = x.add(M * P * TILE);
                    sums = sums.add(M);
                }
            }
        }
        for (q, acc) in acc.iter().enumerate() {
            for (r, &acc) in acc.iter().enumerate() {
                // SAFETY: 4 of the elements that the caller has promised.
                unsafe { vst1q_f32(out.add(r * stride + group * ROW_GROUP + 4 * q), acc) };
            }
        }
    }
}

/// Asks for the cache line at `at`, which may be no memory of ours.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn fetch_ahead(at: *const u8) {
    // SAFETY: a hint, which changes neither memory nor registers and never faults.
    unsafe { asm!("prfm pldl1keep, [{at}]", at = in(reg) at, options(readonly, nostack, preserves_flags)) };
}

/// Adds a tile's products with rows `4 * q` to `4 * q + 3` of the group.
///
/// # Safety
/// `tile` is tile `t` of a unit with this header, `x` its `[P][M][32]` values and `sums` its M sums; `q` is
/// below 4.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn multiply_quarter<F: Weights, const M: usize, const P: usize>(
    acc: &mut [float32x4_t; M],
    header: &Header,
    tile: *const u8,
    t: usize,
    q: usize,
    x: *const i8,
    sums: *const BlockSums,
) {
    // SAFETY: the caller's promises are those of what is called here.
    unsafe {
        let [first, second] = header.scales::<F>(tile, t, q);
        if F::HALVES {
            let mut dots = start::<F, M, P, LOW>(sums);
            dot::<F, M, P, 0>(&mut dots, tile, q, x);
            add::<M, P>(acc, &dots, first, sums);
            dots = start::<F, M, P, HIGH>(sums);
            dot::<F, M, P, 1>(&mut dots, tile, q, x);
            add::<M, P>(acc, &dots, second, sums);
        } else {
            let mut dots = start::<F, M, P, WHOLE>(sums);
            dot::<F, M, P, 0>(&mut dots, tile, q, x);
            dot::<F, M, P, 1>(&mut dots, tile, q, x);
            add::<M, P>(acc, &dots, first, sums);
        }
        if F::MINS {
            for (r, acc) in acc.iter_mut().enumerate() {
                *acc = vfmaq_n_f32(*acc, second, (*sums.add(r)).scaled_sum);
            }
        }
    }
}

/// Inputs 0 to 15 of a tile, 16 to 31, all.
const LOW: u8 = 0;
const HIGH: u8 = 1;
const WHOLE: u8 = 2;

/// What the sums of the part `PART` of a tile start from: less by what the codes are too high by.
///
/// # Safety
/// `sums` are M sums.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn start<F: Weights, const M: usize, const P: usize, const PART: u8>(
    sums: *const BlockSums,
) -> [[int32x4_t; P]; M] {
    let mut dots = [[vdupq_n_s32(0); P]; M];
    if offset::<F>() != 0 {
        for (r, dots) in dots.iter_mut().enumerate() {
            // SAFETY: `sums` are M sums.
            let sums = unsafe { &*sums.add(r) };
            let sum = match PART {
                LOW => sums.low_half,
                HIGH => sums.high_half,
                _ => sums.low_half.wrapping_add(sums.high_half),
            };
            // The last plane is the one that is not shifted.
            dots[P - 1] = vdupq_n_s32(sum.wrapping_mul(-offset::<F>()));
        }
    }
    dots
}

/// Adds the products of inputs `16 * H` to `16 * H + 15`.
///
/// # Safety
/// As [`multiply_quarter`].
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn dot<F: Weights, const M: usize, const P: usize, const H: usize>(
    dots: &mut [[int32x4_t; P]; M],
    tile: *const u8,
    q: usize,
    x: *const i8,
) {
    // SAFETY: the tile is whole, and the values of row `r` in plane `p` start at `(p * M + r) * 32`.
    unsafe {
        let codes = codes::<F, H>(tile, q);
        for (r, dots) in dots.iter_mut().enumerate() {
            for (p, dot) in dots.iter_mut().enumerate() {
                *dot = sdot(*dot, codes, vld1q_s8(x.add((p * M + r) * TILE + 16 * H)));
            }
        }
    }
}

/// Adds the products of the 4 words of `x` with those of 4 rows of weights, `codes[g]` being the rows' word `g`. (Written
/// as assembly because the instruction's function is stable later than this code.)
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot(mut sum: int32x4_t, codes: [int8x16_t; 4], x: int8x16_t) -> int32x4_t {
    // SAFETY: the instructions are those of this function's features, and change nothing but `sum`.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {a:v}.16b, {x:v}.4b[0]",
            "sdot {sum:v}.4s, {b:v}.16b, {x:v}.4b[1]",
            "sdot {sum:v}.4s, {c:v}.16b, {x:v}.4b[2]",
            "sdot {sum:v}.4s, {d:v}.16b, {x:v}.4b[3]",
            sum = inout(vreg) sum,
            a = in(vreg) codes[0],
            b = in(vreg) codes[1],
            c = in(vreg) codes[2],
            d = in(vreg) codes[3],
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// Adds scaled sums of products.
///
/// # Safety
/// `sums` are M sums.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn add<const M: usize, const P: usize>(
    acc: &mut [float32x4_t; M],
    dots: &[[int32x4_t; P]; M],
    d: float32x4_t,
    sums: *const BlockSums,
) {
    for (r, (acc, planes)) in acc.iter_mut().zip(dots).enumerate() {
        let mut dot = planes[0];
        if P == 2 {
            dot = vaddq_s32(vshlq_n_s32::<8>(dot), planes[P - 1]);
        }
        // SAFETY: `sums` are M sums.
        let scale = vmulq_n_f32(d, unsafe { (*sums.add(r)).scale });
        *acc = vfmaq_f32(*acc, vcvtq_f32_s32(dot), scale);
    }
}
