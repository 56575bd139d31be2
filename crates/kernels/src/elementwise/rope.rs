//! Rotary position embeddings.

use crate::Level;
use crate::lanes::{LANES, Lanes, leveled, load_up_to, store_up_to};

/// Rotates the pairs (i, i + half) of one head by the angles whose cosines and sines are given, half = `cos.len()`:
/// `a = a cos - b sin`, `b = b cos + a sin`. Values from 2 half on stay as they are.
pub fn rope(level: Level, head: &mut [f32], cos: &[f32], sin: &[f32]) {
    assert!(cos.len() == sin.len() && 2 * cos.len() <= head.len());
    // SAFETY: the head holds two halves, and cosines and sines are as many as one.
    unsafe { rope_at(level, head.as_mut_ptr(), cos.as_ptr(), sin.as_ptr(), cos.len()) }
}

leveled! {
    /// # Safety
    /// `head` points to 2 `half` values, the caller's alone; `cos` and `sin` to `half`.
    unsafe fn rope_at(head: *mut f32, cos: *const f32, sin: *const f32, half: usize) = rope_with;
}

#[inline(always)]
unsafe fn rope_with<L: Lanes>(head: *mut f32, cos: *const f32, sin: *const f32, half: usize) {
    for i in (0..half).step_by(LANES) {
        let n = half - i;
        // SAFETY: at most n values are touched from i on, and from half + i on.
        unsafe {
            let (first, second) = (head.add(i), head.add(half + i));
            let (a, b) = (load_up_to::<L>(first, n), load_up_to::<L>(second, n));
            let (cos, sin) = (load_up_to::<L>(cos.add(i), n), load_up_to::<L>(sin.add(i), n));
            store_up_to::<L>(first, n, L::fnma(b, sin, L::mul(a, cos)));
            store_up_to::<L>(second, n, L::fma(a, sin, L::mul(b, cos)));
        }
    }
}
