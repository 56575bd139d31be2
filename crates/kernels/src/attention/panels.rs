//! Attention over keys and values that lie as two packed matrices: of an encoder, and of a decoder over an encoder's
//! output or over its own few positions.
//!
//! Keys are the rows of one matrix and the dimensions of values those of another, so that scores and outputs are
//! products of blocks of query rows with matrices, with a softmax between. Every sum runs in one order, position after
//! position or dimension after dimension, so that a row's bits depend on nothing but its query and what it sees. The
//! format says how keys and values are stored, and queries and weights stay f32; with `dots` everything that is
//! multiplied is bf16.

use half::{bf16, f16};

use crate::elementwise::{add, softmax};
use crate::product::{Panel, round_to_bf16};
use crate::{AlignedBytes, Format, Level, ROW_GROUP};

/// Query rows whose scores exist at a time.
const BLOCK: usize = 24;

/// Positions whose values are summed before they are added to those of the positions before: one long sum of f32 would
/// lose digits.
const SPAN: usize = 256;

/// How the keys and values of one head lie in memory: keys as packed groups of 16 positions, values as packed groups of
/// 16 dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Panels {
    format: Format,
    head_dim: usize,
    /// A multiple of 16.
    capacity: usize,
}

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

impl Panels {
    /// For up to `capacity` positions.
    ///
    /// # Panics
    /// If the format is quantised, or `head_dim` is not a positive multiple of 16.
    pub fn new(format: Format, head_dim: usize, capacity: usize) -> Self {
        assert!(!format.is_quantized(), "{format} keys");
        assert!(head_dim > 0 && head_dim.is_multiple_of(ROW_GROUP), "heads of {head_dim} are not a multiple of 16");
        Self { format, head_dim, capacity: capacity.next_multiple_of(ROW_GROUP) }
    }

    /// Bytes of one head, keys and values; a multiple of 64. Zeros are a good start: what was never written counts as
    /// nothing.
    pub const fn bytes(&self) -> usize {
        2 * self.part()
    }

    /// Bytes of the keys, and of the values.
    const fn part(&self) -> usize {
        self.capacity * self.head_dim * self.format.block().1
    }

    /// Writes positions `first..first + n` to the head's memory: row r of `k` and `v`, `stride` apart, is position
    /// `first + r`. Values are rounded to the format.
    ///
    /// # Safety
    /// `memory` is of one head and aligned to 4 bytes, and meanwhile nobody else reads or writes these positions.
    ///
    /// # Panics
    /// If there are no such positions, or `k` or `v` is too short.
    pub unsafe fn write(&self, memory: *mut u8, first: usize, n: usize, k: &[f32], v: &[f32], stride: usize) {
        assert!(first + n <= self.capacity, "positions {first}..{} of {}", first + n, self.capacity);
        let d = self.head_dim;
        for r in 0..n {
            let (k, v) = (&k[r * stride..][..d], &v[r * stride..][..d]);
            let position = first + r;
            let group = position / ROW_GROUP * ROW_GROUP * d;
            // SAFETY: the places of one position lie within the head's memory, which is the caller's for them.
            unsafe {
                for (i, &k) in k.iter().enumerate() {
                    self.put(memory, group, i, position % ROW_GROUP, k);
                }
                for (i, &v) in v.iter().enumerate() {
                    let group = i / ROW_GROUP * ROW_GROUP * self.capacity;
                    self.put(memory.add(self.part()), group, position, i % ROW_GROUP, v);
                }
            }
        }
    }

    /// Writes input `k` of row `lane` of the group whose values begin at `group`.
    ///
    /// # Safety
    /// `part` is aligned to 4 bytes and holds that value, which is the caller's alone.
    unsafe fn put(&self, part: *mut u8, group: usize, k: usize, lane: usize, value: f32) {
        // SAFETY: by contract.
        unsafe {
            match self.format {
                Format::BF16 => {
                    let at = group + k / 2 * 2 * ROW_GROUP + 2 * lane + k % 2;
                    part.cast::<u16>().add(at).write(bf16::from_f32(value).to_bits());
                }
                Format::F16 => {
                    part.cast::<u16>().add(group + k * ROW_GROUP + lane).write(f16::from_f32(value).to_bits())
                }
                _ => part.cast::<f32>().add(group + k * ROW_GROUP + lane).write(value),
            }
        }
    }

    /// Makes the first `len` positions of `to` those of `from`.
    ///
    /// # Panics
    /// If there are no such positions, or the memories are not of one head each.
    pub fn copy(&self, from: &[u8], to: &mut [u8], len: usize) {
        assert!(from.len() == self.bytes() && to.len() == self.bytes(), "the memory of one head");
        assert!(len <= self.capacity, "{len} positions of {}", self.capacity);
        let (len, size) = (len.next_multiple_of(ROW_GROUP), self.format.block().1);
        let keys = len * self.head_dim * size;
        to[..keys].copy_from_slice(&from[..keys]);
        let (from, to) = (&from[self.part()..], &mut to[self.part()..]);
        let group = self.capacity * ROW_GROUP * size;
        for (from, to) in from.chunks_exact(group).zip(to.chunks_exact_mut(group)) {
            to[..len * ROW_GROUP * size].copy_from_slice(&from[..len * ROW_GROUP * size]);
        }
    }
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
/// before the softmax, as many as the last row sees.
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
    mut tap: Option<&mut dyn FnMut(usize, &[f32])>,
) {
    let Panels { format, head_dim, capacity } = *panels;
    let Queries { q, stride, n, seen, causal, dots } = *queries;
    assert_eq!(memory.len(), panels.bytes(), "the memory of one head");
    assert!(seen <= capacity && seen <= scratch.capacity, "{seen} positions of {capacity}");
    assert!(seen > if causal { n.saturating_sub(1) } else { 0 }, "a query that sees nothing");
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
        let keys =
            Panel { format, weights: keys, group_bytes: ROW_GROUP * head_dim * size, n_cols: head_dim, n_out: most };
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
        for (row, scores) in scores.chunks_exact_mut(width).enumerate().take(rows) {
            if let Some(tap) = &mut tap {
                tap(first + row, &scores[..most]);
            }
            softmax(level, &mut scores[..seen_by(row)]);
            scores[seen_by(row)..n_cols].fill(0.0);
            if dots {
                round_to_bf16(level, &scores[..n_cols], &mut scratch.weights[row * width..][..n_cols]);
            }
        }
        let group_bytes = ROW_GROUP * capacity * size;
        let out = out.wrapping_add(first * out_stride);
        for from in (0..n_cols).step_by(SPAN) {
            let n_cols = SPAN.min(n_cols - from);
            let values = &values[from * ROW_GROUP * size..];
            let values = Panel { format, weights: values, group_bytes, n_cols, n_out: head_dim };
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
                // SAFETY: this place of `out` is ours, by contract.
                let out = unsafe { std::slice::from_raw_parts_mut(out.add(row * out_stride), head_dim) };
                if from == 0 {
                    out.copy_from_slice(outputs);
                } else {
                    add(level, out, outputs);
                }
            }
        }
    }
}
