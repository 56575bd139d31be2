//! Attention over keys and values that lie as two packed matrices: of an encoder, and of a decoder over an encoder's
//! output or over its own few positions.
//!
//! Keys are the rows of one matrix and the dimensions of values those of another, so that scores and outputs are
//! products of blocks of query rows with matrices, with a softmax between. Every sum runs in one order, dimension after
//! dimension, and positions after each other in spans of [`SPAN`], so that a row's bits depend on nothing but its query
//! and what it sees. The format says how keys and values are stored, and queries and weights stay f32; with `dots`
//! everything that is multiplied is bf16.

mod layout;
mod softmax;
#[cfg(test)]
mod tests;

pub use layout::Panels;

use crate::elementwise::{add, scale};
use crate::product::{Panel, round_to_bf16};
use crate::{AlignedBytes, Level, ROW_GROUP};

/// Query rows whose scores exist at a time.
const BLOCK: usize = 24;

/// Positions whose values are summed before they are added to those of the positions before: one long sum of f32 would
/// lose digits.
const SPAN: usize = 256;

/// Numbers of query rows that wait for memory, and compute enough for prefetches to come in between.
const PREFETCHING: std::ops::RangeInclusive<usize> = 2..=8;

/// Bytes ahead that is prefetched: the next four groups of keys of 64 dimensions in f16.
const AHEAD: usize = 8 << 10;

/// Queries of one head, and what they see.
#[derive(Debug, Clone, Copy)]
pub struct Queries<'a> {
    /// Row r is `q[r * stride..][..head_dim]`, scaled.
    pub q: &'a [f32],
    pub stride: usize,
    pub n: usize,
    /// Positions that the last row sees, from the first on.
    pub seen: usize,
    /// Every row sees one position less than the one after it.
    pub causal: bool,
    /// Multiply bf16 with bf16. The panels are BF16 and the machine has dot products for it.
    pub dots: bool,
}

/// Hears a row's number and its scores.
pub type ScoresTap<'t> = &'t mut dyn FnMut(usize, &[f32]);

/// The memory one thread needs. Sized once.
#[derive(Debug)]
pub struct PanelScratch {
    capacity: usize,
    /// `[BLOCK][capacity]`
    scores: AlignedBytes,
    /// `[BLOCK][capacity]`
    weights: Vec<u16>,
    /// `[BLOCK][head_dim]`
    queries: Vec<u16>,
    /// The outputs of one span, likewise.
    outputs: Vec<f32>,
}

impl PanelScratch {
    /// For up to `capacity` positions of heads of up to `head_dim`.
    pub fn new(capacity: usize, head_dim: usize) -> Self {
        let capacity = capacity.next_multiple_of(ROW_GROUP);
        Self {
            capacity,
            scores: AlignedBytes::zeroed(BLOCK * capacity * size_of::<f32>()),
            weights: vec![0; BLOCK * capacity],
            queries: vec![0; BLOCK * head_dim],
            outputs: vec![0.0; BLOCK * head_dim],
        }
    }
}

