//! Products of float weights with f32 activations, for one row or for thousands.
//!
//! Every output is one sum, in f32: `acc = fma(w[k], x[k], acc)` for k = 0, 1, 2, …, from 0, a bias or what was there.
//! So its bits depend neither on the level nor on how many rows and groups there are or how they are split.
//!
//! A block of rows times a few groups of 16 outputs stays in registers for the whole of k (no output is read back): 6 x 4
//! groups where there are 32 registers of 16 lanes. The groups' weights come from the L2 cache for every block of rows
//! but the first.

use std::ops::Range;

use crate::lanes::{Lanes, leveled, load_up_to, prefetch, store_up_to};
use crate::{Format, Level, Matrix, ROW_GROUP};

/// What the sums of a product start from.
#[derive(Debug, Clone, Copy)]
pub enum Start<'a> {
    Zero,
    /// One value for each of the matrix's rows.
    Bias(&'a [f32]),
    /// What the output holds: the product is added to it.
    Output,
}

/// Writes `out[r * stride + 16 * g + lane]` for `n_rows` rows of `x`, which start `x_stride` apart, and every group `g` of
/// `groups`: the product of row `16 * g + lane` of a BF16, F16 or F32 matrix with row `r`. The lanes that pad the last
/// group are written too. `prefetch` is how many bytes ahead of the weights being read memory is prefetched; 0 for not
/// at all. Best are ranges of a multiple of 4 groups.
///
/// # Safety
/// `out` is valid for these writes, and nobody else accesses what is written meanwhile.
///
/// # Panics
/// If the matrix is quantised, `groups` are not its groups, `x` is too short, or the machine cannot run `level`.
#[expect(clippy::too_many_arguments, reason = "three matrices and a place in each")]
pub unsafe fn multiply_f32(
    level: Level,
    matrix: &Matrix,
    groups: Range<usize>,
    x: &[f32],
    x_stride: usize,
    n_rows: usize,
    out: *mut f32,
    stride: usize,
    prefetch: usize,
) {
    let n_out = groups.end * ROW_GROUP;
    let operands = Operands::new(matrix, &groups, x, x_stride, n_rows, Start::Zero, out, stride);
    // SAFETY: the operands were checked, and the rest is the caller's promise.
    unsafe { multiply_at(level, Operands { n_out, prefetch, ..operands }, matrix.format(), groups) }
}

/// As [`multiply_f32`], for many rows and with a choice of what to start from; padding is not written.
///
/// # Safety
/// `out` is valid for these writes (with `Start::Output` it is read too), and nobody else accesses it meanwhile.
///
/// # Panics
/// As [`multiply_f32`], and if a bias does not have as many values as the matrix rows.
#[expect(clippy::too_many_arguments, reason = "three matrices and a place in each")]
pub unsafe fn multiply_f32_rows(
    level: Level,
    matrix: &Matrix,
    groups: Range<usize>,
    x: &[f32],
    x_stride: usize,
    n_rows: usize,
    start: Start<'_>,
    out: *mut f32,
    stride: usize,
) {
    let operands = Operands::new(matrix, &groups, x, x_stride, n_rows, start, out, stride);
    for operands in operands.chunks_of_rows() {
        // SAFETY: the operands were checked, and the rest is the caller's promise.
        unsafe { multiply_at(level, operands, matrix.format(), groups.clone()) }
    }
}

/// The product of `n_rows` rows of `x`, `x_stride` apart, with a whole matrix, into rows of `out`, `stride` apart.
///
/// # Panics
/// As [`multiply_f32_rows`], and if `out` is too short or its rows overlap.
#[expect(clippy::too_many_arguments, reason = "three matrices and a place in each")]
pub fn gemm_f32(
    level: Level,
    matrix: &Matrix,
    x: &[f32],
    x_stride: usize,
    n_rows: usize,
    start: Start<'_>,
    out: &mut [f32],
    stride: usize,
) {
    assert_rows(out, stride, n_rows, matrix.n_rows());
    let groups = 0..matrix.n_groups();
    // SAFETY: `out` holds the rows, and padding is not written.
    unsafe { multiply_f32_rows(level, matrix, groups, x, x_stride, n_rows, start, out.as_mut_ptr(), stride) }
}

