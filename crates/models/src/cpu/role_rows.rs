//! A step's rows as matrices read them: those of answers, computed finely, and those of prompts.
//!
//! Two planes bring a row near f32, and cost nothing where a step of few rows waits for memory. A prompt's rows are many
//! and wait for the multiplier, so they take one plane, but for the inputs of q, k, v and of down: there a few channels
//! are so large that one scale for 32 values leaves little of the others. With these two in two planes the real weights'
//! log-probabilities are 1.5 to 3 times nearer to f32, for a third more time; with gate and up it would double.
//!
//! With AMX a prompt's rows are rounded to bf16, for all matrices alike.

use tsserve_kernels::{
    Level, Planes, QuantizedRows, RowsWriter, TILE, TileRows, TileRowsWriter, quantize_tiles, round_tiles,
};

use super::layout::Layout;

/// Memory for the rows of one width.
#[derive(Debug)]
pub(super) struct RoleRows {
    fine: QuantizedRows,
    coarse: CoarseRows,
}

/// A prompt's rows, as the level multiplies them.
#[derive(Debug)]
enum CoarseRows {
    Quantized { rows: QuantizedRows, planes: Planes },
    Tiles(TileRows),
}

/// Are prompts' rows multiplied in tiles of bf16?
pub(super) fn has_tiles(level: Level) -> bool {
    level == Level::Amx
}

impl RoleRows {
    /// `prompts` says how finely prompts' rows are quantised, if they are.
    pub(super) fn new(level: Level, max_rows: usize, width: usize, prompts: Planes) -> Self {
        let quantized = |planes| QuantizedRows::with_capacity(max_rows, width, planes);
        let coarse = if has_tiles(level) {
            CoarseRows::Tiles(TileRows::with_capacity(max_rows, width))
        } else {
            CoarseRows::Quantized { rows: quantized(prompts), planes: prompts }
        };
        Self { fine: quantized(Planes::Two), coarse }
    }

    /// How often a prompt's row is multiplied with each integer weight, in integers.
    pub(super) fn prompt_products(&self) -> usize {
        match self.coarse {
            CoarseRows::Quantized { planes, .. } => planes.count(),
            CoarseRows::Tiles(_) => 0,
        }
    }

    /// Makes them the rows of a step, of `width` values, to be filled and read.
    pub(super) fn writers(&mut self, layout: &Layout, width: usize) -> RoleWriters<'_> {
        let (n_fine, n_coarse) = (layout.n_decode, layout.n_rows() - layout.n_decode);
        self.fine.reshape(n_fine, width, Planes::Two);
        let coarse = match &mut self.coarse {
            CoarseRows::Quantized { rows, planes } => {
                rows.reshape(n_coarse, width, *planes);
                CoarseWriter::Quantized(rows.writer())
            }
            CoarseRows::Tiles(rows) => {
                rows.reshape(n_coarse, width);
                CoarseWriter::Tiles(rows.writer())
            }
        };
        RoleWriters { fine: self.fine.writer(), coarse }
    }
}

/// Rows of one width being filled and read.
pub(super) struct RoleWriters<'r> {
    fine: RowsWriter<'r>,
    coarse: CoarseWriter<'r>,
}

enum CoarseWriter<'r> {
    Quantized(RowsWriter<'r>),
    Tiles(TileRowsWriter<'r>),
}

impl<'r> RoleWriters<'r> {
    /// The prompts' rows, where they are multiplied in tiles.
    pub(super) fn tiles(&self) -> Option<&TileRowsWriter<'r>> {
        match &self.coarse {
            CoarseWriter::Quantized(_) => None,
            CoarseWriter::Tiles(rows) => Some(rows),
        }
    }

    /// The quantised rows that hold row `row` of the step, and its number there; `None` where it is not quantised.
    pub(super) fn quantized(&self, row: usize) -> Option<(&RowsWriter<'r>, usize)> {
        match (row.checked_sub(self.fine.n_rows()), &self.coarse) {
            (None, _) => Some((&self.fine, row)),
            (Some(row), CoarseWriter::Quantized(rows)) => Some((rows, row)),
            (Some(_), CoarseWriter::Tiles(_)) => None,
        }
    }

    /// Fills whole tiles of row `row` of the step, from column `column` on.
    ///
    /// # Safety
    /// No other thread reads or writes these tiles at the same time.
    pub(super) unsafe fn write(&self, level: Level, row: usize, column: usize, values: &[f32]) {
        let first = column / TILE;
        // SAFETY: the caller's promise.
        unsafe {
            match (row.checked_sub(self.fine.n_rows()), &self.coarse) {
                (None, _) => quantize_tiles(level, values, row, &self.fine, first),
                (Some(row), CoarseWriter::Quantized(rows)) => quantize_tiles(level, values, row, rows, first),
                (Some(row), CoarseWriter::Tiles(rows)) => round_tiles(level, values, row, rows, first),
            }
        }
    }
}
