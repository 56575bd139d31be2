//! What is done with blocks of rows of the residual stream.

use tsserve_kernels::elementwise;
use tsserve_kernels::{
    Format, Level, Matrix, ROW_GROUP, Start, TileRows, TileWeights, multiply_bf16_rows, multiply_f32_rows,
    multiply_tiles, round_to_bf16,
};

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
    /// And that in tiles, where they are whole.
    pub tiles: bool,
}

/// Rows rounded to bf16, as the machine multiplies them.
#[derive(Debug)]
pub(super) struct RoundedRows {
    dots: Vec<u16>,
    tiles: TileRows,
}

impl RoundedRows {
    /// Room for `max_rows` rows of up to `max_width` values, of which the memory that overlapping ones share has up to
    /// `max_values`.
    pub(super) fn new(products: Products, max_rows: usize, max_width: usize, max_values: usize) -> Self {
        let tile_rows = if products.tiles { max_rows } else { 0 };
        Self {
            dots: vec![0; if products.dots { max_values } else { 0 }],
            tiles: TileRows::with_capacity(tile_rows, max_width),
        }
    }
}

impl Products {
    /// Are BF16 matrices multiplied as such?
    pub(super) fn bf16(self) -> bool {
        self.dots || self.tiles
    }

    /// The product of `n_rows` rows of `x`, `x_stride` apart (they may overlap), with a float matrix plus its bias, to rows
    /// of `out`, `stride` apart.
    ///
    /// # Safety
    /// `out` is valid for these rows, and they are the caller's alone.
    #[expect(clippy::too_many_arguments, reason = "three matrices and a place in each")]
    pub(super) unsafe fn multiply(
        self,
        matrix: &Matrix,
        bias: &[f32],
        x: &[f32],
        x_stride: usize,
        n_rows: usize,
        out: *mut f32,
        stride: usize,
        rounded: &mut RoundedRows,
    ) {
        let (groups, is_bf16) = (0..matrix.n_groups(), matrix.format() == Format::BF16);
        // SAFETY: the caller's promise.
        unsafe {
            // Of a last group all 16 outputs would be written.
            if self.tiles && is_bf16 && matrix.n_rows().is_multiple_of(ROW_GROUP) {
                rounded.tiles.round(self.level, x, x_stride, n_rows, matrix.n_cols());
                let weights = TileWeights::stored(matrix, groups);
                multiply_tiles(self.level, &weights, &rounded.tiles.blocks(), Some(bias), out, stride);
            } else if self.dots && is_bf16 {
                let x = &x[..(n_rows - 1) * x_stride + matrix.n_cols()];
                let half = &mut rounded.dots[..x.len()];
                round_to_bf16(self.level, x, half);
                multiply_bf16_rows(matrix, groups, half, x_stride, n_rows, Start::Bias(bias), out, stride);
            } else {
                let start = Start::Bias(bias);
                multiply_f32_rows(self.level, matrix, groups, x, x_stride, n_rows, start, out, stride);
            }
        }
    }
}
