//! What stands between matrix products: norms, activations, rotary embeddings, sums. One row at a time, vectorised,
//! with the same bits at every level.
//!
//! Every function panics if slices that belong together differ in length, or if the machine cannot run the level.

mod activation;
mod norm;
mod rope;

pub use activation::{Activation, activate, gated, gated_in_place, softcap};
pub use norm::{layer_norm, rms_norm, rms_norm_in_place, softmax};
pub use rope::rope;

use crate::Level;
use crate::lanes::{LANES, Lanes, leveled, load_up_to, store_up_to};

/// `x += y`.
pub fn add(level: Level, x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len());
    // SAFETY: both hold as many values.
    unsafe { add_at(level, x.as_mut_ptr(), y.as_ptr(), x.len()) }
}

/// `x *= factor`.
pub fn scale(level: Level, x: &mut [f32], factor: f32) {
    // SAFETY: `x` holds as many values.
    unsafe { scale_at(level, x.as_mut_ptr(), x.len(), factor) }
}

/// `x += factor * y`, rounded once.
pub fn add_scaled(level: Level, x: &mut [f32], y: &[f32], factor: f32) {
    assert_eq!(x.len(), y.len());
    // SAFETY: both hold as many values.
    unsafe { add_scaled_at(level, x.as_mut_ptr(), y.as_ptr(), x.len(), factor) }
}

/// `x = e^x`, within 1 ulp.
pub fn exp(level: Level, x: &mut [f32]) {
    // SAFETY: `x` holds as many values.
    unsafe { exp_at(level, x.as_mut_ptr(), x.len()) }
}

leveled! {
    /// # Safety
    /// `x` and `y` point to `n` values, `x` to the caller's alone.
    unsafe fn add_at(x: *mut f32, y: *const f32, n: usize) = add_with;
}

leveled! {
    /// # Safety
    /// `x` points to `n` values, the caller's alone.
    unsafe fn scale_at(x: *mut f32, n: usize, factor: f32) = scale_with;
}

leveled! {
    /// # Safety
    /// `x` and `y` point to `n` values, `x` to the caller's alone.
    unsafe fn add_scaled_at(x: *mut f32, y: *const f32, n: usize, factor: f32) = add_scaled_with;
}

leveled! {
    /// # Safety
    /// `x` points to `n` values, the caller's alone.
    unsafe fn exp_at(x: *mut f32, n: usize) = exp_with;
}

#[inline(always)]
unsafe fn add_with<L: Lanes>(x: *mut f32, y: *const f32, n: usize) {
    for i in (0..n).step_by(LANES) {
        // SAFETY: at most n - i values are touched from i on.
        unsafe {
            let sum = L::add(load_up_to::<L>(x.add(i), n - i), load_up_to::<L>(y.add(i), n - i));
            store_up_to::<L>(x.add(i), n - i, sum);
        }
    }
}

#[inline(always)]
unsafe fn scale_with<L: Lanes>(x: *mut f32, n: usize, factor: f32) {
    for i in (0..n).step_by(LANES) {
        // SAFETY: at most n - i values are touched from i on.
        unsafe {
            let scaled = L::mul(load_up_to::<L>(x.add(i), n - i), L::splat(factor));
            store_up_to::<L>(x.add(i), n - i, scaled);
        }
    }
}

#[inline(always)]
unsafe fn add_scaled_with<L: Lanes>(x: *mut f32, y: *const f32, n: usize, factor: f32) {
    for i in (0..n).step_by(LANES) {
        // SAFETY: at most n - i values are touched from i on.
        unsafe {
            let (x_lanes, y_lanes) = (load_up_to::<L>(x.add(i), n - i), load_up_to::<L>(y.add(i), n - i));
            store_up_to::<L>(x.add(i), n - i, L::fma(y_lanes, L::splat(factor), x_lanes));
        }
    }
}

#[inline(always)]
unsafe fn exp_with<L: Lanes>(x: *mut f32, n: usize) {
    for i in (0..n).step_by(LANES) {
        // SAFETY: at most n - i values are touched from i on.
        unsafe {
            let power = crate::lanes::math::exp::<L>(load_up_to::<L>(x.add(i), n - i));
            store_up_to::<L>(x.add(i), n - i, power);
        }
    }
}

#[cfg(test)]
mod tests;
