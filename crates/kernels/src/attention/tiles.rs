//! The vector kernels, written once: a level's module names its vector type `V` and the operations on it, and
//! `tile_kernels!` makes the kernels of them, compiled for that level's instructions.
//!
//! It is a macro because functions that are generic over the vector type cannot be compiled for an instruction set, and
//! intrinsics are only inlined into functions that are.

use super::kernels::SPAN_PAGES;

/// A tile's values, as the kernels pass them on.
#[derive(Clone, Copy)]
pub(super) struct Values<'a> {
    pub pages: &'a [*const u16; SPAN_PAGES],
    pub ahead: Option<&'a [*const u16; SPAN_PAGES]>,
    pub head_dim: usize,
}

/// Makes `KERNELS` from, in the module that calls it:
/// - `V`, a vector of `LANES` f32; `PER_PAGE`, how many make 16 lanes; `TILE_ROWS`;
/// - `splat`, `add`, `sub`, `mul`, `div`, `fma(a, b, c)` = a b + c, `max` like [`super::math::max`], `if_less(a, b, x,
///   y)`, `power(shifted)` = 2^n as in [`super::math::exp`], `lane_numbers`;
/// - `sum_page`, `max_page`: of 16 lanes, as [`super::math::sum_lanes`]; unsafe `load`, `store`, `load_half`,
///   `store_half`;
/// - unsafe `scores_of_pages(rows, q, pages, ahead, head_dim, scores) -> pages done`, which chooses a `dots`;
/// - unsafe `values_of_rows(rows, values, d0, from, to, scores, out) -> dimensions done`, which chooses a `weigh`, and
///   unsafe `values_tail` for dimensions that fill no vector.
macro_rules! tile_kernels {
    ($features:literal) => {
        use std::array::from_fn;

        use super::kernels::{Kernels, SPAN_PAGES, Tile, prefetch};
        use super::math;
        use super::pages::to_half;
        use super::scalar::{fold_state, pack_columns};
        use super::tiles::Values;
        use super::{PAGE, Partial, SPAN};

        pub(super) static KERNELS: Kernels = Kernels { tile_rows: TILE_ROWS, pack, tile, fold, finish, write };

        /// Rows that weigh values together, at most.
        const WEIGH_ROWS: usize = 6;

        unsafe fn pack(rows: &[&[f32]], head_dim: usize, tile: &mut [f32]) {
            pack_columns(rows, head_dim, TILE_ROWS, tile);
        }

        #[target_feature(enable = $features)]
        unsafe fn tile(tile: Tile<'_>) {
            let Tile { q, head_dim, pages, ahead, ranges, soft_cap, scores, partials, out } = tile;
            let halves = |pages: &[*const u8; SPAN_PAGES]| pages.map(<*const u8>::cast::<u16>);
            let (pages, ahead) = (&halves(pages), ahead.map(|ahead| [halves(&ahead.keys), halves(&ahead.values)]));
            let ahead = ahead.as_ref();
            let rows = ranges.len();
            assert!(
                rows <= TILE_ROWS
                    && q.len() >= head_dim * TILE_ROWS
                    && scores.len() >= rows * SPAN
                    && partials.len() >= rows
                    && out.len() >= rows * head_dim
            );
            let (mut page, mut end) = (SPAN_PAGES, 0);
            for &(from, to) in ranges {
                if from < to {
                    (page, end) = (page.min(from / PAGE), end.max(to.div_ceil(PAGE)));
                }
            }
            while page < end {
                // SAFETY: the pages from the first to the last that a row sees are pages; `scores` has `rows` rows.
                page += unsafe {
                    let keys = &pages[page..end];
                    let ahead = ahead.map_or(keys, |[keys, _]| &keys[page..end]);
                    scores_of_pages(rows, q.as_ptr(), keys, ahead, head_dim, scores.as_mut_ptr().add(page * PAGE))
                };
            }
            // All rows' maxima first: these are long chains of short instructions, best overlapped.
            for (r, &(from, to)) in ranges.iter().enumerate() {
                partials[r] = Partial::NONE;
                if from < to {
                    partials[r].max = largest(&mut scores[r * SPAN..][..SPAN], from, to, soft_cap);
                }
            }
            for (r, &(from, to)) in ranges.iter().enumerate() {
                if from < to {
                    partials[r].sum = weights(&mut scores[r * SPAN..][..SPAN], from, to, partials[r].max);
                }
            }
            // Rows in parts of nearly equal size.
            let part = rows.div_ceil(rows.div_ceil(WEIGH_ROWS));
            for first in (0..rows).step_by(part) {
                let n = part.min(rows - first);
                let (ranges, scores) = (&ranges[first..first + n], &scores[first * SPAN..][..n * SPAN]);
                let out = &mut out[first * head_dim..][..n * head_dim];
                out.fill(0.0);
                let ahead = if first == 0 { ahead.map(|[_, values]| values) } else { None };
                // SAFETY: as above, and `scores` and `out` have a row per range.
                unsafe { values(Values { pages, ahead, head_dim }, ranges, scores, out) };
            }
        }

        /// Caps the scores of positions `from..to` and finds the largest.
        #[target_feature(enable = $features)]
        pub(super) fn largest(scores: &mut [f32], from: usize, to: usize, soft_cap: Option<f32>) -> f32 {
            let (first, end) = (from / PAGE, to.div_ceil(PAGE));
            let pages = &mut scores.as_chunks_mut::<PAGE>().0[first..end];
            if let Some(cap) = soft_cap {
                for page in pages.iter_mut() {
                    let mut s = read(page);
                    for s in &mut s {
                        *s = capped(*s, splat(cap));
                    }
                    write_lanes(page, s);
                }
            }
            // What lies beside the range may be anything.
            for i in [0, pages.len() - 1] {
                let mut s = read(&pages[i]);
                keep(&mut s, (first + i) * PAGE, from, to);
                write_lanes(&mut pages[i], s);
            }
            let mut all = [splat(f32::NEG_INFINITY); PER_PAGE];
            for page in pages {
                for (all, s) in all.iter_mut().zip(read(page)) {
                    *all = max(*all, s);
                }
            }
            max_page(all)
        }

        /// Turns the scores of positions `from..to` into weights, and those of the pages' other positions into zeros.
        /// Gives the sum.
        #[target_feature(enable = $features)]
        pub(super) fn weights(scores: &mut [f32], from: usize, to: usize, largest: f32) -> f32 {
            let pages = &mut scores.as_chunks_mut::<PAGE>().0[from / PAGE..to.div_ceil(PAGE)];
            let mut sums = [splat(0.0); PER_PAGE];
            for page in pages {
                let mut p = read(page);
                for (sum, p) in sums.iter_mut().zip(&mut p) {
                    *p = exp(sub(*p, splat(largest)));
                    *sum = add(*sum, *p);
                }
                write_lanes(page, p);
            }
            sum_page(sums)
        }

        /// Minus infinity, whose weight is exactly nothing, for lanes beside `from..to`; the first is lane `first`.
        #[target_feature(enable = $features)]
        #[inline]
        fn keep(s: &mut [V; PER_PAGE], first: usize, from: usize, to: usize) {
            let none = splat(f32::NEG_INFINITY);
            for (i, s) in s.iter_mut().enumerate() {
                // Small integers: exact.
                let number = add(lane_numbers(), splat((first + i * LANES) as f32));
                *s = if_less(number, splat(from as f32), none, if_less(number, splat(to as f32), *s, none));
            }
        }

        /// Adds weighted values to the outputs of up to [`WEIGH_ROWS`] rows. Each takes its positions in order: those
        /// before the ones that all rows see, these all together, and those after.
        ///
        /// # Safety
        /// Pages that rows see are pages; `scores` is `[rows][SPAN]`, `out` `[rows][head_dim]`.
        #[target_feature(enable = $features)]
        unsafe fn values(values: Values<'_>, ranges: &[(usize, usize)], scores: &[f32], out: &mut [f32]) {
            let (rows, scores, out) = (ranges.len(), scores.as_ptr(), out.as_mut_ptr());
            let head_dim = values.head_dim;
            let mut common = (0, SPAN);
            for &(from, to) in ranges {
                common = (common.0.max(from), common.1.min(to));
            }
            let alone = common.0 >= common.1;
            let edges = Values { ahead: None, ..values };
            for (r, &(from, to)) in ranges.iter().enumerate() {
                let to = if alone { to } else { common.0 };
                // SAFETY: by contract; the pointers are of row r.
                unsafe { values_of(1, edges, from, to, scores.add(r * SPAN), out.add(r * head_dim)) };
            }
            if alone {
                return;
            }
            // SAFETY: by contract.
            unsafe { values_of(rows, values, common.0, common.1, scores, out) };
            for (r, &(_, to)) in ranges.iter().enumerate() {
                // SAFETY: by contract; the pointers are of row r.
                unsafe { values_of(1, edges, common.1, to, scores.add(r * SPAN), out.add(r * head_dim)) };
            }
        }

        /// Adds the values of positions `from..to`, which all `rows` rows see.
        ///
        /// # Safety
        /// As [`values`].
        #[target_feature(enable = $features)]
        unsafe fn values_of(
            rows: usize,
            values: Values<'_>,
            from: usize,
            to: usize,
            scores: *const f32,
            out: *mut f32,
        ) {
            if from >= to {
                return;
            }
            let mut d = 0;
            while d + LANES <= values.head_dim {
                // SAFETY: by contract, and dimension `d` has at least a vector's width after it.
                d += unsafe { values_of_rows(rows, values, d, from, to, scores, out) };
            }
            if d < values.head_dim {
                // SAFETY: by contract.
                unsafe { values_tail(rows, values, d, from, to, scores, out) };
            }
        }

        /// Scores of `R` rows and the positions of `C` pages, from position 0 of `scores` on. Fetches as many keys or
        /// values from `ahead` as it reads.
        ///
        /// # Safety
        /// `q` is `[head_dim][TILE_ROWS]`, `pages` are at least `C` pages, and so many are `ahead`; `scores` is
        /// `[R][SPAN]`.
        #[target_feature(enable = $features)]
        unsafe fn dots<const R: usize, const C: usize>(
            q: *const f32,
            pages: &[*const u16],
            ahead: &[*const u16],
            head_dim: usize,
            scores: *mut f32,
        ) -> usize {
            let pages: [*const u16; C] = from_fn(|c| pages[c]);
            let ahead: [*const u16; C] = from_fn(|c| ahead[c]);
            let mut acc = [[[splat(0.0); PER_PAGE]; C]; R];
            for d in 0..head_dim {
                // Two rows of keys are one cache line.
                if d % 2 == 0 {
                    for ahead in ahead {
                        prefetch(ahead.wrapping_add(d * PAGE));
                    }
                }
                let mut keys = [[splat(0.0); PER_PAGE]; C];
                for c in 0..C {
                    for i in 0..PER_PAGE {
                        // SAFETY: a page starts with `[head_dim][16]` keys.
                        keys[c][i] = unsafe { load_half(pages[c].add(d * PAGE + i * LANES)) };
                    }
                }
                for r in 0..R {
                    // SAFETY: by contract.
                    let x = splat(unsafe { *q.add(d * TILE_ROWS + r) });
                    for c in 0..C {
                        for i in 0..PER_PAGE {
                            acc[r][c][i] = fma(x, keys[c][i], acc[r][c][i]);
                        }
                    }
                }
            }
            for (r, acc) in acc.iter().enumerate() {
                for (c, acc) in acc.iter().enumerate() {
                    for (i, &acc) in acc.iter().enumerate() {
                        // SAFETY: by contract.
                        unsafe { store(scores.add(r * SPAN + c * PAGE + i * LANES), acc) };
                    }
                }
            }
            C
        }

        /// Adds to dimensions `d0` to `d0 + N * LANES` of `R` rows the weighted values of positions `from..to`.
        ///
        /// # Safety
        /// The pages of `from..to` are pages of heads that have these dimensions; `scores` is `[R][SPAN]`, `out`
        /// `[R][head_dim]`.
        #[target_feature(enable = $features)]
        pub(super) unsafe fn weigh<const R: usize, const N: usize>(
            values: Values<'_>,
            d0: usize,
            from: usize,
            to: usize,
            scores: *const f32,
            out: *mut f32,
        ) -> usize {
            let Values { pages, ahead, head_dim } = values;
            let mut acc = [[splat(0.0); N]; R];
            for r in 0..R {
                for n in 0..N {
                    // SAFETY: by contract.
                    acc[r][n] = unsafe { load(out.add(r * head_dim + d0 + n * LANES)) };
                }
            }
            let mut j = from;
            while j < to {
                // SAFETY: after its keys a page has `[16][head_dim]` values.
                let page = unsafe { pages[j / PAGE].add(PAGE * head_dim + d0) };
                let end = to.min((j / PAGE + 1) * PAGE);
                for j in j..end {
                    if let Some(ahead) = ahead {
                        let part = ahead[j / PAGE].wrapping_add(j % PAGE * head_dim + d0);
                        for line in 0..(N * LANES).div_ceil(32) {
                            prefetch(part.wrapping_add(line * 32));
                        }
                    }
                    let mut v = [splat(0.0); N];
                    for n in 0..N {
                        // SAFETY: by contract.
                        v[n] = unsafe { load_half(page.add(j % PAGE * head_dim + n * LANES)) };
                    }
                    for r in 0..R {
                        // SAFETY: by contract.
                        let p = splat(unsafe { *scores.add(r * SPAN + j) });
                        for n in 0..N {
                            acc[r][n] = fma(p, v[n], acc[r][n]);
                        }
                    }
                }
                j = end;
            }
            for r in 0..R {
                for n in 0..N {
                    // SAFETY: by contract.
                    unsafe { store(out.add(r * head_dim + d0 + n * LANES), acc[r][n]) };
                }
            }
            N * LANES
        }

        /// [`math::exp`]
        #[target_feature(enable = $features)]
        #[inline]
        fn exp(x: V) -> V {
            let t = mul(x, splat(math::LOG2_E));
            let shifted = add(t, splat(math::ROUND));
            let f = sub(t, sub(shifted, splat(math::ROUND)));
            let [c0, c1, c2, c3, c4] = math::EXP2;
            let mut q = splat(c4);
            for c in [c3, c2, c1, c0, 1.0] {
                q = fma(q, f, splat(c));
            }
            if_less(t, splat(math::LEAST), splat(0.0), mul(q, power(shifted)))
        }

        /// [`math::soft_cap`]
        #[target_feature(enable = $features)]
        #[inline]
        fn capped(x: V, cap: V) -> V {
            let x = div(x, cap);
            let z = mul(x, x);
            let [c0, c1, c2, c3, c4] = math::TANH;
            let mut p = splat(c4);
            for c in [c3, c2, c1, c0] {
                p = fma(p, z, splat(c));
            }
            let small = fma(mul(x, z), p, x);
            let size = max(x, sub(splat(0.0), x));
            let e = exp(mul(size, splat(-2.0)));
            let sign = if_less(x, splat(0.0), splat(-1.0), splat(1.0));
            let large = mul(div(sub(splat(1.0), e), add(splat(1.0), e)), sign);
            mul(cap, if_less(size, splat(math::TANH_SMALL), small, large))
        }

        #[target_feature(enable = $features)]
        #[inline]
        pub(super) fn read(page: &[f32; PAGE]) -> [V; PER_PAGE] {
            let mut v = [splat(0.0); PER_PAGE];
            for (i, v) in v.iter_mut().enumerate() {
                // SAFETY: PER_PAGE * LANES is 16.
                *v = unsafe { load(page.as_ptr().add(i * LANES)) };
            }
            v
        }

        #[target_feature(enable = $features)]
        #[inline]
        pub(super) fn write_lanes(page: &mut [f32; PAGE], v: [V; PER_PAGE]) {
            for (i, v) in v.into_iter().enumerate() {
                // SAFETY: PER_PAGE * LANES is 16.
                unsafe { store(page.as_mut_ptr().add(i * LANES), v) };
            }
        }

        #[target_feature(enable = $features)]
        pub(super) unsafe fn fold(state: &mut Partial, out: &mut [f32], add: Partial, o: &[f32]) {
            let (a, b) = fold_state(state, add);
            let (a_lanes, b_lanes) = (splat(a), splat(b));
            let (vectors, tail) = out.as_chunks_mut::<LANES>();
            let (o_vectors, o_tail) = o.as_chunks::<LANES>();
            for (out, o) in vectors.iter_mut().zip(o_vectors) {
                // SAFETY: both are one vector long.
                unsafe { store(out.as_mut_ptr(), fma(load(o.as_ptr()), b_lanes, mul(load(out.as_ptr()), a_lanes))) };
            }
            for (out, &o) in tail.iter_mut().zip(o_tail) {
                *out = o.mul_add(b, *out * a);
            }
        }

        #[target_feature(enable = $features)]
        pub(super) unsafe fn finish(sum: f32, out: &mut [f32]) {
            let scale = 1.0 / sum;
            for out in out {
                *out *= scale;
            }
        }

        #[target_feature(enable = $features)]
        unsafe fn write(page: *mut u8, offset: usize, k: &[f32], v: &[f32]) {
            let head_dim = k.len();
            assert_eq!(v.len(), head_dim);
            let page: *mut u16 = page.cast();
            // SAFETY: the page is `[head_dim][16]` keys and `[16][head_dim]` values.
            let values = unsafe { page.add(PAGE * head_dim + offset * head_dim) };
            let mut d = 0;
            let mut keys = [0u16; LANES];
            while d + LANES <= head_dim {
                // SAFETY: a vector's width is left of the key and the value; the places are in the page, and no one
                // else's.
                unsafe {
                    store_half(keys.as_mut_ptr(), load(k.as_ptr().add(d)));
                    for (i, &key) in keys.iter().enumerate() {
                        page.add((d + i) * PAGE + offset).write(key);
                    }
                    store_half(values.add(d), load(v.as_ptr().add(d)));
                }
                d += LANES;
            }
            for d in d..head_dim {
                // SAFETY: the places are in the page, and no one else's.
                unsafe {
                    page.add(d * PAGE + offset).write(to_half(k[d]));
                    values.add(d).write(to_half(v[d]));
                }
            }
        }
    };
}
