//! 256-bit registers: AVX2, and AVX-VNNI, which differs in how integers are multiplied. A register is 8 rows x 4 inputs
//! of a tile; a tile is taken in two halves.

mod dot;
mod weights;

use std::arch::x86_64::*;
use std::ops::Range;

use self::dot::{Activations, Dots};
pub(super) use self::dot::{Dot, Dpbusd, Maddubs};
use self::weights::Header;
use super::weights::{Weights, for_format};
use crate::{BlockSums, Format, Matrix, Planes, QuantizedBlock, ROW_GROUP, TILE};

/// # Safety
/// As [`crate::multiply`], which has checked the arguments; the machine has AVX2, FMA, F16C and what `I` needs.
pub(super) unsafe fn multiply<I: Dot>(
    matrix: &Matrix,
    groups: Range<usize>,
    input: &QuantizedBlock<'_>,
    out: *mut f32,
    stride: usize,
    prefetch: usize,
) {
    // The sums of more rows than these do not stay in 16 registers.
    let most = if input.planes == Planes::Two { 4 } else { 8 };
    let kernel = |n_rows: usize| for_format!(matrix.format(), kernel<I>(input.planes, n_rows));
    if input.n_rows <= most {
        // SAFETY: the kernel of this format, these planes and all rows; the rest is promised by the caller.
        unsafe { kernel(input.n_rows)(matrix, groups, input, 0, out, stride, prefetch) };
        return;
    }
    let (first, rest) = (kernel(most), kernel(input.n_rows - most));
    for group in groups {
        // SAFETY: as above, for the first rows and for the rest, group by group, so that the second finds the weights
        // in a cache.
        unsafe {
            first(matrix, group..group + 1, input, 0, out, stride, prefetch);
            rest(matrix, group..group + 1, input, most, out, stride, 0);
        }
    }
}

type Kernel = unsafe fn(&Matrix, Range<usize>, &QuantizedBlock<'_>, usize, *mut f32, usize, usize);

fn kernel<F: Weights, I: Dot>(planes: Planes, n_rows: usize) -> Kernel {
    match (planes, n_rows) {
        (Planes::One, 1) => product::<F, I, 1, 1>,
        (Planes::One, 2) => product::<F, I, 2, 1>,
        (Planes::One, 3) => product::<F, I, 3, 1>,
        (Planes::One, 4) => product::<F, I, 4, 1>,
        (Planes::One, 5) => product::<F, I, 5, 1>,
        (Planes::One, 6) => product::<F, I, 6, 1>,
        (Planes::One, 7) => product::<F, I, 7, 1>,
        (Planes::One, _) => product::<F, I, 8, 1>,
        (Planes::Two, 1) => product::<F, I, 1, 2>,
        (Planes::Two, 2) => product::<F, I, 2, 2>,
        (Planes::Two, 3) => product::<F, I, 3, 2>,
        (Planes::Two, _) => product::<F, I, 4, 2>,
    }
}

/// The groups' products with `M` rows of `input` from row `first`; `input` has `P` planes.
///
/// # Safety
/// As [`multiply`]; `F` is the matrix's format, and `input` has these rows and planes.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn product<F: Weights, I: Dot, const M: usize, const P: usize>(
    matrix: &Matrix,
    groups: Range<usize>,
    input: &QuantizedBlock<'_>,
    first: usize,
    out: *mut f32,
    stride: usize,
    prefetch: usize,
) {
    for group in groups {
        let bytes = matrix.group(group);
        let mut acc = [[_mm256_setzero_ps(); M]; 2];
        let mut header = Header::new();
        let mut tile_index = 0;
        for unit in bytes.chunks_exact(F::LAYOUT.unit()) {
            let unit = unit.as_ptr();
            // SAFETY: `unit` has a header and the tiles after it. The input has as many tiles as the matrix, with the
            // sums of all its rows, and their values plane after plane.
            unsafe {
                header.read::<F>(unit);
                for t in 0..F::LAYOUT.tiles {
                    let tile = unit.add(F::LAYOUT.header + t * F::LAYOUT.tile);
                    if prefetch > 0 {
                        for line in (0..F::LAYOUT.unit() / F::LAYOUT.tiles).step_by(64) {
                            _mm_prefetch::<_MM_HINT_T0>(tile.wrapping_add(prefetch + line).cast());
                        }
                    }
                    let row = tile_index * input.n_rows;
                    let x = I::prepare::<F, M, P>(input.values.as_ptr().add((row * P + first) * TILE), input.n_rows);
                    let sums = input.sums.as_ptr().add(row + first);
                    multiply_half::<F, I, M, P, 0>(&mut acc[0], &header, tile, t, &x, sums);
                    multiply_half::<F, I, M, P, 1>(&mut acc[1], &header, tile, t, &x, sums);
                    tile_index += 1;
                }
            }
        }
        for r in 0..M {
            for (half, acc) in acc.iter().enumerate() {
                // SAFETY: 8 of the elements that the caller has promised.
                unsafe { _mm256_storeu_ps(out.add((first + r) * stride + group * ROW_GROUP + 8 * half), acc[r]) };
            }
        }
    }
}

