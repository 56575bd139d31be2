//! Norms and the softmax: what needs a whole row.
//!
//! Sums have 64 parts: value i goes to lane i % 16 of part i / 16 % 4; the parts are added as (0 + 1) + (2 + 3), and
//! the lanes by halving.

use crate::Level;
use crate::lanes::{LANES, Lanes, leveled, load_up_to, math, store_up_to};

/// `out = x / sqrt(mean(x^2) + eps) * weight`.
pub fn rms_norm(level: Level, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    assert!(x.len() == weight.len() && weight.len() == out.len());
    // SAFETY: all three hold as many values.
    unsafe { rms_norm_at(level, x.as_ptr(), weight.as_ptr(), eps, out.as_mut_ptr(), out.len()) }
}

/// `x = x / sqrt(mean(x^2) + eps) * weight`.
pub fn rms_norm_in_place(level: Level, x: &mut [f32], weight: &[f32], eps: f32) {
    assert_eq!(x.len(), weight.len());
    let to = x.as_mut_ptr();
    // SAFETY: both hold as many values.
    unsafe { rms_norm_at(level, to, weight.as_ptr(), eps, to, x.len()) }
}

/// `out = (x - mean(x)) / sqrt(variance(x) + eps) * weight + bias`; the variance is that of the whole row, from the
/// differences to the mean.
pub fn layer_norm(level: Level, x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    assert!(x.len() == weight.len() && weight.len() == bias.len() && bias.len() == out.len());
    // SAFETY: all hold as many values.
    unsafe { layer_norm_at(level, x.as_ptr(), weight.as_ptr(), bias.as_ptr(), eps, out.as_mut_ptr(), out.len()) }
}

/// `x = e^(x - max) / sum`. A row of nothing but -infinity becomes NaN, as does one with a NaN.
pub fn softmax(level: Level, x: &mut [f32]) {
    // SAFETY: `x` holds as many values.
    unsafe { softmax_at(level, x.as_mut_ptr(), x.len()) }
}

leveled! {
    /// # Safety
    /// All point to `n` values, `out` to the caller's alone; `x` may be `out`.
    unsafe fn rms_norm_at(x: *const f32, weight: *const f32, eps: f32, out: *mut f32, n: usize) = rms_norm_with;
}

leveled! {
    /// # Safety
    /// All point to `n` values, `out` to the caller's alone; `x` may be `out`.
    unsafe fn layer_norm_at(
        x: *const f32,
        weight: *const f32,
        bias: *const f32,
        eps: f32,
        out: *mut f32,
        n: usize,
    ) = layer_norm_with;
}

leveled! {
    /// # Safety
    /// `x` points to `n` values, the caller's alone.
    unsafe fn softmax_at(x: *mut f32, n: usize) = softmax_with;
}

/// What is summed over a row.
trait Term {
    /// Of values x, to be added to `sum`; lanes beyond the row are 0 in `x`, and their terms must not change the sum.
    ///
    /// # Safety
    /// As of [`Lanes`].
    unsafe fn add_to<L: Lanes>(sum: L::F, x: L::F) -> L::F;
}

/// x.
struct Value;
/// x^2.
struct Square;

impl Term for Value {
    #[inline(always)]
    unsafe fn add_to<L: Lanes>(sum: L::F, x: L::F) -> L::F {
        // SAFETY: the caller's promises.
        unsafe { L::add(sum, x) }
    }
}

impl Term for Square {
    #[inline(always)]
    unsafe fn add_to<L: Lanes>(sum: L::F, x: L::F) -> L::F {
        // SAFETY: the caller's promises.
        unsafe { L::fma(x, x, sum) }
    }
}

/// The sum of a term over `n` values.
#[inline(always)]
unsafe fn sum<L: Lanes, T: Term>(x: *const f32, n: usize) -> f32 {
    // SAFETY: at most n - i values are touched from i on.
    unsafe {
        let mut parts = [L::splat(0.0); 4];
        let mut i = 0;
        while n - i >= 4 * LANES {
            for (j, part) in parts.iter_mut().enumerate() {
                *part = T::add_to::<L>(*part, L::load(x.add(i + j * LANES)));
            }
            i += 4 * LANES;
        }
        for part in &mut parts {
            if i < n {
                *part = T::add_to::<L>(*part, load_up_to::<L>(x.add(i), n - i));
                i += LANES;
            }
        }
        L::reduce_add(L::add(L::add(parts[0], parts[1]), L::add(parts[2], parts[3])))
    }
}

#[inline(always)]
unsafe fn rms_norm_with<L: Lanes>(x: *const f32, weight: *const f32, eps: f32, out: *mut f32, n: usize) {
    // SAFETY: at most n - i values are touched from i on.
    unsafe {
        let scale = L::splat(1.0 / (sum::<L, Square>(x, n) / n as f32 + eps).sqrt());
        for i in (0..n).step_by(LANES) {
            let x = L::mul(load_up_to::<L>(x.add(i), n - i), scale);
            store_up_to::<L>(out.add(i), n - i, L::mul(x, load_up_to::<L>(weight.add(i), n - i)));
        }
    }
}

#[inline(always)]
unsafe fn layer_norm_with<L: Lanes>(
    x: *const f32,
    weight: *const f32,
    bias: *const f32,
    eps: f32,
    out: *mut f32,
    n: usize,
) {
    // SAFETY: at most n - i values are touched from i on.
    unsafe {
        let mean = L::splat(sum::<L, Value>(x, n) / n as f32);
        for i in (0..n).step_by(LANES) {
            store_up_to::<L>(out.add(i), n - i, L::sub(load_up_to::<L>(x.add(i), n - i), mean));
        }
        let scale = L::splat(1.0 / (sum::<L, Square>(out, n) / n as f32 + eps).sqrt());
        for i in (0..n).step_by(LANES) {
            let x = L::mul(load_up_to::<L>(out.add(i), n - i), scale);
            let (weight, bias) = (load_up_to::<L>(weight.add(i), n - i), load_up_to::<L>(bias.add(i), n - i));
            store_up_to::<L>(out.add(i), n - i, L::fma(x, weight, bias));
        }
    }
}

#[inline(always)]
unsafe fn softmax_with<L: Lanes>(x: *mut f32, n: usize) {
    // SAFETY: at most n - i values are touched from i on.
    unsafe {
        let mut max = L::splat(f32::NEG_INFINITY);
        let mut i = 0;
        while n - i >= LANES {
            max = L::max(L::load(x.add(i)), max);
            i += LANES;
        }
        let mut max = L::reduce_max(max);
        for i in i..n {
            let value = x.add(i).read();
            max = if value > max { value } else { max };
        }
        for i in (0..n).step_by(LANES) {
            let power = math::exp::<L>(L::sub(load_up_to::<L>(x.add(i), n - i), L::splat(max)));
            store_up_to::<L>(x.add(i), n - i, power);
        }
        let scale = L::splat(1.0 / sum::<L, Value>(x, n));
        for i in (0..n).step_by(LANES) {
            store_up_to::<L>(x.add(i), n - i, L::mul(load_up_to::<L>(x.add(i), n - i), scale));
        }
    }
}
