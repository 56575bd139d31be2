//! What is asked of a row of logits: the best, the k best, and the logarithm of the sum of exponentials. A row may be
//! scanned in slices by several threads; what comes of it does not depend on how it was cut.

use std::cmp::Ordering;

use crate::Level;
use crate::lanes::{LANES, Lanes, leveled, math};

/// Slices for [`scan`] start at multiples of it: sums are made per chunk.
pub const LOGIT_CHUNK: usize = 1024;

/// A token that may be chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    pub id: u32,
    pub logit: f32,
}

impl Candidate {
    /// Greater logits first, then lower ids. Neither logit is NaN.
    pub fn order(&self, other: &Self) -> Ordering {
        other.logit.partial_cmp(&self.logit).unwrap_or(Ordering::Equal).then(self.id.cmp(&other.id))
    }

    /// The first by [`order`](Self::order) of what two slices had.
    pub fn best(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        match (a, b) {
            (Some(a), Some(b)) => Some(if a.order(&b) == Ordering::Greater { b } else { a }),
            (a, b) => a.or(b),
        }
    }
}

/// A sum of exponentials: `e^max * sum`. Of no values, or of nothing but -infinity, max is -infinity and the sum 0. With
/// a NaN or +infinity among the values, the sum is NaN.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogSumExp {
    pub max: f32,
    pub sum: f64,
}

impl LogSumExp {
    /// Of no values.
    pub const EMPTY: Self = Self { max: f32::NEG_INFINITY, sum: 0.0 };

    /// The sum of both. For results that do not depend on slices, merge those of chunks from the first to the last.
    pub fn merge(self, other: Self) -> Self {
        let max = if other.max > self.max { other.max } else { self.max };
        let part = |of: Self| if of.max == max { of.sum } else { of.sum * f64::from(of.max - max).exp() };
        Self { max, sum: part(self) + part(other) }
    }

    /// The logarithm of the sum: of no values -infinity.
    pub fn ln(self) -> f64 {
        f64::from(self.max) + self.sum.ln()
    }
}

/// The best of `logits`, the ids of which start at `first_id`: the first of the greatest. NaN and -infinity are never
/// chosen; without anything else the answer is None.
pub fn arg_max(level: Level, logits: &[f32], first_id: u32) -> Option<Candidate> {
    scan_chunks(level, logits, first_id, &mut |_, _| {}, false)
}

/// As [`arg_max`], and in the same pass the sum of exponentials of every chunk of [`LOGIT_CHUNK`] logits into `parts`,
/// within 5e-7 of each. A row cut at multiples of the chunk has the same parts as in one slice.
///
/// # Panics
/// If `parts` are not as many as chunks begun, or the machine cannot run `level`.
pub fn scan(level: Level, logits: &[f32], first_id: u32, parts: &mut [LogSumExp]) -> Option<Candidate> {
    assert_eq!(parts.len(), logits.len().div_ceil(LOGIT_CHUNK));
    scan_chunks(level, logits, first_id, &mut |chunk, part| parts[chunk] = part, true)
}

/// The sum of exponentials of a whole row: its chunks', merged in order.
pub fn log_sum_exp(level: Level, logits: &[f32]) -> LogSumExp {
    let mut total = LogSumExp::EMPTY;
    scan_chunks(level, logits, 0, &mut |_, part| total = total.merge(part), true);
    total
}

fn scan_chunks(
    level: Level,
    logits: &[f32],
    first_id: u32,
    part: &mut dyn FnMut(usize, LogSumExp),
    with_sum: bool,
) -> Option<Candidate> {
    let mut best = None;
    let mut best_logit = f32::NEG_INFINITY;
    for (i, chunk) in logits.chunks(LOGIT_CHUNK).enumerate() {
        // SAFETY: the chunk holds as many values.
        let (max, sum) = unsafe { chunk_at(level, chunk.as_ptr(), chunk.len(), with_sum) };
        part(i, LogSumExp { max, sum });
        if max > best_logit {
            // Rarely: the more chunks were seen, the more so.
            best_logit = max;
            let at = i * LOGIT_CHUNK + chunk.iter().position(|&v| v == max).unwrap_or(0);
            best = Some(Candidate { id: first_id + at as u32, logit: max });
        }
    }
    best
}

