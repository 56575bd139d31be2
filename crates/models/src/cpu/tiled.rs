//! Linear layers of prompts' rows in tiles of bf16, where the level has them: weights of a few groups are unpacked once
//! and multiplied with all rows. Matrices without tiles are multiplied in f32, as those of other rows.

use std::ops::Range;

use tsserve_kernels::{
    MAX_BLOCK_ROWS, Matrix, ROW_GROUP, TILE, TilePanel, TileRowsWriter, TileWeights, multiply_tiles,
};

use super::buffers::{GATE_TILES, ThreadScratch};
use super::forward::{Forward, Input, row_blocks};
use super::weights::PackedLayer;

/// Groups that are unpacked at once. Their weights and two blocks of rows stay in the L2 cache.
pub(super) const PANEL_GROUPS: usize = 4;

/// Rows of gate and up that are computed before they are activated; whole blocks of 16.
pub(super) const GATE_ROWS: usize = 64;

const _: () = assert!(GATE_TILES * TILE <= PANEL_GROUPS * ROW_GROUP);

// The scratch of gate and up holds blocks of either kind of rows.
const _: () = assert!(GATE_ROWS >= MAX_BLOCK_ROWS && GATE_ROWS.is_multiple_of(16));

impl<'r> Forward<'_, 'r> {
    /// The prompts' rows of the step times some row groups of a matrix. `out(row)`: where column 0 of a row goes.
    pub(super) fn multiply_tiled(
        &self,
        matrix: &Matrix,
        groups: Range<usize>,
        input: &Input<'_, 'r>,
        rows: &TileRowsWriter<'r>,
        out: &dyn Fn(usize) -> *mut f32,
        stride: usize,
    ) {
        let layout = self.constants.layout;
        let (first, n) = (layout.n_decode, layout.n_rows() - layout.n_decode);
        if n == 0 {
            return;
        }
        let [panel, _] = &mut self.scratch().panels;
        for start in groups.clone().step_by(PANEL_GROUPS) {
            let groups = start..(start + PANEL_GROUPS).min(groups.end);
            let weights = self.unpacked(matrix, groups.clone(), panel);
            // SAFETY: the output columns are this chunk's alone.
            unsafe { self.multiply_panel(matrix, weights.as_ref(), groups, input, rows, 0..n, out(first), stride) };
        }
    }

    /// As `gate_up` for the prompts' rows of one chunk: groups `groups` of both matrices, from column `column` on.
    pub(super) fn gate_up_tiled(
        &self,
        layer: &PackedLayer,
        groups: Range<usize>,
        column: usize,
        input: &Input<'_, 'r>,
        rows: &TileRowsWriter<'r>,
    ) {
        let [gate, up] = &layer.gate_up.parts[..] else { return };
        let (layout, width) = (self.constants.layout, GATE_TILES * TILE);
        let n_coarse = layout.n_rows() - layout.n_decode;
        if n_coarse == 0 {
            return;
        }
        let ThreadScratch { gate: gates, up: ups, panels: [gate_panel, up_panel], .. } = self.scratch();
        let unpacked = [
            (gate, self.unpacked(&gate.matrix, groups.clone(), gate_panel)),
            (up, self.unpacked(&up.matrix, groups.clone(), up_panel)),
        ];
        for first in (0..n_coarse).step_by(GATE_ROWS) {
            let n = GATE_ROWS.min(n_coarse - first);
            for ((part, weights), values) in unpacked.iter().zip([&mut *gates, &mut *ups]) {
                if groups.len() * ROW_GROUP < width {
                    // The last chunk's missing columns are zeros of the padded row.
                    values.fill(0.0);
                }
                // Column `column` of the output lies at the scratch's start; nothing before it is written.
                let out = values.as_mut_ptr().wrapping_sub(column);
                let (matrix, groups, block) = (&part.matrix, groups.clone(), first..first + n);
                // SAFETY: the scratch is this thread's, and has as many rows.
                unsafe { self.multiply_panel(matrix, weights.as_ref(), groups, input, rows, block, out, width) };
            }
            self.store_gated(layer, (layout.n_decode + first, n), column, gates, ups);
        }
    }

    /// Groups of a matrix as tiles; `None` where it has none.
    fn unpacked<'p>(
        &self,
        matrix: &'p Matrix,
        groups: Range<usize>,
        panel: &'p mut TilePanel,
    ) -> Option<TileWeights<'p>> {
        matrix.format().has_tiles().then(|| panel.unpack(self.constants.level, matrix, groups))
    }

    /// Rows `block` of the prompts' rows times groups `groups`, which are `weights` where the matrix has tiles.
    ///
    /// # Safety
    /// `out`, the place of the first row's column 0, is valid for the rows' columns of these groups, and they are the
    /// caller's alone.
    #[expect(clippy::too_many_arguments, reason = "three matrices and a place in each")]
    unsafe fn multiply_panel(
        &self,
        matrix: &Matrix,
        weights: Option<&TileWeights<'_>>,
        groups: Range<usize>,
        input: &Input<'_, 'r>,
        rows: &TileRowsWriter<'r>,
        block: Range<usize>,
        out: *mut f32,
        stride: usize,
    ) {
        if let Some(weights) = weights {
            // SAFETY: the rows were filled before the last join; the rest is the caller's promise.
            unsafe { multiply_tiles(self.constants.level, weights, &rows.blocks(block), None, out, stride) };
            return;
        }
        let first_row = self.constants.layout.n_decode + block.start;
        for (first, len) in row_blocks(0, block.len()) {
            let place = out.wrapping_add(first * stride);
            self.multiply_block(matrix, groups.clone(), input, (first_row + first, len), place, stride);
        }
    }
}