/// # Panics
/// If `out` is not `n_rows` rows of `width`, `stride` apart.
pub(super) fn assert_rows(out: &[f32], stride: usize, n_rows: usize, width: usize) {
    assert!(n_rows <= 1 || stride >= width, "rows of {width} every {stride}");
    assert!(holds(out.len(), stride, n_rows, width), "{n_rows} rows of {width} for {}", out.len());
}

/// Do `len` values hold `n_rows` rows of `width`, `stride` apart?
fn holds(len: usize, stride: usize, n_rows: usize, width: usize) -> bool {
    let end = |n: usize| (n - 1).checked_mul(stride)?.checked_add(width);
    n_rows == 0 || end(n_rows).is_some_and(|end| end <= len)
}

/// Bytes that rows may take of the L2 cache.
const L2_OF_ROWS: usize = 384 << 10;

/// Where everything is; X is what a value of the rows is stored as.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operands<X> {
    /// Group 0.
    pub(super) weights: *const u8,
    pub(super) group_bytes: usize,
    pub(super) n_cols: usize,
    /// Outputs from here on are not written.
    pub(super) n_out: usize,
    pub(super) x: *const X,
    pub(super) x_stride: usize,
    pub(super) n_rows: usize,
    pub(super) start: StartAt,
    pub(super) out: *mut f32,
    pub(super) stride: usize,
    pub(super) prefetch: usize,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum StartAt {
    Zero,
    Bias(*const f32),
    Output,
}

impl<X: Copy> Operands<X> {
    #[expect(clippy::too_many_arguments, reason = "three matrices and a place in each")]
    pub(super) fn new(
        matrix: &Matrix,
        groups: &Range<usize>,
        x: &[X],
        x_stride: usize,
        n_rows: usize,
        start: Start<'_>,
        out: *mut f32,
        stride: usize,
    ) -> Self {
        assert!(!matrix.format().is_quantized(), "{} is not multiplied as floats", matrix.format());
        assert!(groups.start <= groups.end && groups.end <= matrix.n_groups(), "groups of {}", matrix.n_groups());
        let n_cols = matrix.n_cols();
        assert!(holds(x.len(), x_stride, n_rows, n_cols), "{n_rows} rows of {n_cols} in {}", x.len());
        Self {
            weights: matrix.packed().as_ptr(),
            group_bytes: crate::pack::float::group_bytes(matrix.format(), n_cols),
            n_cols,
            n_out: matrix.n_rows(),
            x: x.as_ptr(),
            x_stride,
            n_rows,
            start: match start {
                Start::Zero => StartAt::Zero,
                Start::Output => StartAt::Output,
                Start::Bias(bias) => {
                    assert_eq!(bias.len(), matrix.n_rows(), "a bias for every output");
                    StartAt::Bias(bias.as_ptr())
                }
            },
            out,
            stride,
            prefetch: 0,
        }
    }

    /// As many rows at once as stay in the L2 cache while all groups pass, in whole blocks of 4 and of 6.
    pub(super) fn chunks_of_rows(self) -> impl Iterator<Item = Self> {
        let rows = (L2_OF_ROWS / (size_of::<X>() * self.n_cols.max(1))).max(60) / 12 * 12;
        (0..self.n_rows).step_by(rows).map(move |row| Self { n_rows: rows.min(self.n_rows - row), ..self.at_row(row) })
    }

    /// The same from row `row` on.
    pub(super) fn at_row(self, row: usize) -> Self {
        Self {
            x: self.x.wrapping_add(row * self.x_stride),
            out: self.out.wrapping_add(row * self.stride),
            n_rows: self.n_rows - row,
            ..self
        }
    }

    /// Where row m and group n's outputs are, and how many of them (and more, in later groups) there are.
    #[inline(always)]
    fn outputs(&self, m: usize, group: usize) -> (*mut f32, usize) {
        let first = group * ROW_GROUP;
        (self.out.wrapping_add(m * self.stride + first), self.n_out.saturating_sub(first))
    }

