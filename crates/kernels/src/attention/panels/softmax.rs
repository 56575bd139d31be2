//! Scores to weights, a row at a time.

use super::super::math::{EXP2, LEAST, LOG2_E, ROUND};
use crate::Level;
use crate::lanes::{LANES, Lanes, leveled};

/// 2^f - 1 as in [`EXP2`], within 1.1e-4: far less than what rounding to bf16 takes.
const EXP2_SHORT: [f32; 3] = [0.693_282_96, 0.242_210_95, 0.055_008_85];

leveled! {
    /// Turns the first `n` scores of a row into e^(score - greatest), and gives their sum. What is between the `n`th and
    /// the next multiple of 16 becomes 0.
    ///
    /// # Safety
    /// `scores` points to `n` values rounded up to a multiple of 16, the caller's alone; n is not 0.
    pub(super) unsafe fn weigh(scores: *mut f32, n: usize) -> f32 = weigh_f32;
}

/// As [`weigh`], with weights of fewer digits, rounded to bf16 in `weights`. The sum is of what was not rounded.
///
/// # Safety
/// As of [`weigh`], for `weights` too.
pub(super) unsafe fn weigh_bf16(level: Level, scores: *mut f32, n: usize, weights: *mut u16) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if matches!(level, Level::Vnni | Level::Amx) && crate::has_bf16_dots() {
        // SAFETY: the machine has the instructions; the rest is the caller's promise.
        return unsafe { x86::weigh(scores, n, weights) };
    }
    // SAFETY: the caller's promise.
    unsafe { weigh_any(level, scores, n, weights) }
}

leveled! {
    /// # Safety
    /// As of [`weigh_bf16`].
    unsafe fn weigh_any(scores: *mut f32, n: usize, weights: *mut u16) -> f32 = weigh_rounded;
}

/// Where weights go, and how exact they are. (Closures are not compiled for an instruction set.)
trait Keep<L: Lanes>: Copy {
    /// 2^f - 1 over f.
    ///
    /// # Safety
    /// As of [`Lanes`].
    unsafe fn power(f: L::F) -> L::F;

    /// Keeps the weights of lanes i to i + 15.
    ///
    /// # Safety
    /// As of [`Lanes`].
    unsafe fn keep(self, i: usize, p: L::F);
}

#[derive(Clone, Copy)]
struct InPlace(*mut f32);

#[derive(Clone, Copy)]
struct Rounded(*mut u16);

impl<L: Lanes> Keep<L> for InPlace {
    #[inline(always)]
    unsafe fn power(f: L::F) -> L::F {
        let [c0, c1, c2, c3, c4] = EXP2;
        // SAFETY: the caller has the instructions.
        unsafe {
            let q = L::fma(L::splat(c4), f, L::splat(c3));
            L::fma(L::fma(L::fma(q, f, L::splat(c2)), f, L::splat(c1)), f, L::splat(c0))
        }
    }

    #[inline(always)]
    unsafe fn keep(self, i: usize, p: L::F) {
        // SAFETY: the caller's promise.
        unsafe { L::store(self.0.add(i), p) }
    }
}

/// [`EXP2_SHORT`] of lanes.
#[inline(always)]
unsafe fn short<L: Lanes>(f: L::F) -> L::F {
    let [c0, c1, c2] = EXP2_SHORT;
    // SAFETY: the caller has the instructions.
    unsafe { L::fma(L::fma(L::splat(c2), f, L::splat(c1)), f, L::splat(c0)) }
}

impl<L: Lanes> Keep<L> for Rounded {
    #[inline(always)]
    unsafe fn power(f: L::F) -> L::F {
        // SAFETY: the caller's promise.
        unsafe { short::<L>(f) }
    }

    #[inline(always)]
    unsafe fn keep(self, i: usize, p: L::F) {
        // SAFETY: the caller's promise.
        unsafe { L::store_bf16(self.0.add(i), p) }
    }
}

