//! Products with matrices that others than [`Matrix`](crate::Matrix) hold: keys and values of attention.

use std::ops::Range;

use super::bf16;
use super::float::{Operands, StartAt, multiply_at};
use crate::{Format, Level, ROW_GROUP};

/// A matrix in packed groups of 16 rows, of which the first columns are multiplied with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panel<'a> {
    /// F32, F16 or BF16.
    pub format: Format,
    pub weights: &'a [u8],
    /// From one group to the next; more than the columns take, where there are more columns.
    pub group_bytes: usize,
    pub n_cols: usize,
    /// Rows of the matrix: outputs.
    pub n_out: usize,
    /// Bytes ahead of what is read that is prefetched; 0 for not at all.
    pub prefetch: usize,
}

impl Panel<'_> {
    /// Writes `out[r * stride + o]` for each of the `n_rows` rows of `x` and every output `o`.
    ///
    /// # Safety
    /// `out` is valid for these writes, and nobody else accesses what is written meanwhile.
    ///
    /// # Panics
    /// If the weights or `x` are too short, or the machine cannot run `level`.
    pub(crate) unsafe fn multiply(
        &self,
        level: Level,
        x: &[f32],
        x_stride: usize,
        n_rows: usize,
        out: *mut f32,
        stride: usize,
    ) {
        let (operands, groups) = self.operands(x, x_stride, n_rows, out, stride);
        // SAFETY: the operands were checked, and the rest is the caller's promise.
        unsafe { multiply_at(level, operands, self.format, groups) }
    }

    /// As [`Self::multiply`] with rows of bf16 and dot products of bf16, for a BF16 panel with an even number of columns.
    ///
    /// # Safety
    /// As [`Self::multiply`].
    ///
    /// # Panics
    /// As [`Self::multiply`], and if the format, the columns or the machine are not such.
    pub(crate) unsafe fn multiply_bf16(&self, x: &[u16], x_stride: usize, n_rows: usize, out: *mut f32, stride: usize) {
        assert!(self.format == Format::BF16 && self.n_cols.is_multiple_of(2), "pairs of bf16");
        let (operands, groups) = self.operands(x, x_stride, n_rows, out, stride);
        // SAFETY: the operands were checked, and the rest is the caller's promise.
        unsafe { bf16::multiply_operands(operands, groups) }
    }

    fn operands<X: Copy>(
        &self,
        x: &[X],
        x_stride: usize,
        n_rows: usize,
        out: *mut f32,
        stride: usize,
    ) -> (Operands<X>, Range<usize>) {
        let groups = 0..self.n_out.div_ceil(ROW_GROUP);
        let used = crate::pack::float::group_bytes(self.format, self.n_cols);
        let end = groups.len().checked_sub(1).map_or(0, |last| last * self.group_bytes + used);
        assert!(!self.format.is_quantized() && end <= self.weights.len(), "{end} bytes of {}", self.weights.len());
        let rows_end = n_rows.checked_sub(1).map_or(0, |last| last * x_stride + self.n_cols);
        assert!(rows_end <= x.len(), "{n_rows} rows of {} in {}", self.n_cols, x.len());
        let operands = Operands {
            weights: self.weights.as_ptr(),
            group_bytes: self.group_bytes,
            n_cols: self.n_cols,
            n_out: self.n_out,
            x: x.as_ptr(),
            x_stride,
            n_rows,
            start: StartAt::Zero,
            out,
            stride,
            prefetch: self.prefetch,
        };
        (operands, groups)
    }
}