    /// What the sums of the first MR rows and of NR groups from `group` on start from.
    ///
    /// # Safety
    /// As of [`Lanes`], for these rows and groups of the operands.
    #[inline(always)]
    pub(super) unsafe fn start_sums<L: Lanes, const MR: usize, const NR: usize>(
        &self,
        group: usize,
    ) -> [[L::F; NR]; MR] {
        // SAFETY: the caller's promises; of the outputs and the bias what is below n_out is read.
        unsafe {
            let mut sums = [[L::splat(0.0); NR]; MR];
            for (m, sums) in sums.iter_mut().enumerate() {
                for (n, sum) in sums.iter_mut().enumerate() {
                    let (out, left) = self.outputs(m, group + n);
                    match self.start {
                        StartAt::Zero => {}
                        StartAt::Bias(bias) => {
                            *sum = load_up_to::<L>(bias.wrapping_add((group + n) * ROW_GROUP), left);
                        }
                        StartAt::Output => *sum = load_up_to::<L>(out, left),
                    }
                }
            }
            sums
        }
    }

    /// Writes the sums of the first MR rows and of NR groups from `group` on.
    ///
    /// # Safety
    /// As of [`Lanes`], for these rows and groups of the operands.
    #[inline(always)]
    pub(super) unsafe fn store_sums<L: Lanes, const MR: usize, const NR: usize>(
        &self,
        group: usize,
        sums: [[L::F; NR]; MR],
    ) {
        for (m, sums) in sums.into_iter().enumerate() {
            for (n, sum) in sums.into_iter().enumerate() {
                let (out, left) = self.outputs(m, group + n);
                // SAFETY: the caller's promises; what is below n_out is written.
                unsafe { store_up_to::<L>(out, left, sum) }
            }
        }
    }
}

leveled! {
    /// # Safety
    /// The operands are valid for these groups, `out` is the caller's alone, and `format` is their float format.
    pub(super) unsafe fn multiply_at(operands: Operands<f32>, format: Format, groups: Range<usize>) = multiply_with;
}

#[inline(always)]
unsafe fn multiply_with<L: Lanes>(operands: Operands<f32>, format: Format, groups: Range<usize>) {
    // SAFETY: the caller's promises.
    unsafe {
        match format {
            Format::BF16 => multiply_by::<L, Bf16>(operands, groups),
            Format::F16 => multiply_by::<L, F16>(operands, groups),
            _ => multiply_by::<L, F32>(operands, groups),
        }
    }
}

/// How weights of a format are read.
trait Weights {
    /// Inputs that are stored together: one loop body takes them, with registers for all.
    const INPUTS: usize;
    /// Bytes of them in one group.
    const BYTES: usize;

    /// The weights of input I of those stored at `at`.
    ///
    /// # Safety
    /// As of [`Lanes`].
    unsafe fn input<L: Lanes, const I: usize>(at: *const u8) -> L::F;
}

struct Bf16;
struct F16;
struct F32;

impl Weights for Bf16 {
    const INPUTS: usize = 2;
    const BYTES: usize = 64;

    #[inline(always)]
    unsafe fn input<L: Lanes, const I: usize>(at: *const u8) -> L::F {
        // SAFETY: the caller's promises.
        unsafe { if I == 0 { L::load_bf16_low(at.cast()) } else { L::load_bf16_high(at.cast()) } }
    }
}

impl Weights for F16 {
    const INPUTS: usize = 1;
    const BYTES: usize = 32;

    #[inline(always)]
    unsafe fn input<L: Lanes, const I: usize>(at: *const u8) -> L::F {
        // SAFETY: the caller's promises.
        unsafe { L::load_f16(at.cast()) }
    }
}

impl Weights for F32 {
    const INPUTS: usize = 1;
    const BYTES: usize = 64;

    #[inline(always)]
    unsafe fn input<L: Lanes, const I: usize>(at: *const u8) -> L::F {
        // SAFETY: the caller's promises; groups are aligned to 64 bytes.
        unsafe { L::load(at.cast()) }
    }
}

