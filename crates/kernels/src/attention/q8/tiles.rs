//! The vector kernels, written once as in `attention::tiles`, whose floating-point part they use: a level's module names
//! its integer registers and what is done with them, and `byte_kernels!` makes the kernels.

use crate::attention::kernels::SPAN_PAGES;

/// The pages of a tile, from the first to the last that a row sees.
#[derive(Clone, Copy)]
pub(super) struct Pages<'a> {
    pub pages: &'a [*const u8],
    /// What will be read soon, as the pages.
    pub ahead: &'a [*const u8],
    pub head_dim: usize,
}

/// A place in memory for each of a span's pages, of which those from `first` to `end` are used.
pub(super) fn part<'a>(
    pages: &'a [*const u8; SPAN_PAGES],
    ahead: &'a [*const u8; SPAN_PAGES],
    (first, end): (usize, usize),
    head_dim: usize,
) -> Pages<'a> {
    Pages { pages: &pages[first..end], ahead: &ahead[first..end], head_dim }
}

/// Calls `$f::<rows, n>` for the first number of rows that is `$rows`, else the last, with its `n` where `$left` is so
/// many, and with 1 otherwise.
macro_rules! choose {
    ($rows:expr, $left:expr, $f:ident $arguments:tt, $($r:literal by $n:literal,)* else $last:literal by $last_n:literal) => {
        match $rows {
            $($r => choose!($left, $f $arguments, $r, $n),)*
            _ => choose!($left, $f $arguments, $last, $last_n),
        }
    };
    ($left:expr, $f:ident $arguments:tt, $r:literal, $n:literal) => {
        if $left >= $n { $f::<$r, $n> $arguments } else { $f::<$r, 1> $arguments }
    };
}

