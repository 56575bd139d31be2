//! Sixteen f32 at a time, the same at every level: what element-wise kernels are written in once.
//!
//! A kernel is a generic `#[inline(always)]` function over [`Lanes`]; [`leveled!`] makes of it one function per
//! instruction set, into which the kernel and the operations inline, and one that calls the right one of them. Every
//! operation gives the same bits for every implementation (of a NaN, only that it is one), so kernels do too.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod math;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
#[cfg(test)]
mod tests;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Neon;
pub(crate) use scalar::Scalar;

/// Lanes of one vector.
pub(crate) const LANES: usize = 16;

/// Operations on sixteen f32 or i32.
///
/// # Safety
/// Of every function: the machine has the implementation's instructions, and pointers are valid for what is read or
/// written through them (they need no alignment beyond their type's, `u32` and `i8` pointers none).
pub(crate) trait Lanes: Copy {
    /// How many vectors of 16 f32 the registers hold.
    const REGISTERS: usize;
    /// 16 f32.
    type F: Copy;
    /// 16 i32.
    type I: Copy;
    /// 16 booleans.
    type M: Copy;

    unsafe fn splat(value: f32) -> Self::F;
    unsafe fn load(from: *const f32) -> Self::F;
    /// The first `n` < 16 values, the other lanes 0; nothing behind them is read.
    unsafe fn load_first(from: *const f32, n: usize) -> Self::F;
    unsafe fn store(to: *mut f32, a: Self::F);
    /// The first `n` < 16 values; nothing behind them is written.
    unsafe fn store_first(to: *mut f32, n: usize, a: Self::F);
    /// 16 values of IEEE half precision.
    unsafe fn load_f16(from: *const u16) -> Self::F;
    /// Rounded to IEEE half precision, ties to even.
    unsafe fn store_f16(to: *mut u16, a: Self::F);
    /// Rounded to bf16, ties to even.
    unsafe fn store_bf16(to: *mut u16, a: Self::F);
    /// Of 16 pairs of bf16 those in the low halves.
    unsafe fn load_bf16_low(from: *const u32) -> Self::F;
    /// Of 16 pairs of bf16 those in the high halves.
    unsafe fn load_bf16_high(from: *const u32) -> Self::F;

    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `c - a * b`, rounded once.
    unsafe fn fnma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `if a > b { a } else { b }`: b where one is NaN.
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    /// `if a < b { a } else { b }`: b where one is NaN.
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F;
    /// To the nearest integer, ties to even.
    unsafe fn round(a: Self::F) -> Self::F;
    unsafe fn abs(a: Self::F) -> Self::F;
    /// The magnitude of `a` with the sign of `sign`; `a` is not negative.
    unsafe fn with_sign(a: Self::F, sign: Self::F) -> Self::F;
    /// `a > b`: false where one is NaN.
    unsafe fn greater(a: Self::F, b: Self::F) -> Self::M;
    /// `a` where the mask is set, else `b`.
    unsafe fn select(mask: Self::M, a: Self::F, b: Self::F) -> Self::F;
    /// The mask, lane i in bit i.
    unsafe fn bits(mask: Self::M) -> u32;
    /// The sum by halving: lane i + lane i+8, then +4, +2, +1.
    unsafe fn reduce_add(a: Self::F) -> f32;
    /// The greatest lane; no lane is NaN.
    unsafe fn reduce_max(a: Self::F) -> f32;
    /// Lane i of lane `i ^ N`, N being 8, 4, 2 or 1: neighbours change places.
    unsafe fn swap<const N: usize>(a: Self::F) -> Self::F;

    /// Of integral values that fit an i32; anything else gives any integer.
    unsafe fn to_int(a: Self::F) -> Self::I;
    /// The bits of the floats.
    unsafe fn float_bits(a: Self::F) -> Self::I;
    /// The floats with these bits.
    unsafe fn from_bits(a: Self::I) -> Self::F;
    unsafe fn splat_int(value: i32) -> Self::I;
    /// Wrapping.
    unsafe fn add_int(a: Self::I, b: Self::I) -> Self::I;
    /// Wrapping.
    unsafe fn sub_int(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn max_int(a: Self::I, b: Self::I) -> Self::I;
    /// Arithmetic.
    unsafe fn shift_right<const N: u32>(a: Self::I) -> Self::I;
    unsafe fn shift_left<const N: u32>(a: Self::I) -> Self::I;
    /// The sum, wrapping.
    unsafe fn reduce_add_int(a: Self::I) -> i32;
    unsafe fn reduce_max_int(a: Self::I) -> i32;
    /// 16 values from -128 to 127, as bytes.
    unsafe fn store_i8(to: *mut i8, a: Self::I);
}

/// The first `n` values (16, if there are more), the other lanes 0.
///
/// # Safety
/// As of [`Lanes`].
#[inline(always)]
pub(crate) unsafe fn load_up_to<L: Lanes>(from: *const f32, n: usize) -> L::F {
    // SAFETY: the caller's promises.
    unsafe { if n >= LANES { L::load(from) } else { L::load_first(from, n) } }
}

/// Stores the first `n` values, or all 16 if `n` is more.
///
/// # Safety
/// As of [`Lanes`].
#[inline(always)]
pub(crate) unsafe fn store_up_to<L: Lanes>(to: *mut f32, n: usize, a: L::F) {
    // SAFETY: the caller's promises.
    unsafe { if n >= LANES { L::store(to, a) } else { L::store_first(to, n, a) } }
}

/// Asks for a cache line that will be read soon. Any address will do.
#[inline(always)]
pub(crate) fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which never faults; SSE is part of the target.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Makes `unsafe fn name(level, …)` of a generic kernel: it runs the kernel with the instructions of `level`, and panics
/// if the machine lacks them. What else the caller must promise is what the kernel asks.
macro_rules! leveled {
    (
        $(#[$meta:meta])*
        $vis:vis unsafe fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)? = $kernel:ident;
    ) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "the kernel's arguments and a level")]
        $vis unsafe fn $name(level: $crate::Level, $($arg: $type),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn avx2($($arg: $type),*) $(-> $ret)? {
                // SAFETY: the features are enabled here; the rest is the caller's promise.
                unsafe { $kernel::<$crate::lanes::Avx2>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
            unsafe fn avx512($($arg: $type),*) $(-> $ret)? {
                // SAFETY: the features are enabled here; the rest is the caller's promise.
                unsafe { $kernel::<$crate::lanes::Avx512>($($arg),*) }
            }
            match level.checked() {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the machine runs this level; the rest is the caller's promise.
                $crate::Level::Avx2 | $crate::Level::AvxVnni => unsafe { avx2($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the machine runs this level; the rest is the caller's promise.
                $crate::Level::Vnni | $crate::Level::Amx => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "aarch64")]
                // SAFETY: every aarch64 target that std has knows NEON; the rest is the caller's promise.
                $crate::Level::Neon | $crate::Level::I8mm => unsafe { $kernel::<$crate::lanes::Neon>($($arg),*) },
                // SAFETY: portable code; the rest is the caller's promise.
                _ => unsafe { $kernel::<$crate::lanes::Scalar>($($arg),*) },
            }
        }
    };
}
pub(crate) use leveled;