/// All rows times all groups: as many groups at once as registers allow, and for these block after block of rows.
#[inline(always)]
unsafe fn multiply_by<L: Lanes, W: Weights>(operands: Operands<f32>, groups: Range<usize>) {
    // Rows of a block, and groups at once. Weights that are kept in registers for two inputs take those of some sums.
    let (most, wide) = match (L::REGISTERS, operands.n_rows) {
        (32.., _) => (if W::INPUTS == 2 { 4 } else { 6 }, 4),
        (8.., ..=1) => (1, 4),
        (8.., ..=3) => (3, 2),
        (8.., _) => (if W::INPUTS == 2 { 4 } else { 6 }, 1),
        _ => (1, 1),
    };
    // Blocks of rows that differ by one at most.
    let n_blocks = operands.n_rows.div_ceil(most);
    let mut group = groups.start;
    while group < groups.end {
        let n = if groups.end - group >= wide { wide } else { 1 };
        let mut row = 0;
        for block in 0..n_blocks {
            let rows = (operands.n_rows - row).div_ceil(n_blocks - block);
            let from = Operands { n_rows: rows, ..operands.at_row(row) };
            // SAFETY: the caller's promises, for rows and groups within theirs.
            unsafe {
                match (n, rows) {
                    (4, 6) if L::REGISTERS >= 32 && W::INPUTS == 1 => block_of::<L, W, 6, 4>(from, group),
                    (4, 5) if L::REGISTERS >= 32 && W::INPUTS == 1 => block_of::<L, W, 5, 4>(from, group),
                    (4, 4) if L::REGISTERS >= 32 => block_of::<L, W, 4, 4>(from, group),
                    (4, 3) if L::REGISTERS >= 32 => block_of::<L, W, 3, 4>(from, group),
                    (4, 2) if L::REGISTERS >= 32 => block_of::<L, W, 2, 4>(from, group),
                    (4, 1) if L::REGISTERS >= 8 => block_of::<L, W, 1, 4>(from, group),
                    (2, 3) if L::REGISTERS == 8 => block_of::<L, W, 3, 2>(from, group),
                    (2, 2) if L::REGISTERS == 8 => block_of::<L, W, 2, 2>(from, group),
                    (1, 6) if L::REGISTERS >= 8 => block_of::<L, W, 6, 1>(from, group),
                    (1, 5) if L::REGISTERS >= 8 => block_of::<L, W, 5, 1>(from, group),
                    (1, 4) if L::REGISTERS >= 8 => block_of::<L, W, 4, 1>(from, group),
                    (1, 3) if L::REGISTERS >= 8 => block_of::<L, W, 3, 1>(from, group),
                    (1, 2) if L::REGISTERS >= 8 => block_of::<L, W, 2, 1>(from, group),
                    _ => {
                        for g in group..group + n {
                            for r in 0..rows {
                                block_of::<L, W, 1, 1>(from.at_row(r), g);
                            }
                        }
                    }
                }
            }
            row += rows;
        }
        group += n;
    }
}

/// The first MR rows times NR groups from `group` on.
#[inline(always)]
unsafe fn block_of<L: Lanes, W: Weights, const MR: usize, const NR: usize>(p: Operands<f32>, group: usize) {
    // SAFETY: the caller's promises: MR rows, NR groups, n_cols inputs.
    unsafe {
        let mut sums = p.start_sums::<L, MR, NR>(group);
        let mut at = p.weights.add(group * p.group_bytes);
        let mut k = 0;
        while k + W::INPUTS <= p.n_cols {
            if p.prefetch > 0 {
                for n in 0..NR {
                    prefetch(at.wrapping_add(n * p.group_bytes + p.prefetch));
                }
            }
            add_products::<L, W, MR, NR, 0>(&mut sums, &p, at, k);
            if W::INPUTS == 2 {
                add_products::<L, W, MR, NR, 1>(&mut sums, &p, at, k + 1);
            }
            at = at.add(W::BYTES);
            k += W::INPUTS;
        }
        if k < p.n_cols {
            add_products::<L, W, MR, NR, 0>(&mut sums, &p, at, k);
        }
        p.store_sums::<L, MR, NR>(group, sums);
    }
}

/// Adds the products of input k, which is input I of the weights at `at`.
#[inline(always)]
unsafe fn add_products<L: Lanes, W: Weights, const MR: usize, const NR: usize, const I: usize>(
    sums: &mut [[L::F; NR]; MR],
    p: &Operands<f32>,
    at: *const u8,
    k: usize,
) {
    // SAFETY: the caller's promises.
    unsafe {
        let mut weights = [L::splat(0.0); NR];
        for (n, weights) in weights.iter_mut().enumerate() {
            *weights = W::input::<L, I>(at.add(n * p.group_bytes));
        }
        for (m, sums) in sums.iter_mut().enumerate() {
            let x = L::splat(p.x.add(m * p.x_stride + k).read());
            for (sum, weights) in sums.iter_mut().zip(weights) {
                *sum = L::fma(weights, x, *sum);
            }
        }
    }
}

#[cfg(test)]
mod tests;