/// Makes `KERNELS` from, in the module that calls it, which imports the operations on f32 of `attention`:
/// - `Level`, the lanes of `crate::lanes`; `TILE_ROWS`, at least 4; `CODES`, how queries are laid out;
/// - `I`, a register of `LANES` i32; `none()`; `Bytes`, 4 `LANES` bytes of keys or values, ready to be multiplied; `Pair`,
///   four numbers of a query or of weights, as often as there are lanes;
/// - unsafe `load_keys`, `load_values`, `load_query` (8 bytes), `load_weights(page, group)`;
/// - `dot_keys`, `dot_values(sums, bytes, pair)`, which add to two registers, and `total(sums)`, the sums in one;
/// - `less(I, i32)`, `to_float`, unsafe `store_weights(integers of a page as f32 plus ROUND)`, `store_up_to(to, n, V)`;
/// - unsafe `scores_of_columns(rows, pages, q, column, scores) -> columns done`, which chooses a `dots`, and unsafe
///   `values_of_rows(rows, pages, d0, scores, scales, out) -> dimensions done`, which chooses a `weigh`.
macro_rules! byte_kernels {
    ($features:literal) => {
        use std::array::from_fn;

        use super::numbers::{self, Query, wide_scale};
        use super::tiles::{Pages, part};
        use super::{BLOCK, GROUP, LINE, key_bytes, key_scales, value_scales};
        use crate::attention::kernels::{Kernels, MAX_TILE_ROWS, SPAN_PAGES, Tile, prefetch};
        use crate::attention::math::ROUND;
        use crate::attention::{PAGE, Partial, SPAN};

        pub(super) static KERNELS: Kernels = Kernels { tile_rows: TILE_ROWS, pack, tile, fold, finish, write };

        /// Rows that weigh values together, at most.
        const WEIGH_ROWS: usize = 6;

        #[target_feature(enable = $features)]
        unsafe fn pack(rows: &[&[f32]], head_dim: usize, tile: &mut [f32]) {
            // SAFETY: the machine has the level.
            unsafe { numbers::pack::<Level>(rows, head_dim, TILE_ROWS, CODES, tile) };
        }

        #[target_feature(enable = $features)]
        unsafe fn write(page: *mut u8, offset: usize, k: &[f32], v: &[f32]) {
            // SAFETY: by contract.
            unsafe { numbers::write::<Level>(page, offset, k, v) };
        }

        #[target_feature(enable = $features)]
        unsafe fn tile(tile: Tile<'_>) {
            let Tile { q, head_dim, pages, ahead, ranges, soft_cap, scores, partials, out } = tile;
            let rows = ranges.len();
            assert!(
                rows <= TILE_ROWS
                    && scores.len() >= rows * SPAN
                    && partials.len() >= rows
                    && out.len() >= rows * head_dim
            );
            let (mut first, mut end) = (SPAN_PAGES, 0);
            for &(from, to) in ranges {
                if from < to {
                    (first, end) = (first.min(from / PAGE), end.max(to.div_ceil(PAGE)));
                }
            }
            if first >= end {
                partials.fill(Partial::NONE);
                return;
            }
            let query = Query::of(q, head_dim, TILE_ROWS);
            let (keys, values) = ahead.map_or((pages, pages), |ahead| (&ahead.keys, &ahead.values));
            let keys = part(pages, keys, (first, end), head_dim);
            let values = part(pages, values, (first, end), head_dim);
            let mut column = 0;
            while column < (end - first) * PER_PAGE {
                let scores = scores[first * PAGE..].as_mut_ptr();
                // SAFETY: the pages from the first to the last that a row sees are pages; `scores` has `rows` rows.
                column += unsafe { scores_of_columns(rows, keys, &query, column, scores) };
            }
            // All rows' maxima first: these are long chains of short instructions, best overlapped.
            for (r, &(from, to)) in ranges.iter().enumerate() {
                partials[r] = Partial::NONE;
                if from < to {
                    partials[r].max = largest(&mut scores[r * SPAN..][..SPAN], from, to, soft_cap);
                }
            }
            let mut scales = [0.0; MAX_TILE_ROWS];
            for (r, &(from, to)) in ranges.iter().enumerate() {
                let scores = &mut scores[r * SPAN..][..SPAN];
                if from < to {
                    partials[r].sum = weights(scores, from, to, partials[r].max);
                }
                let scores = &mut scores.as_chunks_mut::<PAGE>().0[first..end];
                let seen = if from < to { from / PAGE - first..to.div_ceil(PAGE) - first } else { 0..0 };
                // SAFETY: the pages that a row sees are pages.
                scales[r] = unsafe { integers(scores, seen, values) };
            }
            // Rows in parts of nearly equal size.
            let part = rows.div_ceil(rows.div_ceil(WEIGH_ROWS));
            for first_row in (0..rows).step_by(part) {
                let n = part.min(rows - first_row);
                let values = if first_row == 0 { values } else { Pages { ahead: values.pages, ..values } };
                let (scores, scales) = (&scores[first_row * SPAN + first * PAGE..], &scales[first_row..]);
                let out = &mut out[first_row * head_dim..][..n * head_dim];
                let mut d = 0;
                while d < head_dim {
                    // SAFETY: as above, and `scores`, `scales` and `out` have `n` rows more.
                    d += unsafe { values_of_rows(n, values, d, scores.as_ptr(), scales.as_ptr(), out.as_mut_ptr()) };
                }
            }
        }

        /// Scores of `R` rows and of `C` columns of `LANES` positions from column `first` of the pages on; `scores`
        /// begins with the first page's. Fetches as much from `ahead` as it reads.
        ///
        /// # Safety
        /// `pages` have so many columns, the query so many rows; `scores` is `[R][SPAN]`.
        #[target_feature(enable = $features)]
        unsafe fn dots<const R: usize, const C: usize>(
            pages: Pages<'_>,
            query: &Query,
            first: usize,
            scores: *mut f32,
        ) -> usize {
            let head_dim = pages.head_dim;
            let page: [usize; C] = from_fn(|c| (first + c) / PER_PAGE);
            let lane: [usize; C] = from_fn(|c| (first + c - page[c] * PER_PAGE) * LANES);
            let at: [*const u8; C] = from_fn(|c| pages.pages[page[c]]);
            let ahead: [*const u8; C] = from_fn(|c| pages.ahead[page[c]]);
            let n_groups = head_dim / GROUP;
            for (block, first_group) in (0..n_groups).step_by(BLOCK / GROUP).enumerate() {
                let mut sums = [[[none(); 2]; C]; R];
                for group in first_group..n_groups.min(first_group + BLOCK / GROUP) {
                    let mut keys = [zero_bytes(); C];
                    for c in 0..C {
                        if lane[c] == 0 {
                            prefetch(ahead[c].wrapping_add(group * LINE));
                        }
                        // SAFETY: a page starts with `[head_dim / 4][16][4]` bytes of keys.
                        keys[c] = unsafe { load_keys(at[c].add((group * PAGE + lane[c]) * GROUP)) };
                    }
                    for r in 0..R {
                        // SAFETY: the query has 8 bytes for each group and row.
                        let q = unsafe { load_query(query.codes.add((group * TILE_ROWS + r) * 2 * GROUP)) };
                        for c in 0..C {
                            sums[r][c] = dot_keys(sums[r][c], keys[c], q);
                        }
                    }
                }
                let last = (block + 1) * BLOCK >= head_dim;
                for c in 0..C {
                    // One line has two blocks' scales.
                    if lane[c] == 0 && block % 2 == 0 {
                        prefetch(ahead[c].wrapping_add(key_scales(head_dim) + block / 2 * LINE));
                    }
                    // SAFETY: a page has 16 scales for each block; the query an excess and a scale for each row.
                    unsafe {
                        let scale =
                            load_half(at[c].add(key_scales(head_dim)).cast::<u16>().add(block * PAGE + lane[c]));
                        for r in 0..R {
                            let sum = less(total(sums[r][c]), *query.excess.add(block * TILE_ROWS + r));
                            let place = scores.add(r * SPAN + (first + c) * LANES);
                            let before = if block == 0 { splat(0.0) } else { load(place) };
                            let score = fma(to_float(sum), scale, before);
                            store(place, if last { mul(score, splat(*query.scales.add(r))) } else { score });
                        }
                    }
                }
            }
            C
        }

        /// Turns a row's weights on the `seen` pages into integers, in the places of the weights, and those on others
        /// into zeros; gives their scale.
        ///
        /// # Safety
        /// The seen pages are pages.
        #[target_feature(enable = $features)]
        unsafe fn integers(weights: &mut [[f32; PAGE]], seen: std::ops::Range<usize>, pages: Pages<'_>) -> f32 {
            let (mut greatest, mut sums) = ([splat(0.0); PER_PAGE], [splat(0.0); PER_PAGE]);
            for (page, weights) in pages.pages[seen.clone()].iter().zip(&mut weights[seen.clone()]) {
                let mut p = read(weights);
                for (i, p) in p.iter_mut().enumerate() {
                    let scales = page.wrapping_add(value_scales(pages.head_dim)).cast::<u16>();
                    // SAFETY: a page has 16 scales of values.
                    let scale = unsafe { load_half(scales.add(i * LANES)) };
                    *p = if_less(splat(0.0), *p, mul(*p, scale), splat(0.0));
                    greatest[i] = max(*p, greatest[i]);
                    // The sum knows of a NaN, which the comparison forgets.
                    sums[i] = add(sums[i], *p);
                }
                write_lanes(weights, p);
            }
            let sum = sum_page(sums);
            let greatest = if sum.is_nan() { sum } else { max_page(greatest) };
            let (scale, inverse) = wide_scale(greatest.to_bits() & 0x7FFF_FFFF);
            for (i, weights) in weights.iter_mut().enumerate() {
                let mut w = [splat(ROUND); PER_PAGE];
                if seen.contains(&i) {
                    w = read(weights);
                    for w in &mut w {
                        *w = add(mul(*w, splat(inverse)), splat(ROUND));
                    }
                }
                // SAFETY: there is room for the page's weights, of which these are half the bytes.
                unsafe { store_weights(weights.as_mut_ptr().cast(), w) };
            }
            scale
        }

        /// Dimensions `d0` to `d0 + N * LANES` of `R` rows, as far as there are so many: the sums of weighted values.
        ///
        /// # Safety
        /// The pages are pages of heads that have dimension `d0`; `scores` is `[R][SPAN]` of the pages' weights as
        /// integers, `scales` `[R]`, `out` `[R][head_dim]`.
        #[target_feature(enable = $features)]
        unsafe fn weigh<const R: usize, const N: usize>(
            pages: Pages<'_>,
            d0: usize,
            scores: *const f32,
            scales: *const f32,
            out: *mut f32,
        ) -> usize {
            let head_dim = pages.head_dim;
            let mut sums = [[[none(); 2]; N]; R];
            for (p, (page, ahead)) in pages.pages.iter().zip(pages.ahead).enumerate() {
                // SAFETY: after its keys a page has `[4][head_dim][4]` bytes of values; what is read beyond the last of
                // a group is the next one's, or the scales.
                let values = unsafe { page.add(key_bytes(head_dim) + d0 * GROUP) };
                if d0 == 0 {
                    prefetch(ahead.wrapping_add(value_scales(head_dim) - key_bytes(head_dim)));
                }
                for group in 0..PAGE / GROUP {
                    let part = ahead.wrapping_add((group * head_dim + d0) * GROUP);
                    for line in 0..(N * LANES * GROUP).div_ceil(LINE) {
                        prefetch(part.wrapping_add(line * LINE));
                    }
                    let mut v = [zero_bytes(); N];
                    for n in 0..N {
                        // SAFETY: as above.
                        v[n] = unsafe { load_values(values.add((group * head_dim + n * LANES) * GROUP)) };
                    }
                    for r in 0..R {
                        // SAFETY: by contract.
                        let w = unsafe { load_weights(scores.add(r * SPAN + p * PAGE).cast(), group) };
                        for n in 0..N {
                            sums[r][n] = dot_values(sums[r][n], v[n], w);
                        }
                    }
                }
            }
            for r in 0..R {
                for n in 0..N {
                    let d = d0 + n * LANES;
                    if d < head_dim {
                        // SAFETY: by contract; no dimension beyond the last is written.
                        unsafe {
                            let sum = mul(to_float(total(sums[r][n])), splat(*scales.add(r)));
                            store_up_to(out.add(r * head_dim + d), head_dim - d, sum);
                        }
                    }
                }
            }
            N * LANES
        }
    };
}
