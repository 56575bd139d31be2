//! AVX-512 VNNI: one register is 16 rows x 4 inputs of a tile, and one `vpdpbusd` adds their products with 4 inputs of a
//! row of activations, broadcast, to 16 sums.

mod unpack;
mod weights;

use std::arch::x86_64::*;
use std::ops::Range;

pub(super) use self::unpack::unpack_to_bf16;
use self::weights::{Header, codes};
use super::weights::{Weights, for_format};
use crate::{BlockSums, Format, Matrix, Planes, QuantizedBlock, ROW_GROUP, TILE};

/// # Safety
/// As [`crate::multiply`], which has checked the arguments; the machine has AVX-512 F, BW, DQ, VL and VNNI.
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
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
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
        let mut acc = [_mm512_setzero_ps(); M];
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
                            _mm_prefetch::<_MM_HINT_T0>(tile.wrapping_add(prefetch + line).cast());
                        }
                    }
                    multiply_tile::<F, M, P>(&mut acc, &header, tile, t, x, sums);
                    x = x.add(M * P * TILE);
                    sums = sums.add(M);
                }
            }
        }
        for (r, &acc) in acc.iter().enumerate() {
            // SAFETY: 16 of the elements that the caller has promised.
            unsafe { _mm512_storeu_ps(out.add(r * stride + group * ROW_GROUP), acc) };
        }
    }
}

/// Adds a tile's products.
///
/// # Safety
/// `tile` is tile `t` of a unit with this header, `x` its `[P][M][32]` values and `sums` its M sums.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn multiply_tile<F: Weights, const M: usize, const P: usize>(
    acc: &mut [__m512; M],
    header: &Header,
    tile: *const u8,
    t: usize,
    x: *const i8,
    sums: *const BlockSums,
) {
    // SAFETY: the caller's promises are those of what is called here.
    unsafe {
        let mut dots = [[_mm512_setzero_si512(); P]; M];
        let [first, second] = header.scales::<F>(tile, t);
        dot::<F, M, P, 0>(&mut dots, tile, x);
        dot::<F, M, P, 1>(&mut dots, tile, x);
        if F::HALVES {
            add::<F, M, P, LOW>(acc, &dots, first, sums);
            dots = [[_mm512_setzero_si512(); P]; M];
        }
        dot::<F, M, P, 2>(&mut dots, tile, x);
        dot::<F, M, P, 3>(&mut dots, tile, x);
        if F::HALVES {
            add::<F, M, P, HIGH>(acc, &dots, second, sums);
        } else {
            add::<F, M, P, WHOLE>(acc, &dots, first, sums);
        }
        if F::MINS {
            for (r, acc) in acc.iter_mut().enumerate() {
                *acc = _mm512_fmadd_ps(second, _mm512_set1_ps((*sums.add(r)).scaled_sum), *acc);
            }
        }
    }
}

/// Adds the products of inputs `8 * J` to `8 * J + 7`.
///
/// # Safety
/// As [`multiply_tile`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn dot<F: Weights, const M: usize, const P: usize, const J: usize>(
    dots: &mut [[__m512i; P]; M],
    tile: *const u8,
    x: *const i8,
) {
    // SAFETY: the tile is whole, and the values of row `r` in plane `p` start at `(p * M + r) * 32`.
    unsafe {
        let codes = codes::<F, J>(tile);
        for (half, codes) in codes.into_iter().enumerate() {
            for (r, dots) in dots.iter_mut().enumerate() {
                for (p, dot) in dots.iter_mut().enumerate() {
                    let x = x.add((p * M + r) * TILE + 8 * J + 4 * half).cast::<i32>().read_unaligned();
                    *dot = _mm512_dpbusd_epi32(*dot, codes, _mm512_set1_epi32(x));
                }
            }
        }
    }
}

/// Inputs 0 to 15 of a tile, 16 to 31, all.
const LOW: u8 = 0;
const HIGH: u8 = 1;
const WHOLE: u8 = 2;

/// Adds scaled sums of products of the part `PART` of a tile. (A constant, so that each instance has one caller and is
/// inlined: only then stay the sums in registers.)
///
/// # Safety
/// `sums` are M sums.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn add<F: Weights, const M: usize, const P: usize, const PART: u8>(
    acc: &mut [__m512; M],
    dots: &[[__m512i; P]; M],
    d: __m512,
    sums: *const BlockSums,
) {
    for r in 0..M {
        // SAFETY: `sums` are M sums.
        let sums = unsafe { &*sums.add(r) };
        let mut dot = dots[r][0];
        if P == 2 {
            dot = _mm512_add_epi32(_mm512_slli_epi32::<8>(dot), dots[r][P - 1]);
        }
        if F::OFFSET != 0 {
            let (low, high) = (_mm512_set1_epi32(sums.low_half), _mm512_set1_epi32(sums.high_half));
            let sum = match PART {
                LOW => low,
                HIGH => high,
                _ => _mm512_add_epi32(low, high),
            };
            dot = _mm512_sub_epi32(dot, _mm512_mullo_epi32(sum, _mm512_set1_epi32(F::OFFSET)));
        }
        let scale = _mm512_mul_ps(d, _mm512_set1_ps(sums.scale));
        acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, acc[r]);
    }
}