/// Writes the answer of each query row r to `out + r * out_stride`, `head_dim` values. `tap` gets the scores of every row
/// before the softmax, as many as the last row of its block sees.
///
/// # Safety
/// The places of `out` are valid for writes that nobody else makes.
///
/// # Panics
/// If the last row sees more than the panels hold or a row sees nothing, if `memory` is not of one head, `q` or the
/// scratch is too small, the machine cannot run `level`, or `dots` are asked for that it or the format has not.
#[expect(clippy::too_many_arguments, reason = "a kernel's operands, each a different thing")]
pub unsafe fn attend_panels(
    level: Level,
    panels: &Panels,
    memory: &[u8],
    queries: &Queries<'_>,
    scratch: &mut PanelScratch,
    out: *mut f32,
    out_stride: usize,
    mut tap: Option<ScoresTap<'_>>,
) {
    let Panels { format, head_dim, capacity } = *panels;
    let Queries { q, stride, n, seen, causal, dots } = *queries;
    assert_eq!(memory.len(), panels.bytes(), "the memory of one head");
    assert!(seen <= capacity && seen <= scratch.capacity, "{seen} positions of {capacity}");
    assert!(seen > if causal { n.saturating_sub(1) } else { 0 }, "a query that sees nothing");
    let prefetch = if PREFETCHING.contains(&n) { AHEAD } else { 0 };
    let width = scratch.capacity;
    // SAFETY: any bytes are f32s, and the memory is aligned to more.
    let (_, scores, _) = unsafe { scratch.scores.align_to_mut::<f32>() };
    let (keys, values) = memory.split_at(panels.part());
    let size = format.block().1;
    for first in (0..n).step_by(BLOCK) {
        let rows = (n - first).min(BLOCK);
        let q = &q[first * stride..];
        let seen_by = |row: usize| if causal { seen - (n - 1 - first - row) } else { seen };
        let most = seen_by(rows - 1);
        let group_bytes = ROW_GROUP * head_dim * size;
        let keys = Panel { format, weights: keys, group_bytes, n_cols: head_dim, n_out: most, prefetch };
        // SAFETY: the scores are ours, `rows` rows of `width`.
        unsafe {
            if dots {
                for (row, to) in scratch.queries.chunks_exact_mut(head_dim).enumerate().take(rows) {
                    round_to_bf16(level, &q[row * stride..][..head_dim], to);
                }
                keys.multiply_bf16(&scratch.queries, head_dim, rows, scores.as_mut_ptr(), width);
            } else {
                keys.multiply(level, q, stride, rows, scores.as_mut_ptr(), width);
            }
        }
        // Pairs: what is beyond weighs nothing.
        let n_cols = if dots { most.next_multiple_of(2) } else { most };
        let mut sums = [0.0; BLOCK];
        for (row, scores) in scores.chunks_exact_mut(width).enumerate().take(rows) {
            if let Some(tap) = &mut tap {
                tap(first + row, &scores[..most]);
            }
            let seen = seen_by(row);
            // Rows are multiples of 16.
            let done = seen.next_multiple_of(ROW_GROUP);
            // SAFETY: a row of scores, and one of weights, are as long.
            unsafe {
                if dots {
                    let weights = &mut scratch.weights[row * width..(row + 1) * width];
                    sums[row] = softmax::weigh_bf16(level, scores.as_mut_ptr(), seen, weights.as_mut_ptr());
                    weights[done.min(n_cols)..n_cols].fill(0);
                } else {
                    sums[row] = softmax::weigh(level, scores.as_mut_ptr(), seen);
                    scores[done.min(n_cols)..n_cols].fill(0.0);
                }
            }
        }
        let group_bytes = ROW_GROUP * capacity * size;
        let out = out.wrapping_add(first * out_stride);
        let answer = |row: usize| {
            // SAFETY: this place of `out` is ours, by contract; one slice at a time is made of it.
            unsafe { std::slice::from_raw_parts_mut(out.add(row * out_stride), head_dim) }
        };
        for from in (0..n_cols).step_by(SPAN) {
            let n_cols = SPAN.min(n_cols - from);
            let values = &values[from * ROW_GROUP * size..];
            let values = Panel { format, weights: values, group_bytes, n_cols, n_out: head_dim, prefetch };
            let outputs = &mut scratch.outputs[..rows * head_dim];
            // SAFETY: the outputs are ours.
            unsafe {
                if dots {
                    values.multiply_bf16(&scratch.weights[from..], width, rows, outputs.as_mut_ptr(), head_dim);
                } else {
                    values.multiply(level, &scores[from..], width, rows, outputs.as_mut_ptr(), head_dim);
                }
            }
            for (row, outputs) in outputs.chunks_exact(head_dim).enumerate() {
                if from == 0 {
                    answer(row).copy_from_slice(outputs);
                } else {
                    add(level, answer(row), outputs);
                }
            }
        }
        for (row, sum) in sums.iter().enumerate().take(rows) {
            scale(level, answer(row), 1.0 / sum);
        }
    }
}
