//! What is done with blocks of rows of the residual stream.

use tsserve_kernels::elementwise;
use tsserve_kernels::{Format, Level, Matrix, Start, multiply_bf16_rows, multiply_f32_rows, round_to_bf16};

use super::weights::Norm;

const EPS: f32 = 1e-5;

/// `out = norm(x)`
pub(super) fn norm_row(level: Level, norm: &Norm, x: &[f32], out: &mut [f32]) {
    elementwise::layer_norm(level, x, &norm.weight, &norm.bias, EPS, out);
}

/// How products of many rows are computed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Products {
    pub level: Level,
    /// BF16 matrices are multiplied with rows rounded to bf16.
    pub dots: bool,
}

impl Products {
    /// The product of `n_rows` rows of `x`, `x_stride` apart (they may overlap), with groups `groups` of a float matrix,
    /// to rows of `out`, `stride` apart.
    ///
    /// # Safety
    /// `out` is valid for these rows, and they are the caller's alone.
    #[expect(clippy::too_many_arguments, reason = "three matrices and a place in each")]
    pub(super) unsafe fn multiply(
        self,
        matrix: &Matrix,
        groups: std::ops::Range<usize>,
        x: &[f32],
        x_stride: usize,
        n_rows: usize,
        start: Start<'_>,
        out: *mut f32,
        stride: usize,
        half: &mut [u16],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            if self.dots && matrix.format() == Format::BF16 {
                let x = &x[..(n_rows - 1) * x_stride + matrix.n_cols()];
                let half = &mut half[..x.len()];
                round_to_bf16(self.level, x, half);
                multiply_bf16_rows(matrix, groups, half, x_stride, n_rows, start, out, stride);
            } else {
                multiply_f32_rows(self.level, matrix, groups, x, x_stride, n_rows, start, out, stride);
            }
        }
    }
}
