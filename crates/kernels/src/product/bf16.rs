//! Products of bf16 weights with activations rounded to bf16, summed in f32: `vdpbf16ps` of AVX512-BF16.
//!
//! On some machines it is twice as fast as f32 (AMD Zen 4), on others half: whoever chooses should measure. Sums take two
//! inputs at a time, as the instruction defines: it rounds to nearest even, and takes and makes no subnormal numbers. A
//! row's result depends on that row alone.

use std::ops::Range;

use super::float::{Operands, Start, assert_rows};
use crate::lanes::{Lanes, leveled};
use crate::{Format, Level, Matrix};

/// Has this machine AVX512-BF16?
pub fn has_bf16_dots() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        Level::Vnni.is_available() && is_x86_feature_detected!("avx512bf16")
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// `out = x` rounded to the nearest bf16, ties to even; NaN stays NaN.
///
/// # Panics
/// If lengths differ, or the machine cannot run `level`.
pub fn round_to_bf16(level: Level, x: &[f32], out: &mut [u16]) {
    assert_eq!(x.len(), out.len());
    // SAFETY: both hold as many values.
    unsafe { round_at(level, x.as_ptr(), out.as_mut_ptr(), x.len()) }
}

leveled! {
    /// # Safety
    /// Both point to `n` values, `out` to the caller's alone.
    unsafe fn round_at(x: *const f32, out: *mut u16, n: usize) = round_with;
}

/// Plain code, which the compiler makes vectors of at each level.
#[inline(always)]
unsafe fn round_with<L: Lanes>(x: *const f32, out: *mut u16, n: usize) {
    for i in 0..n {
        // SAFETY: i is below n.
        unsafe {
            let bits = x.add(i).read().to_bits();
            let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
            let quiet = bits >> 16 | 0x40;
            let is_nan = bits & 0x7fff_ffff > 0x7f80_0000;
            out.add(i).write(if is_nan { quiet } else { rounded } as u16);
        }
    }
}

/// As [`multiply_f32_rows`](super::multiply_f32_rows) for a BF16 matrix and rows of bf16.
///
/// # Safety
/// `out` is valid for these writes (with `Start::Output` it is read too), and nobody else accesses it meanwhile.
///
/// # Panics
/// As [`multiply_f32_rows`](super::multiply_f32_rows), and if the matrix is of another format or the machine has no
/// [AVX512-BF16](has_bf16_dots).
#[expect(clippy::too_many_arguments, reason = "three matrices and a place in each")]
pub unsafe fn multiply_bf16_rows(
    matrix: &Matrix,
    groups: Range<usize>,
    x: &[u16],
    x_stride: usize,
    n_rows: usize,
    start: Start<'_>,
    out: *mut f32,
    stride: usize,
) {
    assert_eq!(matrix.format(), Format::BF16, "rows of bf16 are multiplied with bf16");
    let operands = Operands::new(matrix, &groups, x, x_stride, n_rows, start, out, stride);
    for operands in operands.chunks_of_rows() {
        // SAFETY: the operands were checked, and the rest is the caller's promise.
        unsafe { multiply_operands(operands, groups.clone()) }
    }
}