/// The k best of a row, without sorting it: candidates above the k-th best so far are collected, and cut back to k when
/// they have become too many.
#[derive(Debug)]
pub struct TopK {
    k: usize,
    /// What a logit must exceed: that of the k-th best at the last cut.
    threshold: f32,
    /// Ids below it have been scanned.
    next_id: u32,
    kept: Vec<Candidate>,
}

impl TopK {
    /// Room for up to `k` > 0: it allocates nothing later.
    ///
    /// # Panics
    /// If `k` is 0.
    pub fn new(k: usize) -> Self {
        assert!(k > 0, "the best 0");
        Self { k, threshold: f32::NEG_INFINITY, next_id: 0, kept: Vec::with_capacity(k + k.max(256)) }
    }

    /// Makes it empty, for another row.
    pub fn clear(&mut self) {
        self.threshold = f32::NEG_INFINITY;
        self.next_id = 0;
        self.kept.clear();
    }

    /// Takes `logits` in, the ids of which start at `first_id`. NaN and -infinity are no candidates.
    ///
    /// # Panics
    /// If ids do not ascend from scan to scan, or the machine cannot run `level`.
    pub fn scan(&mut self, level: Level, logits: &[f32], first_id: u32) {
        assert!(first_id >= self.next_id, "ids from {first_id} on after {}", self.next_id);
        self.next_id = first_id + logits.len() as u32;
        let mut above = [0_u16; LOGIT_CHUNK];
        for (i, chunk) in logits.chunks(LOGIT_CHUNK).enumerate() {
            // SAFETY: the chunk holds as many values, and `above` as many places.
            let n = unsafe { above_at(level, chunk.as_ptr(), chunk.len(), self.threshold, above.as_mut_ptr()) };
            for &at in &above[..n] {
                let logit = chunk[usize::from(at)];
                // The threshold may have risen meanwhile. A later id with the same logit as the k-th is not better.
                if logit > self.threshold {
                    self.push(Candidate { id: first_id + (i * LOGIT_CHUNK) as u32 + u32::from(at), logit });
                }
            }
        }
    }

    /// Takes in what another has kept of other ids of the same row, whichever.
    pub fn merge(&mut self, other: &Self) {
        for &candidate in &other.kept {
            if candidate.logit >= self.threshold {
                self.push(candidate);
            }
        }
    }

    /// The best, in order: k, or as many as there were candidates.
    pub fn best(&mut self) -> &[Candidate] {
        self.cut();
        self.kept.sort_unstable_by(Candidate::order);
        &self.kept
    }

    fn push(&mut self, candidate: Candidate) {
        if self.kept.len() == self.k + self.k.max(256) {
            self.cut();
        }
        self.kept.push(candidate);
    }

    fn cut(&mut self) {
        if self.kept.len() > self.k {
            self.kept.select_nth_unstable_by(self.k - 1, Candidate::order);
            self.kept.truncate(self.k);
        }
        if self.kept.len() == self.k {
            let last = self.kept.iter().map(|c| c.logit).fold(f32::INFINITY, f32::min);
            self.threshold = last;
        }
    }
}

leveled! {
    /// # Safety
    /// `x` points to `n` values.
    unsafe fn chunk_at(x: *const f32, n: usize, with_sum: bool) -> (f32, f64) = chunk_with;
}

leveled! {
    /// # Safety
    /// `x` points to `n` <= 65536 values, `above` to as many places, the caller's alone.
    unsafe fn above_at(x: *const f32, n: usize, threshold: f32, above: *mut u16) -> usize = above_with;
}