/// With AVX512-BF16 rounding is one instruction. It makes no subnormal numbers; weights are none.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Keep, short, weigh_to};
    use crate::lanes::Avx512;

    #[derive(Clone, Copy)]
    struct AtOnce(*mut u16);

    impl Keep<Avx512> for AtOnce {
        #[inline(always)]
        unsafe fn power(f: __m512) -> __m512 {
            // SAFETY: the caller's promise.
            unsafe { short::<Avx512>(f) }
        }

        #[inline(always)]
        unsafe fn keep(self, i: usize, p: __m512) {
            // SAFETY: the caller's promise; both are 32 bytes, and any bits are values of both.
            unsafe {
                let rounded = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(p));
                _mm256_storeu_si256(self.0.add(i).cast(), rounded);
            }
        }
    }

    /// # Safety
    /// As of [`weigh_bf16`](super::weigh_bf16).
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    pub(super) unsafe fn weigh(scores: *mut f32, n: usize, weights: *mut u16) -> f32 {
        // SAFETY: the caller's promises.
        unsafe { weigh_to::<Avx512, _>(scores, n, AtOnce(weights)) }
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
unsafe fn weigh_to<L: Lanes, K: Keep<L>>(scores: *mut f32, n: usize, to: K) -> f32 {
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
                    let p = exp::<L, K>(L::sub(L::load(scores.add(i)), greatest));
                    *sum = L::add(*sum, p);
                    to.keep(i, p);
                }
            }
        }
        let [a, b, c, d] = sums;
        L::reduce_add(L::add(L::add(a, b), L::add(c, d)))
    }
}

/// As [`math::exp`](super::super::math::exp), to the bit where K's power is.
#[inline(always)]
unsafe fn exp<L: Lanes, K: Keep<L>>(x: L::F) -> L::F {
    // SAFETY: the caller has the instructions.
    unsafe {
        let t = L::mul(x, L::splat(LOG2_E));
        let shifted = L::add(t, L::splat(ROUND));
        let f = L::sub(t, L::sub(shifted, L::splat(ROUND)));
        let one = L::splat_int(1.0f32.to_bits().cast_signed());
        let power = L::from_bits(L::add_int(L::shift_left::<23>(L::float_bits(shifted)), one));
        let y = L::mul(L::fma(K::power(f), f, L::splat(1.0)), power);
        L::select(L::greater(L::splat(LEAST), t), L::splat(0.0), y)
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::super::super::math;
    use super::*;
    use crate::testing::{Random, bits};

    /// What [`math::exp`] is, with the short polynomial.
    fn exp_short(x: f32) -> f32 {
        let t = x * LOG2_E;
        let shifted = t + ROUND;
        let f = t - (shifted - ROUND);
        let [c0, c1, c2] = EXP2_SHORT;
        let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
        let y = c2.mul_add(f, c1).mul_add(f, c0).mul_add(f, 1.0) * power;
        if t < LEAST { 0.0 } else { y }
    }

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
            let sum = |weights: &[f32]| {
                let mut parts = [[0.0f32; LANES]; 4];
                for (i, p) in weights.iter().enumerate() {
                    parts[i / LANES % 4][i % LANES] += p;
                }
                let [a, b, c, d] = parts;
                math::sum_lanes(std::array::from_fn(|i| (a[i] + b[i]) + (c[i] + d[i])))
            };
            let weights = |exp: &dyn Fn(f32) -> f32| {
                let mut weights: Vec<f32> = x[..n].iter().map(|&x| exp(x - greatest)).collect();
                weights.resize(x.len(), 0.0);
                weights
            };
            let (exact, short) = (weights(&math::exp), weights(&exp_short));
            assert!(exact.iter().zip(&short).all(|(a, b)| (a - b).abs() <= 1.2e-4 * a));
            let rounded: Vec<u16> = short.iter().map(|&p| bf16::from_f32(p).to_bits()).collect();
            for level in Level::available() {
                let (mut found, mut scores, mut halves) = (x.clone(), x.clone(), vec![0; x.len()]);
                // SAFETY: the level is available, and all have `n` values rounded up.
                unsafe {
                    assert_eq!(weigh(level, found.as_mut_ptr(), n), sum(&exact), "{level} {n}");
                    assert_eq!(bits(&found), bits(&exact), "{level} {n}");
                    for weigh in [weigh_bf16, weigh_any] {
                        scores.copy_from_slice(&x);
                        assert_eq!(
                            weigh(level, scores.as_mut_ptr(), n, halves.as_mut_ptr()),
                            sum(&short),
                            "{level} {n}"
                        );
                        assert_eq!(halves, rounded, "{level} {n}");
                    }
                }
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
