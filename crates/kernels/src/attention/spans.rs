//! Attention of one decoded token.

use super::kernels::{Ahead, MAX_TILE_ROWS, SPAN_PAGES, Tile, kernels, prefetch};
use super::{CacheType, Context, PAGE, Partial, SPAN, Scratch};
use crate::Level;

/// Bytes that are fetched before they are worked on. Pages lie anywhere, so the machine does not guess them by itself.
const DISTANCE: usize = 16 << 10;

/// [`attend_spans`] within one span: `from / SPAN == (to - 1) / SPAN`, `partials` is `[group]`, `out`
/// `[group][head_dim]`.
///
/// # Safety
/// As [`attend_spans`].
///
/// # Panics
/// As [`attend_spans`], and if the positions are of two spans.
#[expect(clippy::too_many_arguments, reason = "a kernel's operands, each a different thing")]
pub unsafe fn attend_span(
    level: Level,
    ctx: &Context<'_>,
    q: &[f32],
    group: usize,
    from: usize,
    to: usize,
    softcap: Option<f32>,
    scratch: &mut Scratch,
    partials: &mut [Partial],
    out: &mut [f32],
) {
    assert!(from < to && from / SPAN == (to - 1) / SPAN, "positions {from}..{to} are not of one span");
    // SAFETY: by contract.
    unsafe { attend_spans(level, ctx, q, group, from, to, softcap, scratch, partials, out) };
}

/// One decoded token's query heads of one key-value head against positions `from..to`. `q` is `[group][head_dim]`, with
/// rope and scale already in it. Per span that the positions touch and per query head it gives a partial and its
/// outputs: `partials` is `[spans][group]`, `out` `[spans][group][head_dim]`. [`super::merge`] makes the answer of
/// them. Threads may share the spans of a token as they like; a thread is faster with several in one call, because it
/// fetches the next one's pages meanwhile.
///
/// # Safety
/// The machine has `level`, and no thread writes into the pages of these positions and this head meanwhile.
///
/// # Panics
/// If lengths do not fit, if the positions are none or beyond the table, or `scratch` is for other heads.
#[expect(clippy::too_many_arguments, reason = "a kernel's operands, each a different thing")]
pub unsafe fn attend_spans(
    level: Level,
    ctx: &Context<'_>,
    q: &[f32],
    group: usize,
    from: usize,
    to: usize,
    softcap: Option<f32>,
    scratch: &mut Scratch,
    partials: &mut [Partial],
    out: &mut [f32],
) {
    let head_dim = ctx.pages.head_dim();
    assert!(from < to, "no positions");
    assert!(group <= scratch.max_group(), "a scratch for {} query heads, not {group}", scratch.max_group());
    let n_spans = (to - 1) / SPAN - from / SPAN + 1;
    assert!(
        q.len() == group * head_dim && partials.len() == n_spans * group && out.len() == n_spans * group * head_dim,
        "lengths of {group} query heads and {n_spans} spans"
    );
    let kernels = kernels(level, ctx.pages.cache_type());
    let parts = scratch.parts(head_dim);
    let mut span = Pages::of(ctx, from, to.min((from / SPAN + 1) * SPAN));
    span.fetch();
    // Tiles of nearly equal size.
    let rows = group.div_ceil(group.div_ceil(kernels.tile_rows));
    let tile_len = kernels.tile_rows * head_dim;
    for (q, packed) in q.chunks(rows * head_dim).zip(parts.q.chunks_mut(tile_len)) {
        let mut heads = [&q[..0]; MAX_TILE_ROWS];
        for (head, q) in heads.iter_mut().zip(q.chunks_exact(head_dim)) {
            *head = q;
        }
        // SAFETY: the machine has the level, by contract.
        unsafe { (kernels.pack)(&heads[..q.len() / head_dim], head_dim, packed) };
    }
    let outputs = partials.chunks_exact_mut(group).zip(out.chunks_exact_mut(group * head_dim));
    for (base, (partials, out)) in (from / SPAN * SPAN..).step_by(SPAN).zip(outputs) {
        let (first, end) = (from.max(base), to.min(base + SPAN));
        let next = (end < to).then(|| Pages::of(ctx, end, to.min(end + SPAN)));
        let ahead = span.ahead(next.as_ref());
        let ranges = [(first - base, end - base); MAX_TILE_ROWS];
        let heads = partials.chunks_mut(rows).zip(out.chunks_mut(rows * head_dim));
        for (t, (partials, out)) in heads.enumerate() {
            let tile = Tile {
                q: &parts.q[t * tile_len..],
                head_dim,
                pages: &span.pages,
                ahead: (t == 0).then_some(&ahead),
                ranges: &ranges[..partials.len()],
                soft_cap: softcap,
                scores: parts.scores,
                partials,
                out,
            };
            // SAFETY: the machine has the level and the pages are not written, by contract; they are the cache's.
            unsafe { (kernels.tile)(tile) };
        }
        let Some(next) = next else { break };
        span = next;
    }
}

/// The pages of one span, and which of them are read: first their keys, then their values.
struct Pages {
    pages: [*const u8; SPAN_PAGES],
    first: usize,
    n: usize,
    head_dim: usize,
    cache_type: CacheType,
}

impl Pages {
    fn of(ctx: &Context<'_>, from: usize, to: usize) -> Self {
        let first = from % SPAN / PAGE;
        let n = to.div_ceil(PAGE) - from / PAGE;
        let (head_dim, cache_type) = (ctx.pages.head_dim(), ctx.pages.cache_type());
        Self { pages: ctx.span_pages(from, to), first, n, head_dim, cache_type }
    }

    /// What is read `i`-th: a page's keys or its values, nearly equally long.
    fn read(&self, i: usize) -> Option<*const u8> {
        if i < self.n {
            Some(self.pages[self.first + i])
        } else if i < 2 * self.n {
            Some(self.pages[self.first + i - self.n].wrapping_add(self.read_bytes()))
        } else {
            None
        }
    }

    /// Bytes of one read: of a page's keys.
    fn read_bytes(&self) -> usize {
        self.cache_type.key_bytes(self.head_dim)
    }

    /// How many reads later is fetched.
    fn distance(&self) -> usize {
        (DISTANCE / self.read_bytes()).max(1)
    }

    /// What to fetch during each read; the last reads of all have nothing to fetch but themselves.
    fn ahead(&self, next: Option<&Self>) -> Ahead {
        let mut ahead = Ahead { keys: self.pages, values: self.pages };
        for i in 0..2 * self.n {
            let later = i + self.distance();
            let fetch = self.read(later).or_else(|| next?.read(later - 2 * self.n)).or_else(|| self.read(i));
            let of = if i < self.n { &mut ahead.keys } else { &mut ahead.values };
            of[self.first + i % self.n] = fetch.unwrap_or(self.pages[self.first]);
        }
        ahead
    }

    /// Fetches what no read before fetches.
    fn fetch(&self) {
        for page in (0..self.distance()).map_while(|i| self.read(i)) {
            for line in (0..self.read_bytes()).step_by(64) {
                prefetch(page.wrapping_add(line));
            }
        }
    }
}
