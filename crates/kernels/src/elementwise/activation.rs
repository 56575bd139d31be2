//! Activations, gated or not, and the soft cap of logits.

use crate::Level;
use crate::lanes::{LANES, Lanes, leveled, load_up_to, math, store_up_to};

/// The function between the products of a feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// x / (1 + e^-x), within 3 ulp; 0 where it is below 1e-36.
    Silu,
    /// x / 2 * (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), within 1.5e-7 * max(|x|, 1).
    GeluTanh,
    /// x / 2 * (1 + erf(x / sqrt 2)), within 8 ulp from -3 on, 16 ulp below.
    Gelu,
}

/// `out = activation(gate) * up`.
pub fn gated(level: Level, activation: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(gate.len() == up.len() && up.len() == out.len());
    // SAFETY: all three hold as many values.
    unsafe { gated_at(level, activation, gate.as_ptr(), up.as_ptr(), out.as_mut_ptr(), out.len()) }
}

/// `gate = activation(gate) * up`.
pub fn gated_in_place(level: Level, activation: Activation, gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len());
    let to = gate.as_mut_ptr();
    // SAFETY: both hold as many values.
    unsafe { gated_at(level, activation, to, up.as_ptr(), to, up.len()) }
}

/// `x = activation(x)`.
pub fn activate(level: Level, activation: Activation, x: &mut [f32]) {
    // SAFETY: `x` holds as many values.
    unsafe { activate_at(level, activation, x.as_mut_ptr(), x.len()) }
}

/// `x = cap * tanh(x / cap)`.
pub fn softcap(level: Level, x: &mut [f32], cap: f32) {
    // SAFETY: `x` holds as many values.
    unsafe { softcap_at(level, x.as_mut_ptr(), x.len(), cap) }
}

leveled! {
    /// # Safety
    /// All point to `n` values, `out` to the caller's alone; `gate` may be `out`.
    unsafe fn gated_at(
        activation: Activation,
        gate: *const f32,
        up: *const f32,
        out: *mut f32,
        n: usize,
    ) = gated_with;
}

leveled! {
    /// # Safety
    /// `x` points to `n` values, the caller's alone.
    unsafe fn activate_at(activation: Activation, x: *mut f32, n: usize) = activate_with;
}

leveled! {
    /// # Safety
    /// `x` points to `n` values, the caller's alone.
    unsafe fn softcap_at(x: *mut f32, n: usize, cap: f32) = softcap_with;
}

/// The same loop for every activation, chosen outside of it.
macro_rules! of_activation {
    ($activation:expr, $body:ident($($arg:expr),*)) => {
        match $activation {
            Activation::Silu => $body::<L, Silu>($($arg),*),
            Activation::GeluTanh => $body::<L, GeluTanh>($($arg),*),
            Activation::Gelu => $body::<L, Gelu>($($arg),*),
        }
    };
}

#[inline(always)]
unsafe fn gated_with<L: Lanes>(activation: Activation, gate: *const f32, up: *const f32, out: *mut f32, n: usize) {
    // SAFETY: the caller's promises.
    unsafe { of_activation!(activation, gated_by(gate, up, out, n)) }
}

#[inline(always)]
unsafe fn activate_with<L: Lanes>(activation: Activation, x: *mut f32, n: usize) {
    // SAFETY: the caller's promises.
    unsafe { of_activation!(activation, activate_by(x, n)) }
}

#[inline(always)]
unsafe fn gated_by<L: Lanes, A: Apply>(gate: *const f32, up: *const f32, out: *mut f32, n: usize) {
    for i in (0..n).step_by(LANES) {
        // SAFETY: at most n - i values are touched from i on.
        unsafe {
            let active = A::apply::<L>(load_up_to::<L>(gate.add(i), n - i));
            store_up_to::<L>(out.add(i), n - i, L::mul(active, load_up_to::<L>(up.add(i), n - i)));
        }
    }
}

#[inline(always)]
unsafe fn activate_by<L: Lanes, A: Apply>(x: *mut f32, n: usize) {
    for i in (0..n).step_by(LANES) {
        // SAFETY: at most n - i values are touched from i on.
        unsafe { store_up_to::<L>(x.add(i), n - i, A::apply::<L>(load_up_to::<L>(x.add(i), n - i))) }
    }
}

#[inline(always)]
unsafe fn softcap_with<L: Lanes>(x: *mut f32, n: usize, cap: f32) {
    for i in (0..n).step_by(LANES) {
        // SAFETY: at most n - i values are touched from i on.
        unsafe {
            let ratio = L::div(load_up_to::<L>(x.add(i), n - i), L::splat(cap));
            store_up_to::<L>(x.add(i), n - i, L::mul(math::tanh::<L>(ratio), L::splat(cap)));
        }
    }
}

/// An activation of sixteen values.
trait Apply {
    /// # Safety
    /// As of [`Lanes`].
    unsafe fn apply<L: Lanes>(x: L::F) -> L::F;
}

struct Silu;
struct GeluTanh;
struct Gelu;

impl Apply for Silu {
    #[inline(always)]
    unsafe fn apply<L: Lanes>(x: L::F) -> L::F {
        // SAFETY: the caller's promises.
        unsafe { math::silu::<L>(x) }
    }
}

impl Apply for GeluTanh {
    #[inline(always)]
    unsafe fn apply<L: Lanes>(x: L::F) -> L::F {
        // SAFETY: the caller's promises.
        unsafe { math::gelu_tanh::<L>(x) }
    }
}

impl Apply for Gelu {
    #[inline(always)]
    unsafe fn apply<L: Lanes>(x: L::F) -> L::F {
        // SAFETY: the caller's promises.
        unsafe { math::gelu::<L>(x) }
    }
}