/// Adds a tile's products with rows `8 * H` to `8 * H + 7` of the group.
///
/// # Safety
/// `tile` is tile `t` of a unit with this header, `x` and `sums` are the tile's of M rows.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn multiply_half<F: Weights, I: Dot, const M: usize, const P: usize, const H: usize>(
    acc: &mut [__m256; M],
    header: &Header,
    tile: *const u8,
    t: usize,
    x: &Activations,
    sums: *const BlockSums,
) {
    // SAFETY: the caller's promises are those of what is called here.
    unsafe {
        let mut dots = Dots::new();
        let [first, second] = header.scales::<F, H>(tile, t);
        I::dot::<F, M, P, H, 0>(&mut dots, tile, x);
        I::dot::<F, M, P, H, 1>(&mut dots, tile, x);
        if F::HALVES {
            add::<F, I, M, P, H, LOW>(acc, &dots, first, sums);
            dots = Dots::new();
        }
        I::dot::<F, M, P, H, 2>(&mut dots, tile, x);
        I::dot::<F, M, P, H, 3>(&mut dots, tile, x);
        if F::HALVES {
            add::<F, I, M, P, H, HIGH>(acc, &dots, second, sums);
        } else {
            add::<F, I, M, P, H, WHOLE>(acc, &dots, first, sums);
        }
        if F::MINS {
            for (r, acc) in acc.iter_mut().enumerate() {
                *acc = _mm256_fmadd_ps(second, _mm256_set1_ps((*sums.add(r)).scaled_sum), *acc);
            }
        }
    }
}

/// Inputs 0 to 15 of a tile, 16 to 31, all.
const LOW: u8 = 0;
const HIGH: u8 = 1;
const WHOLE: u8 = 2;

/// Adds scaled sums of products of the part `PART` of a tile. (Constants, so that each instance has one caller and is
/// inlined: only then stay the sums in registers.)
///
/// # Safety
/// `sums` are M sums.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add<F: Weights, I: Dot, const M: usize, const P: usize, const H: usize, const PART: u8>(
    acc: &mut [__m256; M],
    dots: &Dots<M, P>,
    d: __m256,
    sums: *const BlockSums,
) {
    for (r, (acc, planes)) in acc.iter_mut().zip(&dots.whole).enumerate() {
        // SAFETY: `sums` are M sums.
        let sums = unsafe { &*sums.add(r) };
        let mut dot = planes[0];
        if P == 2 {
            dot = _mm256_add_epi32(_mm256_slli_epi32::<8>(dot), planes[P - 1]);
        }
        if I::offset::<F>() != 0 {
            let (low, high) = (_mm256_set1_epi32(sums.low_half), _mm256_set1_epi32(sums.high_half));
            let sum = match PART {
                LOW => low,
                HIGH => high,
                _ => _mm256_add_epi32(low, high),
            };
            dot = _mm256_sub_epi32(dot, _mm256_mullo_epi32(sum, _mm256_set1_epi32(I::offset::<F>())));
        }
        let scale = _mm256_mul_ps(d, _mm256_set1_ps(sums.scale));
        *acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, *acc);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::QuantizedRows;

    /// No machine at hand need have AVX-VNNI: everything but the encoding of its instruction is run with AVX-512's.
    #[test]
    fn one_instruction_equals_the_512_bit_kernel() {
        if !crate::Level::Vnni.is_available() {
            return;
        }
        for format in Format::ALL.into_iter().filter(|format| format.is_quantized()) {
            let (values, size) = format.block();
            let n_cols = if values == 256 { 512 } else { 160 };
            let row = |i: usize| (0..n_cols / values * size).map(|k| ((i * 7 + k * k * 5) % 123) as u8).collect();
            let rows: Vec<Vec<u8>> = (0..24).map(row).collect();
            let matrix = Matrix::pack(format, 24, n_cols, 1, &|i| &rows[i]).unwrap();
            for (planes, n_rows) in [(Planes::One, 1), (Planes::One, 8), (Planes::Two, 3), (Planes::Two, 7)] {
                let mut input = QuantizedRows::with_capacity(n_rows, n_cols, planes);
                input.reshape(n_rows, n_cols, planes);
                let (values, sums) = input.parts_mut();
                values.iter_mut().enumerate().for_each(|(i, value)| *value = (i * i * 37 % 255) as u8 as i8);
                sums.iter_mut().enumerate().for_each(|(i, sums)| {
                    let (low_half, high_half) = (i as i32 * 31 - 400, 1000 - i as i32 * 17);
                    *sums = BlockSums { scale: 0.1 + i as f32, scaled_sum: 0.7 * i as f32, low_half, high_half };
                });
                let run = |multiply: &dyn Fn(*mut f32)| {
                    let mut out = vec![0.0f32; n_rows * 32];
                    multiply(out.as_mut_ptr());
                    out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
                };
                let input = input.block(0);
                // SAFETY: `out` has the rows, and the machine AVX-512 VNNI and VL.
                let ours = run(&|out| unsafe { multiply::<dot::DpbusdEvex>(&matrix, 0..2, &input, out, 32, 64) });
                // SAFETY: as above.
                let other = run(&|out| unsafe { crate::product::vnni::multiply(&matrix, 0..2, &input, out, 32, 0) });
                assert_eq!(ours, other, "{format} {planes:?} {n_rows}");
            }
        }
    }
}
