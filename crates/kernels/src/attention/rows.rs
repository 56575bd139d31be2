//! Attention of many consecutive positions: prompts, and drafts to be verified.

use super::kernels::{MAX_TILE_ROWS, Tile, kernels};
use super::{Context, PAGE, Partial, SPAN, Scratch, fold};
use crate::Level;

/// Positions whose queries pass over a span together, so that its keys and values are fetched once for all of them.
pub(super) const PANEL: usize = 24;

/// Queries of `n_q` consecutive positions of one sequence, from `start` on, all query heads of one key-value head.
/// The query of position p sees positions `p + 1 - window..=p` (all up to p without a window), never one before; table
/// entries of positions before all windows are not looked at. Rope and scale are already in the queries. Keys and
/// values of all positions seen, the queries' own too, are in the cache before.
///
/// Row i, head h of the group: its query is `q[i * q_stride + h * head_dim..][..head_dim]`, and its answer goes to
/// `out + i * out_stride + h * head_dim`.
///
/// # Safety
/// The machine has `level`, no thread writes into the pages of these positions and this head meanwhile, and the places
/// of `out` are valid for writes that nobody else makes.
///
/// # Panics
/// If a window is 0, if `q` or the table ends too early, or if `scratch` is for other heads.
#[expect(clippy::too_many_arguments, reason = "a kernel's operands, each a different thing")]
pub unsafe fn attend_rows(
    level: Level,
    ctx: &Context<'_>,
    q: &[f32],
    q_stride: usize,
    group: usize,
    start: usize,
    n_q: usize,
    window: Option<usize>,
    softcap: Option<f32>,
    scratch: &mut Scratch,
    out: *mut f32,
    out_stride: usize,
) {
    assert!(window != Some(0), "a window of nothing");
    assert!(group <= scratch.max_group(), "a scratch for {} query heads, not {group}", scratch.max_group());
    let rows = Rows { level, group, start, window, softcap };
    for first in (0..n_q).step_by(PANEL) {
        let n = (n_q - first).min(PANEL);
        // SAFETY: by contract, for rows `first` to `first + n`.
        unsafe { rows.panel(ctx, &q[first * q_stride..], q_stride, first, n, scratch, out, out_stride) };
    }
}

/// What all panels have in common.
struct Rows {
    level: Level,
    group: usize,
    start: usize,
    window: Option<usize>,
    softcap: Option<f32>,
}

impl Rows {
    /// The first position that position `p` sees.
    fn first_seen(&self, p: usize) -> usize {
        self.window.map_or(0, |window| (p + 1).saturating_sub(window))
    }

    /// Rows `first` to `first + n`, `q` starting at the first's. Their (row, head) pairs, heads of a row side by side,
    /// are cut into tiles.
    ///
    /// # Safety
    /// As [`attend_rows`].
    #[expect(clippy::too_many_arguments, reason = "a kernel's operands, each a different thing")]
    unsafe fn panel(
        &self,
        ctx: &Context<'_>,
        q: &[f32],
        q_stride: usize,
        first: usize,
        n: usize,
        scratch: &mut Scratch,
        out: *mut f32,
        out_stride: usize,
    ) {
        let kernels = kernels(self.level, ctx.pages.cache_type());
        let (head_dim, group, tile_rows) = (ctx.pages.head_dim(), self.group, kernels.tile_rows);
        let parts = scratch.parts(head_dim);
        let n_pairs = n * group;
        for (tile, packed) in parts.q.chunks_mut(tile_rows * head_dim).enumerate().take(n_pairs.div_ceil(tile_rows)) {
            let (first, mut rows) = (tile * tile_rows, [&q[..0]; MAX_TILE_ROWS]);
            let n = tile_rows.min(n_pairs - first);
            for (pair, row) in (first..).zip(&mut rows[..n]) {
                *row = &q[pair / group * q_stride + pair % group * head_dim..][..head_dim];
            }
            // SAFETY: the machine has the level.
            unsafe { (kernels.pack)(&rows[..n], head_dim, packed) };
        }
        parts.states[..n_pairs].fill(Partial::NONE);
        let answer = |pair: usize| {
            let at = (first + pair / group) * out_stride + pair % group * head_dim;
            // SAFETY: a place of `out`, by contract ours alone. One slice at a time is made of it.
            unsafe { std::slice::from_raw_parts_mut(out.add(at), head_dim) }
        };

        let position = |pair: usize| self.start + first + pair / group;
        let (from, to) = (self.first_seen(position(0)), position(n_pairs - 1) + 1);
        for base in (from / SPAN * SPAN..to).step_by(SPAN) {
            let pages = ctx.span_pages(from.max(base), to.min(base + SPAN));
            for tile_first in (0..n_pairs).step_by(tile_rows) {
                let n = (n_pairs - tile_first).min(tile_rows);
                let mut ranges = [(0, 0); MAX_TILE_ROWS];
                for (r, range) in ranges[..n].iter_mut().enumerate() {
                    let p = position(tile_first + r);
                    let from = self.first_seen(p).clamp(base, base + SPAN) - base;
                    *range = (from, (p + 1).clamp(base + from, base + SPAN) - base);
                }
                if ranges[..n].iter().all(|(from, to)| from == to) {
                    continue;
                }
                let mut partials = [Partial::NONE; MAX_TILE_ROWS];
                let tile = Tile {
                    q: &parts.q[tile_first * head_dim..],
                    head_dim,
                    pages: &pages,
                    ahead: None,
                    ranges: &ranges[..n],
                    soft_cap: self.softcap,
                    scores: parts.scores,
                    partials: &mut partials[..n],
                    out: parts.out,
                };
                // SAFETY: the machine has the level and the pages are not written, by contract; they are the cache's,
                // and all positions of the ranges are among those of `pages`.
                unsafe { (kernels.tile)(tile) };
                for (r, o) in parts.out.chunks_exact(head_dim).enumerate().take(n) {
                    if ranges[r].0 < ranges[r].1 {
                        let state = &mut parts.states[tile_first + r];
                        // SAFETY: the machine has the level.
                        unsafe { fold(kernels, state, answer(tile_first + r), partials[r], o) };
                    }
                }
            }
        }
        for (pair, state) in parts.states[..n_pairs].iter().enumerate() {
            // SAFETY: the machine has the level.
            unsafe { (kernels.finish)(state.sum, answer(pair)) };
        }
    }
}

const _: () = assert!(SPAN.is_multiple_of(PAGE));
