//! Scores to weights, a row at a time.

use super::super::math::{EXP2, LEAST, LOG2_E, ROUND};
use crate::lanes::{LANES, Lanes, leveled};

leveled! {
    /// Turns the first `n` scores of a row into e^(score - greatest), and gives their sum. What is between the `n`th and
    /// the next multiple of 16 becomes 0.
    ///
    /// # Safety
    /// `scores` points to `n` values rounded up to a multiple of 16, the caller's alone; n is not 0.
    pub(super) unsafe fn weigh(scores: *mut f32, n: usize) -> f32 = weigh_f32;
}

leveled! {
    /// As [`weigh`], with the weights rounded to bf16 in `weights`; the scores are lost. The sum is of what was not rounded.
    ///
    /// # Safety
    /// As of [`weigh`], for `weights` too.
    pub(super) unsafe fn weigh_bf16(scores: *mut f32, n: usize, weights: *mut u16) -> f32 = weigh_rounded;
}

/// Where weights go. (Closures are not compiled for an instruction set.)
trait Keep: Copy {
    /// Keeps the weights of lanes i to i + 15.
    ///
    /// # Safety
    /// As of [`Lanes`].
    unsafe fn keep<L: Lanes>(self, i: usize, p: L::F);
}

#[derive(Clone, Copy)]
struct InPlace(*mut f32);

#[derive(Clone, Copy)]
struct Rounded(*mut u16);

impl Keep for InPlace {
    #[inline(always)]
    unsafe fn keep<L: Lanes>(self, i: usize, p: L::F) {
        // SAFETY: the caller's promise.
        unsafe { L::store(self.0.add(i), p) }
    }
}

impl Keep for Rounded {
    #[inline(always)]
    unsafe fn keep<L: Lanes>(self, i: usize, p: L::F) {
        // SAFETY: the caller's promise.
        unsafe { L::store_bf16(self.0.add(i), p) }
    }
}

#[inline(always)]
unsafe fn weigh_f32<L: Lanes>(scores: *mut f32, n: usize) -> f32 {
    // SAFETY: the caller's promises.
    unsafe { weigh_to::<L, _>(scores, n, InPlace(scores)) }
}

#[inline(always)]
unsafe fn weigh_rounded<L: Lanes>(scores: *mut f32, n: usize, weights: *mut u16) -> f32 {
    // SAFETY: the caller's promises.
    unsafe { weigh_to::<L, _>(scores, n, Rounded(weights)) }
}

/// Vectors that are worked on at a time: those of one place wait for each other.
const PARTS: usize = 4;

#[inline(always)]
unsafe fn weigh_to<L: Lanes, K: Keep>(scores: *mut f32, n: usize, to: K) -> f32 {
    let padded = n.next_multiple_of(LANES);
    // SAFETY: all that is read and written is before `padded`.
    unsafe {
        for i in n..padded {
            scores.add(i).write(f32::NEG_INFINITY);
        }
        let mut greatest = [L::splat(f32::NEG_INFINITY); PARTS];
        for first in (0..padded).step_by(PARTS * LANES) {
            for (part, greatest) in greatest.iter_mut().enumerate() {
                let i = first + part * LANES;
                if i < padded {
                    *greatest = L::max(L::load(scores.add(i)), *greatest);
                }
            }
        }
        let [a, b, c, d] = greatest;
        let greatest = L::splat(L::reduce_max(L::max(L::max(a, b), L::max(c, d))));
        let mut sums = [L::splat(0.0); PARTS];
        for first in (0..padded).step_by(PARTS * LANES) {
            for (part, sum) in sums.iter_mut().enumerate() {
                let i = first + part * LANES;
                if i < padded {
                    let p = exp::<L>(L::sub(L::load(scores.add(i)), greatest));
                    *sum = L::add(*sum, p);
                    to.keep::<L>(i, p);
                }
            }
        }
        let [a, b, c, d] = sums;
        L::reduce_add(L::add(L::add(a, b), L::add(c, d)))
    }
}

/// As [`math::exp`](super::super::math::exp), to the bit.
#[inline(always)]
unsafe fn exp<L: Lanes>(x: L::F) -> L::F {
    // SAFETY: the caller has the instructions.
    unsafe {
        let t = L::mul(x, L::splat(LOG2_E));
        let shifted = L::add(t, L::splat(ROUND));
        let f = L::sub(t, L::sub(shifted, L::splat(ROUND)));
        let [c0, c1, c2, c3, c4] = EXP2;
        let q = L::fma(L::splat(c4), f, L::splat(c3));
        let q = L::fma(L::fma(L::fma(q, f, L::splat(c2)), f, L::splat(c1)), f, L::splat(c0));
        let one = L::splat_int(1.0f32.to_bits().cast_signed());
        let power = L::from_bits(L::add_int(L::shift_left::<23>(L::float_bits(shifted)), one));
        let y = L::mul(L::fma(q, f, L::splat(1.0)), power);
        L::select(L::greater(L::splat(LEAST), t), L::splat(0.0), y)
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::super::super::math;
    use super::*;
    use crate::Level;
    use crate::testing::{Random, bits};

    #[test]
    fn weights_are_those_of_single_numbers_at_every_level() {
        let mut random = Random(71);
        for n in [1_usize, 5, 15, 16, 17, 63, 64, 65, 100, 1500] {
            let mut x = random.normals(n.next_multiple_of(LANES));
            x[..n].iter_mut().for_each(|x| *x *= 9.0);
            if n > 20 {
                (x[3], x[7]) = (-300.0, f32::NEG_INFINITY);
            }
            let greatest = x[..n].iter().fold(f32::NEG_INFINITY, |max, &x| max.max(x));
            let mut expected: Vec<f32> = x[..n].iter().map(|&x| math::exp(x - greatest)).collect();
            expected.resize(x.len(), 0.0);
            let mut parts = [[0.0f32; LANES]; 4];
            for (i, p) in expected.iter().enumerate() {
                parts[i / LANES % 4][i % LANES] += p;
            }
            let [a, b, c, d] = parts;
            let sum = math::sum_lanes(std::array::from_fn(|i| (a[i] + b[i]) + (c[i] + d[i])));
            let rounded: Vec<u16> = expected.iter().map(|&p| bf16::from_f32(p).to_bits()).collect();
            for level in Level::available() {
                let (mut found, mut scores, mut short) = (x.clone(), x.clone(), vec![0; x.len()]);
                // SAFETY: the level is available, and all have `n` values rounded up.
                let sums = unsafe {
                    [weigh(level, found.as_mut_ptr(), n), weigh_bf16(level, scores.as_mut_ptr(), n, short.as_mut_ptr())]
                };
                assert_eq!(bits(&found), bits(&expected), "{level} {n}");
                assert_eq!(short, rounded, "{level} {n}");
                assert_eq!(sums, [sum; 2], "{level} {n}");
            }
        }
    }

    #[test]
    fn a_nan_makes_its_row_nan() {
        for level in Level::available() {
            let mut x = [0.5; 32];
            x[20] = f32::NAN;
            // SAFETY: the level is available.
            let sum = unsafe { weigh(level, x.as_mut_ptr(), 32) };
            assert!(sum.is_nan() && x[20].is_nan(), "{level}");
        }
    }
}