/// The greatest of `n` values, and the sum of e^(x - max) if asked for: in 64 parts, value i in part i % 64.
#[inline(always)]
unsafe fn chunk_with<L: Lanes>(x: *const f32, n: usize, with_sum: bool) -> (f32, f64) {
    // The last 1 to 64 values, with -infinity behind them, which changes neither.
    let mut last = [f32::NEG_INFINITY; 4 * LANES];
    let n_last = if n == 0 { 0 } else { (n - 1) % (4 * LANES) + 1 };
    let n_first = n - n_last;
    // SAFETY: whole vectors below n_first, and in `last`.
    unsafe {
        std::ptr::copy_nonoverlapping(x.add(n_first), last.as_mut_ptr(), n_last);
        let mut parts = [L::splat(f32::NEG_INFINITY); 4];
        for i in (0..n_first).step_by(4 * LANES) {
            for (j, part) in parts.iter_mut().enumerate() {
                *part = L::max(L::load(x.add(i + j * LANES)), *part);
            }
        }
        for (j, part) in parts.iter_mut().enumerate() {
            *part = L::max(L::load(last.as_ptr().add(j * LANES)), *part);
        }
        let max = L::reduce_max(L::max(L::max(parts[0], parts[1]), L::max(parts[2], parts[3])));
        if !with_sum {
            return (max, 0.0);
        }
        if max == f32::NEG_INFINITY {
            // Either nothing to add, or NaN. -infinity less itself would be NaN too.
            let nan = (0..n).any(|i| x.add(i).read().is_nan());
            return (max, if nan { f64::NAN } else { 0.0 });
        }
        let subtract = L::splat(max);
        let mut parts = [L::splat(0.0); 4];
        for i in (0..n_first).step_by(4 * LANES) {
            for (j, part) in parts.iter_mut().enumerate() {
                *part = L::add(*part, math::exp::<L>(L::sub(L::load(x.add(i + j * LANES)), subtract)));
            }
        }
        for (j, part) in parts.iter_mut().enumerate() {
            let x = L::load(last.as_ptr().add(j * LANES));
            *part = L::add(*part, math::exp::<L>(L::sub(x, subtract)));
        }
        let mut values = [0.0_f32; 4 * LANES];
        for (j, part) in parts.into_iter().enumerate() {
            L::store(values.as_mut_ptr().add(j * LANES), part);
        }
        let mut sums = [0.0_f64; 8];
        for values in values.chunks_exact(8) {
            for (sum, &value) in sums.iter_mut().zip(values) {
                *sum += f64::from(value);
            }
        }
        (max, sums.into_iter().sum())
    }
}

