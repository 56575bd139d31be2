//! What is done with blocks of rows of the residual stream.

use tsserve_kernels::elementwise;
use tsserve_kernels::{
    Format, Level, MAX_BLOCK_ROWS, Matrix, Planes, QuantizedRows, ROW_GROUP, Start, TileRows, TileWeights, multiply,
    multiply_bf16_rows, multiply_f32_rows, multiply_tiles, quantize_tiles, round_to_bf16,
};

use super::weights::{Linear, Norm};

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

/// Rows as a matrix's format wants them.
#[derive(Debug)]
pub(super) struct RowScratch {
    half: Vec<u16>,
    tiles: TileRows,
    quantized: QuantizedRows,
}

impl RowScratch {
    /// For products at `level` whose rows, where they lie, are `values` values in all, and `rows` rows of `width` at most.
    pub(super) fn new(level: Level, values: usize, rows: usize, width: usize) -> Self {
        Self {
            half: vec![0; values],
            tiles: TileRows::with_capacity(if level == Level::Amx { rows } else { 0 }, width),
            quantized: QuantizedRows::with_capacity(rows, width, Planes::One),
        }
    }
}

/// Bytes of weights that pass all rows before the next ones do: they stay in the nearest caches.
const CHUNK_BYTES: usize = 64 << 10;

impl Products {
    /// The product of `n_rows` rows of `x`, `x_stride` apart (they may overlap), with a matrix, to rows of `out`,
    /// `stride` apart; with a bias for each of the matrix's rows, of which there are whole groups.
    ///
    /// # Safety
    /// `out` is valid for these rows, and they are the caller's alone.
    #[expect(clippy::too_many_arguments, reason = "three matrices and a place in each")]
    pub(super) unsafe fn multiply(
        self,
        Linear { matrix, bias }: &Linear,
        x: &[f32],
        x_stride: usize,
        n_rows: usize,
        out: *mut f32,
        stride: usize,
        scratch: &mut RowScratch,
    ) {
        let (groups, start) = (0..matrix.n_groups(), Start::Bias(bias));
        // SAFETY: the caller's promise.
        unsafe {
            if matrix.format().is_quantized() {
                self.quantize(x, x_stride, n_rows, matrix.n_cols(), &mut scratch.quantized);
                self.multiply_quantized(matrix, &scratch.quantized, out, stride);
                for row in 0..n_rows {
                    let out = std::slice::from_raw_parts_mut(out.add(row * stride), bias.len());
                    elementwise::add(self.level, out, bias);
                }
            } else if self.dots
                && self.level == Level::Amx
                && matrix.format() == Format::BF16
                // Of a last group all 16 outputs would be written.
                && matrix.n_rows().is_multiple_of(ROW_GROUP)
            {
                scratch.tiles.round(self.level, x, x_stride, n_rows, matrix.n_cols());
                let weights = TileWeights::stored(matrix, groups);
                multiply_tiles(self.level, &weights, &scratch.tiles.blocks(), Some(bias), out, stride);
            } else if self.dots && matrix.format() == Format::BF16 {
                let x = &x[..(n_rows - 1) * x_stride + matrix.n_cols()];
                let half = &mut scratch.half[..x.len()];
                round_to_bf16(self.level, x, half);
                multiply_bf16_rows(matrix, groups, half, x_stride, n_rows, start, out, stride);
            } else {
                multiply_f32_rows(self.level, matrix, groups, x, x_stride, n_rows, start, out, stride);
            }
        }
    }

    fn quantize(self, x: &[f32], x_stride: usize, n_rows: usize, width: usize, rows: &mut QuantizedRows) {
        rows.reshape(n_rows, width, Planes::One);
        let writer = rows.writer();
        for row in 0..n_rows {
            // SAFETY: the rows are borrowed exclusively.
            unsafe { quantize_tiles(self.level, &x[row * x_stride..][..width], row, &writer, 0) };
        }
    }

    /// # Safety
    /// As of [`Self::multiply`].
    unsafe fn multiply_quantized(self, matrix: &Matrix, rows: &QuantizedRows, out: *mut f32, stride: usize) {
        let group_bytes = (matrix.bytes() / matrix.n_groups().max(1)).max(1);
        let at_once = (CHUNK_BYTES / group_bytes).max(1);
        for first in (0..matrix.n_groups()).step_by(at_once) {
            let groups = first..(first + at_once).min(matrix.n_groups());
            for block in 0..rows.n_blocks() {
                let out = out.wrapping_add(block * MAX_BLOCK_ROWS * stride);
                // SAFETY: the caller's promise.
                unsafe { multiply(self.level, matrix, groups.clone(), &rows.block(block), out, stride, 0) };
            }
        }
    }
}
