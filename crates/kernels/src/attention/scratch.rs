//! The memory that attention works in.

use super::Partial;
use super::kernels::MAX_TILE_ROWS;
use super::rows::PANEL;
use crate::{AlignedBytes, attention::SPAN};

/// The memory one thread needs for attention. Sized once; no kernel allocates.
#[derive(Debug)]
pub struct Scratch {
    max_group: usize,
    head_dim: usize,
    /// Queries, scores and outputs, as [`Parts`] has them.
    floats: AlignedBytes,
    states: Vec<Partial>,
}

/// The pieces of a scratch.
pub(super) struct Parts<'a> {
    /// Queries of one panel, packed in tiles.
    pub q: &'a mut [f32],
    /// `[MAX_TILE_ROWS][SPAN]`
    pub scores: &'a mut [f32],
    /// `[MAX_TILE_ROWS][head_dim]`
    pub out: &'a mut [f32],
    /// Of the rows of one panel.
    pub states: &'a mut [Partial],
}

impl Scratch {
    /// For up to `max_group` query heads per key-value head, of `head_dim` values each.
    pub fn new(max_group: usize, head_dim: usize) -> Self {
        let rows = panel_rows(max_group);
        let floats = rows * head_dim + MAX_TILE_ROWS * (SPAN + head_dim);
        Self {
            max_group,
            head_dim,
            floats: AlignedBytes::zeroed(floats * size_of::<f32>()),
            states: vec![Partial::NONE; rows],
        }
    }

    pub(super) fn max_group(&self) -> usize {
        self.max_group
    }

    /// # Panics
    /// If it was made for heads of another width.
    pub(super) fn parts(&mut self, head_dim: usize) -> Parts<'_> {
        assert_eq!(head_dim, self.head_dim, "a scratch for other heads");
        // SAFETY: any bytes are f32s.
        let (_, floats, _) = unsafe { self.floats.align_to_mut::<f32>() };
        // Scores first: their rows are whole cache lines.
        let (scores, floats) = floats.split_at_mut(MAX_TILE_ROWS * SPAN);
        let (out, q) = floats.split_at_mut(MAX_TILE_ROWS * head_dim);
        Parts { q, scores, out, states: &mut self.states }
    }
}

/// Rows of a panel of `group` query heads, in whole tiles of any level.
fn panel_rows(group: usize) -> usize {
    PANEL * group + MAX_TILE_ROWS
}
