//! Dot products and weighted sums on f32 rows for the CPU, compiled for two instruction sets and chosen at run time.
//!
//! Every output element is computed in one fixed order (8 lanes over `k`, then the lanes, then the tail), whatever the
//! tile it falls in: a row's bits do not depend on how many other rows run beside it.

/// Partial sums per dot product.
const LANES: usize = 8;

/// Rows of at most this length are treated as keys of attention rather than weights.
const SHORT_ROW: usize = 256;

/// How far ahead of a single stream of weights is fetched, in values (4 KiB).
const PREFETCH_AHEAD: usize = 1024;

/// Instruction set of the kernels. (AVX-512 was tried: no faster than AVX2 where it was measured, and the compiler
/// spills its larger tiles.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// What the target guarantees (SSE2 on x86-64, NEON on aarch64).
    Baseline,
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Level {
    /// The best level of this machine.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
                return Self::Avx2;
            }
        }
        Self::Baseline
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
        }
    }
}

/// Rows of equal length in one slice: row `i` is `data[i * stride..][..len]`.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    data: &'a [f32],
    pub n: usize,
    pub len: usize,
    pub stride: usize,
}

impl<'a> Rows<'a> {
    /// # Panics
    /// If `data` is too short for the last row.
    pub fn new(data: &'a [f32], n: usize, len: usize, stride: usize) -> Self {
        assert!(n == 0 || (n - 1) * stride + len <= data.len(), "rows reach past their slice");
        Self { data, n, len, stride }
    }

    fn pointer(&self, row: usize) -> *const f32 {
        self.data[row * self.stride..].as_ptr()
    }
}

/// Where a block of results goes: element `(i, j)` at `data[i * stride + j]`.
pub struct Out {
    data: *mut f32,
    len: usize,
    pub stride: usize,
}

// SAFETY: an `Out` is an exclusive window that its maker hands to one thread; see `Out::window`.
unsafe impl Send for Out {}
// SAFETY: writing needs `&mut`.
unsafe impl Sync for Out {}

impl Out {
    pub fn new(data: &mut [f32], stride: usize) -> Self {
        Self { data: data.as_mut_ptr(), len: data.len(), stride }
    }

    /// The same rows from column `column` on.
    ///
    /// # Safety
    /// Windows in use at the same time must write disjoint elements, and none may outlive the slice behind it.
    pub unsafe fn window(&self, column: usize) -> Self {
        assert!(column <= self.len);
        // SAFETY: `column` is inside the allocation.
        Self { data: unsafe { self.data.add(column) }, len: self.len - column, stride: self.stride }
    }

    /// Writes a whole row of the window.
    ///
    /// # Panics
    /// If it does not fit.
    pub fn set_row(&mut self, row: usize, values: &[f32]) {
        let at = row * self.stride;
        assert!(at + values.len() <= self.len, "a row reaches past its window");
        // SAFETY: the range is inside the window, and `values` is a shared borrow, so it cannot overlap the window.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), self.data.add(at), values.len()) }
    }

    fn set(&mut self, row: usize, column: usize, value: f32) {
        let at = row * self.stride + column;
        assert!(at < self.len);
        // SAFETY: `at` is inside the window.
        unsafe { *self.data.add(at) = value }
    }
}

/// `out[i][j] = dot(x[i], w[j])` for all rows of both.
///
/// # Panics
/// If the rows differ in length or `out` is too small.
pub fn dot_rows(level: Level, x: Rows<'_>, w: Rows<'_>, out: &mut Out) {
    assert_eq!(x.len, w.len);
    match level {
        Level::Baseline => dot_rows_baseline(x, w, out),
        // SAFETY: the level is only made by `detect`, which found the features.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { dot_rows_avx2(x, w, out) },
    }
}

/// `out[i] += sum over rows j of p[j] * v[j][i]`, row by row in order.
///
/// # Panics
/// If `p` or `out` do not fit `v`.
pub fn weighted_sum(level: Level, p: &[f32], v: Rows<'_>, out: &mut [f32]) {
    assert_eq!(p.len(), v.n);
    assert_eq!(out.len(), v.len);
    match level {
        Level::Baseline => weighted_sum_body::<{ cfg!(target_arch = "aarch64") }, 2>(p, v, out),
        // SAFETY: the level is only made by `detect`, which found the features.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { weighted_sum_avx2(p, v, out) },
    }
}