/// Writes the indices of the values above the threshold, and answers how many there are.
#[inline(always)]
unsafe fn above_with<L: Lanes>(x: *const f32, n: usize, threshold: f32, above: *mut u16) -> usize {
    let mut count = 0;
    // SAFETY: at most n - i values are read from i on, and every index is written once at most.
    unsafe {
        let threshold = L::splat(threshold);
        for i in (0..n).step_by(LANES) {
            let mut bits = L::bits(L::greater(crate::lanes::load_up_to::<L>(x.add(i), n - i), threshold));
            if n - i < LANES {
                bits &= (1 << (n - i)) - 1;
            }
            while bits != 0 {
                above.add(count).write((i + bits.trailing_zeros() as usize) as u16);
                count += 1;
                bits &= bits - 1;
            }
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    const LENGTHS: [usize; 12] = [0, 1, 2, 15, 16, 17, 63, 65, 1023, 1025, 3000, 49_152];

    /// Logits with ties, and some that are no candidates.
    fn logits(random: &mut Random, n: usize) -> Vec<f32> {
        let mut x: Vec<f32> = (0..n).map(|_| (random.normal() * 40.0).round() / 8.0).collect();
        for _ in 0..n / 20 {
            x[random.below(n)] = f32::NEG_INFINITY;
        }
        x
    }

    fn sorted(x: &[f32]) -> Vec<Candidate> {
        let all = x.iter().enumerate().map(|(i, &logit)| Candidate { id: 7 + i as u32, logit });
        let mut all: Vec<_> = all.filter(|c| c.logit > f32::NEG_INFINITY).collect();
        all.sort_by(Candidate::order);
        all
    }

    #[test]
    fn the_first_of_the_greatest_is_chosen_and_nan_never() {
        let mut random = Random(21);
        for level in Level::available() {
            for n in LENGTHS {
                for round in 0..4 {
                    let mut x = logits(&mut random, n);
                    if round > 0 && n > 0 {
                        (0..n / 10 + 1).for_each(|_| x[random.below(n)] = f32::NAN);
                    }
                    let expected = sorted(&x).first().copied();
                    assert_eq!(arg_max(level, &x, 7), expected, "{level} {n}");
                    let mut parts = vec![LogSumExp::EMPTY; n.div_ceil(LOGIT_CHUNK)];
                    assert_eq!(scan(level, &x, 7, &mut parts), expected, "{level} {n}");
                    // In two slices.
                    let cut = n / 3;
                    let parts = [arg_max(level, &x[..cut], 7), arg_max(level, &x[cut..], 7 + cut as u32)];
                    assert_eq!(Candidate::best(parts[0], parts[1]), expected);
                    assert_eq!(Candidate::best(parts[1], parts[0]), expected);
                }
            }
            assert_eq!(arg_max(level, &[f32::NAN, f32::NEG_INFINITY], 0), None);
            let infinite = arg_max(level, &[f32::NAN, f32::MAX, f32::INFINITY], 4);
            assert_eq!(infinite, Some(Candidate { id: 6, logit: f32::INFINITY }));
        }
    }

    #[test]
    fn the_k_best_come_in_order_however_the_row_was_cut() {
        let mut random = Random(22);
        for level in Level::available() {
            for n in LENGTHS {
                for k in [1, 2, 40, 300, 5000] {
                    let mut x = logits(&mut random, n);
                    if random.below(2) == 0 {
                        // The worst order: every logit is better than those before it.
                        x.sort_by(f32::total_cmp);
                    }
                    if n > 0 {
                        x[random.below(n)] = f32::NAN;
                    }
                    let mut expected = sorted(&x);
                    expected.truncate(k);
                    let mut top = TopK::new(k);
                    let capacity = top.kept.capacity();
                    top.scan(level, &x, 7);
                    assert_eq!(top.best(), expected, "{level} {n} {k}");

                    let cut = random.below(n + 1);
                    let mut later = TopK::new(k);
                    later.scan(level, &x[cut..], 7 + cut as u32);
                    top.clear();
                    top.scan(level, &x[..cut / 2], 7);
                    top.scan(level, &x[cut / 2..cut], 7 + (cut / 2) as u32);
                    if random.below(2) == 0 {
                        std::mem::swap(&mut top, &mut later);
                    }
                    top.merge(&later);
                    assert_eq!(top.best(), expected, "{level} {n} {k} cut at {cut}");
                    assert_eq!(top.kept.capacity(), capacity);
                }
            }
        }
    }

    #[test]
    fn sums_are_near_and_the_same_at_every_level_and_cut() {
        let mut random = Random(23);
        for n in LENGTHS {
            for offset in [0.0, 1e4, -300.0] {
                let x: Vec<f32> = logits(&mut random, n).into_iter().map(|v| v + offset).collect();
                let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let exact = x.iter().map(|v| (f64::from(*v) - f64::from(max)).exp()).sum::<f64>();
                let mut first: Option<LogSumExp> = None;
                for level in Level::available() {
                    let total = log_sum_exp(level, &x);
                    assert_eq!(total.max, max);
                    if n > 0 && max > f32::NEG_INFINITY {
                        assert!((total.sum / exact - 1.0).abs() < 5e-7, "{} {exact}", total.sum);
                        assert!((total.ln() - f64::from(max) - exact.ln()).abs() < 1e-6);
                    } else {
                        assert_eq!(total, LogSumExp::EMPTY);
                        assert_eq!(total.ln(), f64::NEG_INFINITY);
                    }
                    assert_eq!(*first.get_or_insert(total), total, "{level}");

                    let mut parts = vec![LogSumExp::EMPTY; n.div_ceil(LOGIT_CHUNK)];
                    let cut = random.below(parts.len() + 1);
                    let (one, two) = parts.split_at_mut(cut);
                    let at = (cut * LOGIT_CHUNK).min(n);
                    scan(level, &x[..at], 0, one);
                    scan(level, &x[at..], at as u32, two);
                    assert_eq!(parts.into_iter().fold(LogSumExp::EMPTY, LogSumExp::merge), total);
                }
            }
        }
    }

    #[test]
    fn nan_and_infinity_surface_in_sums() {
        for level in Level::available() {
            for n in [1, 20, 2000] {
                for bad in [f32::NAN, f32::INFINITY] {
                    for fill in [1.0, f32::NEG_INFINITY] {
                        let mut x = vec![fill; n];
                        x[n / 2] = bad;
                        assert!(log_sum_exp(level, &x).sum.is_nan(), "{level} {n} {bad} {fill}");
                    }
                }
            }
        }
    }
}