/// # Safety
/// The operands are valid for these groups of a BF16 matrix of an even number of columns, and `out` is the caller's alone.
///
/// # Panics
/// If the machine has no [AVX512-BF16](has_bf16_dots).
pub(super) unsafe fn multiply_operands(operands: Operands<u16>, groups: Range<usize>) {
    assert!(has_bf16_dots(), "this machine has no AVX512-BF16");
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the machine has the instructions, and the rest is the caller's promise.
    unsafe {
        x86::multiply(operands, groups);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (operands, groups);
}

/// As [`gemm_f32`](super::gemm_f32) for a BF16 matrix and rows of bf16.
///
/// # Panics
/// As [`multiply_bf16_rows`], and if `out` is too short or its rows overlap.
pub fn gemm_bf16(
    matrix: &Matrix,
    x: &[u16],
    x_stride: usize,
    n_rows: usize,
    start: Start<'_>,
    out: &mut [f32],
    stride: usize,
) {
    assert_rows(out, stride, n_rows, matrix.n_rows());
    // SAFETY: `out` holds the rows, and padding is not written.
    unsafe {
        multiply_bf16_rows(matrix, 0..matrix.n_groups(), x, x_stride, n_rows, start, out.as_mut_ptr(), stride);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::ops::Range;

    use super::super::float::Operands;
    use crate::lanes::Avx512;

    /// Rows of a block: with 4 groups 24 sums, 4 weights and an activation in 32 registers.
    const ROWS: usize = 6;
    const GROUPS: usize = 4;

    /// # Safety
    /// The operands are valid for these groups of a BF16 matrix, and `out` is the caller's alone.
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    pub(super) unsafe fn multiply(operands: Operands<u16>, groups: Range<usize>) {
        // Blocks of rows that differ by one at most.
        let n_blocks = operands.n_rows.div_ceil(ROWS);
        let mut group = groups.start;
        while group < groups.end {
            let n = if groups.end - group >= GROUPS { GROUPS } else { 1 };
            let mut row = 0;
            for block in 0..n_blocks {
                let rows = (operands.n_rows - row).div_ceil(n_blocks - block);
                let from = operands.at_row(row);
                // SAFETY: the caller's promises, for rows and groups within theirs.
                unsafe {
                    match (n, rows) {
                        (GROUPS, 6) => block_of::<6, 4>(from, group),
                        (GROUPS, 5) => block_of::<5, 4>(from, group),
                        (GROUPS, 4) => block_of::<4, 4>(from, group),
                        (GROUPS, 3) => block_of::<3, 4>(from, group),
                        (GROUPS, 2) => block_of::<2, 4>(from, group),
                        (GROUPS, _) => block_of::<1, 4>(from, group),
                        (_, 6) => block_of::<6, 1>(from, group),
                        (_, 5) => block_of::<5, 1>(from, group),
                        (_, 4) => block_of::<4, 1>(from, group),
                        (_, 3) => block_of::<3, 1>(from, group),
                        (_, 2) => block_of::<2, 1>(from, group),
                        _ => block_of::<1, 1>(from, group),
                    }
                }
                row += rows;
            }
            group += n;
        }
    }

    /// The first MR rows times NR groups from `group` on.
    ///
    /// # Safety
    /// As of [`multiply`], for these rows and groups.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn block_of<const MR: usize, const NR: usize>(p: Operands<u16>, group: usize) {
        // SAFETY: the caller's promises: MR rows, NR groups, n_cols inputs, an even number (a multiple of 32).
        unsafe {
            let mut sums = p.start_sums::<Avx512, MR, NR>(group);
            let mut pair = p.weights.add(group * p.group_bytes);
            for k in (0..p.n_cols).step_by(2) {
                let mut weights = [_mm512_setzero_si512(); NR];
                for (n, weights) in weights.iter_mut().enumerate() {
                    *weights = _mm512_loadu_si512(pair.add(n * p.group_bytes).cast());
                }
                for (m, sums) in sums.iter_mut().enumerate() {
                    let x = _mm512_set1_epi32(p.x.add(m * p.x_stride + k).cast::<i32>().read_unaligned());
                    for (sum, weights) in sums.iter_mut().zip(weights) {
                        *sum = _mm512_dpbf16_ps(*sum, as_bf16(weights), as_bf16(x));
                    }
                }
                pair = pair.add(64);
            }
            p.store_sums::<Avx512, MR, NR>(group, sums);
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn as_bf16(bits: __m512i) -> __m512bh {
        // SAFETY: both are 64 bytes, and any bits are values of both.
        unsafe { std::mem::transmute(bits) }
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::testing::{Random, special};

    #[test]
    fn rounding_is_to_the_nearest_even() {
        let mut random = Random(41);
        for n in [0, 1, 31, 100, 5000] {
            let mut x: Vec<f32> = (0..n).map(|_| f32::from_bits(random.next() as u32)).collect();
            if n > 6 {
                x[..6].copy_from_slice(&[0.0, -0.0, f32::MAX, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, 1e-45]);
                x[6] = special(&mut random);
            }
            let expected: Vec<u16> = x.iter().map(|&v| bf16::from_f32(v).to_bits()).collect();
            for level in Level::available() {
                let mut out = vec![0; n];
                round_to_bf16(level, &x, &mut out);
                assert_eq!(out, expected, "{level}");
            }
        }
    }

    /// bf16 bits, and the values.
    fn rounded(values: &[f32]) -> (Vec<u16>, Vec<f64>) {
        values.iter().map(|&v| (bf16::from_f32(v).to_bits(), bf16::from_f32(v).to_f64())).unzip()
    }

    #[test]
    fn products_are_near_f64_and_a_row_does_not_depend_on_others() {
        if !has_bf16_dots() {
            return;
        }
        let mut random = Random(42);
        for (n_out, n_cols) in [(16, 32), (100, 96), (37, 576), (130, 64), (64, 2048)] {
            let (bits, w) = rounded(&random.normals(n_out * n_cols));
            let bytes: Vec<u8> = bits.iter().flat_map(|b| b.to_le_bytes()).collect();
            let size = 2 * n_cols;
            let row = |row: usize| &bytes[row * size..][..size];
            let matrix = Matrix::pack(Format::BF16, n_out, n_cols, 1, &row).unwrap();
            let bias = random.normals(n_out);
            let x_stride = n_cols + 1;
            let (x, x_values) = rounded(&random.normals(33 * x_stride));
            let product = |rows: Range<usize>, start: Start<'_>| {
                let mut out = vec![0.5; rows.len() * n_out];
                gemm_bf16(&matrix, &x[rows.start * x_stride..], x_stride, rows.len(), start, &mut out, n_out);
                out
            };
            for start in [Start::Zero, Start::Bias(&bias), Start::Output] {
                let all = product(0..33, start);
                let (mut error, mut norm) = (0.0, 0.0);
                for (i, &got) in all.iter().enumerate() {
                    let (r, n) = (i / n_out, i % n_out);
                    let (w, x) = (&w[n * n_cols..][..n_cols], &x_values[r * x_stride..][..n_cols]);
                    let from = match start {
                        Start::Zero => 0.0,
                        Start::Bias(bias) => f64::from(bias[n]),
                        Start::Output => 0.5,
                    };
                    let exact = from + w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
                    error += (exact - f64::from(got)).powi(2);
                    norm += exact.powi(2);
                }
                assert!(error / norm < 1e-12, "{n_out} x {n_cols}: {:e}", error / norm);
                for rows in [0..1, 3..5, 7..10, 20..24, 28..33, 0..6, 1..8] {
                    let expected = &all[rows.start * n_out..rows.end * n_out];
                    assert_eq!(product(rows.clone(), start), expected, "{rows:?}");
                }
            }
        }
    }
}