fn dot_rows_baseline(x: Rows<'_>, w: Rows<'_>, out: &mut Out) {
    dot_rows_body::<{ cfg!(target_arch = "aarch64") }, 2, 2>(x, w, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn dot_rows_avx2(x: Rows<'_>, w: Rows<'_>, out: &mut Out) {
    dot_rows_body::<true, 4, 3>(x, w, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn weighted_sum_avx2(p: &[f32], v: Rows<'_>, out: &mut [f32]) {
    weighted_sum_body::<true, 8>(p, v, out);
}

#[inline(always)]
fn madd<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    // Without the instruction `mul_add` is a slow library call.
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Tiles of `M` rows of x by `N` rows of w; the rest in thinner tiles.
#[inline(always)]
fn dot_rows_body<const FMA: bool, const M: usize, const N: usize>(x: Rows<'_>, w: Rows<'_>, out: &mut Out) {
    let mut i = 0;
    while i < x.n {
        if i + M <= x.n {
            dot_strip::<FMA, M, N>(x, i, w, out);
            i += M;
        } else {
            // One stream of memory at a time for weights; keys are short and mostly in cache.
            if x.len > SHORT_ROW {
                dot_strip::<FMA, 1, 1>(x, i, w, out)
            } else {
                dot_strip::<FMA, 1, N>(x, i, w, out)
            }
            i += 1;
        }
    }
}

#[inline(always)]
fn dot_strip<const FMA: bool, const M: usize, const N: usize>(x: Rows<'_>, i: usize, w: Rows<'_>, out: &mut Out) {
    let mut j = 0;
    while j < w.n {
        if j + N <= w.n {
            dot_tile::<FMA, M, N>(x, i, w, j, out);
            j += N;
        } else {
            dot_tile::<FMA, M, 1>(x, i, w, j, out);
            j += 1;
        }
    }
}

#[inline(always)]
fn dot_tile<const FMA: bool, const M: usize, const N: usize>(
    x: Rows<'_>,
    i: usize,
    w: Rows<'_>,
    j: usize,
    out: &mut Out,
) {
    let k = x.len;
    let xs: [*const f32; M] = std::array::from_fn(|m| x.pointer(i + m));
    let ws: [*const f32; N] = std::array::from_fn(|n| w.pointer(j + n));
    let mut acc = [[[0f32; LANES]; N]; M];
    let whole = k - k % LANES;
    let mut at = 0;
    while at < whole {
        if i == 0 {
            // The first rows of x meet weights that are still in memory. Where there is only one row, nothing else
            // limits it, and fetching ahead doubled what two threads got; tiles fetch the next tile.
            let ahead = if N == 1 { PREFETCH_AHEAD } else { N * w.stride };
            ws.iter().for_each(|w| prefetch(w.wrapping_add(at + ahead)));
        }
        // SAFETY: `Rows::new` checked that `k` values follow each pointer, and at + LANES <= k.
        let wv: [[f32; LANES]; N] =
            std::array::from_fn(|n| unsafe { ws[n].add(at).cast::<[f32; LANES]>().read_unaligned() });
        for m in 0..M {
            // SAFETY: as above.
            let xv = unsafe { xs[m].add(at).cast::<[f32; LANES]>().read_unaligned() };
            for n in 0..N {
                for l in 0..LANES {
                    acc[m][n][l] = madd::<FMA>(xv[l], wv[n][l], acc[m][n][l]);
                }
            }
        }
        at += LANES;
    }
    for m in 0..M {
        for n in 0..N {
            let mut sum = sum_lanes(acc[m][n]);
            for tail in whole..k {
                // SAFETY: tail < k.
                sum = madd::<FMA>(unsafe { *xs[m].add(tail) }, unsafe { *ws[n].add(tail) }, sum);
            }
            out.set(i + m, j + n, sum);
        }
    }
}

#[inline(always)]
fn prefetch(at: *const f32) {
    // SAFETY: a prefetch never faults, whatever the address; SSE is part of x86-64.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast())
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

#[inline(always)]
fn sum_lanes(a: [f32; LANES]) -> f32 {
    let c: [f32; 4] = std::array::from_fn(|l| a[l] + a[l + 4]);
    (c[0] + c[2]) + (c[1] + c[3])
}

/// `C` columns of 8 lanes at a time, so that the sums stay in registers over all rows.
#[inline(always)]
fn weighted_sum_body<const FMA: bool, const C: usize>(p: &[f32], v: Rows<'_>, out: &mut [f32]) {
    let mut column = 0;
    while column + C * LANES <= v.len {
        weighted_columns::<FMA, C>(p, v, column, out);
        column += C * LANES;
    }
    while column + LANES <= v.len {
        weighted_columns::<FMA, 1>(p, v, column, out);
        column += LANES;
    }
    for (at, sum) in out.iter_mut().enumerate().skip(column) {
        for (j, &weight) in p.iter().enumerate() {
            *sum = madd::<FMA>(weight, v.data[j * v.stride + at], *sum);
        }
    }
}

#[inline(always)]
fn weighted_columns<const FMA: bool, const C: usize>(p: &[f32], v: Rows<'_>, column: usize, out: &mut [f32]) {
    let out = &mut out[column..column + C * LANES];
    let mut acc = [[0f32; LANES]; C];
    for (acc, out) in acc.iter_mut().zip(out.chunks_exact(LANES)) {
        acc.copy_from_slice(out);
    }
    for (j, &weight) in p.iter().enumerate() {
        // SAFETY: j < v.n, and column + C * LANES <= v.len, which `Rows::new` checked.
        let row = unsafe { v.data.as_ptr().add(j * v.stride + column) };
        for (c, acc) in acc.iter_mut().enumerate() {
            // SAFETY: as above.
            let values = unsafe { row.add(c * LANES).cast::<[f32; LANES]>().read_unaligned() };
            for l in 0..LANES {
                acc[l] = madd::<FMA>(weight, values[l], acc[l]);
            }
        }
    }
    for (acc, out) in acc.iter().zip(out.chunks_exact_mut(LANES)) {
        out.copy_from_slice(acc);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 24) as f32 - 0.5
            })
            .collect()
    }

    fn levels() -> Vec<Level> {
        let mut levels = vec![Level::Baseline];
        #[cfg(target_arch = "x86_64")]
        {
            if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
                levels.push(Level::Avx2);
            }
        }
        levels
    }

    #[test]
    fn dot_rows_equals_f64_at_every_level_and_does_not_depend_on_the_batch() {
        for level in levels() {
            for k in [1, 15, 16, 48, 75, 576] {
                let (m, n) = (9, 11);
                let (x, w) = (values(m * k, 1), values(n * k, 2));
                let mut out = vec![0.0; m * n];
                dot_rows(level, Rows::new(&x, m, k, k), Rows::new(&w, n, k, k), &mut Out::new(&mut out, n));
                for i in 0..m {
                    let mut alone = vec![0.0; n];
                    let row = Rows::new(&x[i * k..], 1, k, k);
                    dot_rows(level, row, Rows::new(&w, n, k, k), &mut Out::new(&mut alone, n));
                    assert_eq!(alone, out[i * n..(i + 1) * n], "{level:?} k={k} row {i}");
                    for j in 0..n {
                        let exact: f64 = (0..k).map(|t| f64::from(x[i * k + t]) * f64::from(w[j * k + t])).sum();
                        assert!((f64::from(alone[j]) - exact).abs() < 1e-5, "{level:?} k={k} {} {exact}", alone[j]);
                    }
                }
            }
        }
    }

    #[test]
    fn weighted_sum_equals_f64_at_every_level() {
        for level in levels() {
            for len in [5, 16, 48, 75, 128] {
                let n = 13;
                let (p, v) = (values(n, 3), values(n * (len + 3), 4));
                let mut out = vec![0.0; len];
                weighted_sum(level, &p, Rows::new(&v, n, len, len + 3), &mut out);
                for i in 0..len {
                    let exact: f64 = (0..n).map(|j| f64::from(p[j]) * f64::from(v[j * (len + 3) + i])).sum();
                    assert!((f64::from(out[i]) - exact).abs() < 1e-5);
                }
            }
        }
    }
}
