//! Attention over a paged cache of f16, or of 8-bit integers.
//!
//! Work is cut at absolute multiples of [`SPAN`] positions, never by batch, chunk or threads, and a query row's answer
//! depends on nothing but its query and the keys and values it sees. So a row gets the same bits at every level,
//! whichever chunk of a prompt it is computed in, and whether by [`attend_rows`] or by [`attend_span`] and [`merge`]:
//! a token that is computed again answers as it did when it was decoded.
//!
//! Within a span there are two passes: all scores and their maximum, then weights and weighted values. Between spans
//! the running maximum, sum and outputs are folded in order (online softmax).

mod cache_type;
mod kernels;
mod math;
mod pages;
mod panels;
mod q8;
mod rows;
mod scalar;
mod scratch;
mod spans;
#[cfg(test)]
mod tests;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[macro_use]
mod tiles;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

pub use cache_type::CacheType;
pub use pages::{KvPages, PAGE};
pub use panels::{PanelScratch, Panels, Queries, ScoresTap, attend_panels};
pub use rows::attend_rows;
pub use scratch::Scratch;
pub use spans::{attend_span, attend_spans};

use kernels::{SPAN_PAGES, kernels};

use crate::Level;

/// Positions of one span: the unit of work of a decode step and of the online softmax.
pub const SPAN: usize = 128;

/// One sequence's cache, as one key-value head sees it: `table[b]` is the block of positions 16 b to 16 b + 15.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub pages: &'a KvPages,
    pub table: &'a [u32],
    /// The key-value head.
    pub head: usize,
}

/// What the softmax of some positions needs to be joined with others': the largest score, and the sum of
/// `exp(score - max)`. The outputs that go with it are sums of `exp(score - max) * value`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Partial {
    pub max: f32,
    pub sum: f32,
}

impl Partial {
    /// Of no positions.
    pub const NONE: Self = Self { max: f32::NEG_INFINITY, sum: 0.0 };

    /// Is it of no positions? The position of the largest score alone weighs 1.
    pub fn is_none(self) -> bool {
        self.sum == 0.0
    }
}

impl Context<'_> {
    /// The pages of positions `from..to`, which lie in one span; null for the span's other pages.
    ///
    /// # Panics
    /// If the table or the cache ends before them.
    fn span_pages(&self, from: usize, to: usize) -> [*const u8; SPAN_PAGES] {
        let mut pages = [std::ptr::null(); SPAN_PAGES];
        for b in from / PAGE..to.div_ceil(PAGE) {
            pages[b % SPAN_PAGES] = self.pages.page(self.table[b], self.head).cast_const();
        }
        pages
    }
}

/// Joins the partials of one query head, spans in order, to its answer: `out` is `[head_dim]`, as each span's outputs.
///
/// # Panics
/// If the machine does not have `level`, or lengths differ.
pub fn merge<'a>(level: Level, spans: impl IntoIterator<Item = (Partial, &'a [f32])>, out: &mut [f32]) {
    assert!(level.is_available(), "no {level} here");
    // Folding is the same for all caches.
    let kernels = kernels(level, CacheType::F16);
    let mut state = Partial::NONE;
    for (partial, o) in spans {
        // SAFETY: the machine has the level.
        unsafe { fold(kernels, &mut state, out, partial, o) };
    }
    // SAFETY: as above.
    unsafe { (kernels.finish)(state.sum, out) };
}

/// Folds one more span into a row.
///
/// # Safety
/// The machine has the kernels' level.
unsafe fn fold(kernels: &kernels::Kernels, state: &mut Partial, out: &mut [f32], add: Partial, o: &[f32]) {
    assert_eq!(out.len(), o.len(), "outputs of one head");
    if state.is_none() {
        *state = add;
        out.copy_from_slice(o);
    } else if !add.is_none() {
        // SAFETY: by contract.
        unsafe { (kernels.fold)(state, out, add, o) };
    }
}
