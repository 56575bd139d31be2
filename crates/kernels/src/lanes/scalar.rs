//! Portable lanes: the definition.

use half::{bf16, f16};

use super::{LANES, Lanes};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Scalar;

#[inline(always)]
fn map<T: Copy, U>(a: [T; LANES], f: impl Fn(T) -> U) -> [U; LANES] {
    std::array::from_fn(|i| f(a[i]))
}

#[inline(always)]
fn zip<T: Copy, U>(a: [T; LANES], b: [T; LANES], f: impl Fn(T, T) -> U) -> [U; LANES] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Lanes for Scalar {
    const REGISTERS: usize = 4;

    type F = [f32; LANES];
    type I = [i32; LANES];
    type M = [bool; LANES];

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::F {
        [value; LANES]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::F {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<Self::F>().read() }
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> Self::F {
        // SAFETY: the caller's promise, for the first n.
        std::array::from_fn(|i| if i < n { unsafe { from.add(i).read() } } else { 0.0 })
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, a: Self::F) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<Self::F>().write(a) }
    }

    #[inline(always)]
    unsafe fn store_first(to: *mut f32, n: usize, a: Self::F) {
        for (i, value) in a.into_iter().enumerate().take(n) {
            // SAFETY: the caller's promise, for the first n.
            unsafe { to.add(i).write(value) }
        }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self::F {
        // SAFETY: the caller's promise.
        map(unsafe { from.cast::<[u16; LANES]>().read_unaligned() }, |bits| f16::from_bits(bits).to_f32())
    }

    #[inline(always)]
    unsafe fn store_f16(to: *mut u16, a: Self::F) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[u16; LANES]>().write_unaligned(a.map(|x| f16::from_f32(x).to_bits())) }
    }

    #[inline(always)]
    unsafe fn store_bf16(to: *mut u16, a: Self::F) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[u16; LANES]>().write_unaligned(a.map(|x| bf16::from_f32(x).to_bits())) }
    }

    #[inline(always)]
    unsafe fn load_bf16_low(from: *const u32) -> Self::F {
        // SAFETY: the caller's promise.
        map(unsafe { from.cast::<[u32; LANES]>().read_unaligned() }, |pair| f32::from_bits(pair << 16))
    }

    #[inline(always)]
    unsafe fn load_bf16_high(from: *const u32) -> Self::F {
        // SAFETY: the caller's promise.
        map(unsafe { from.cast::<[u32; LANES]>().read_unaligned() }, |pair| f32::from_bits(pair & 0xffff_0000))
    }

    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a / b)
    }

    #[inline(always)]
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }

    #[inline(always)]
    unsafe fn fnma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        std::array::from_fn(|i| (-a[i]).mul_add(b[i], c[i]))
    }

    #[inline(always)]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    unsafe fn round(a: Self::F) -> Self::F {
        map(a, f32::round_ties_even)
    }

    #[inline(always)]
    unsafe fn abs(a: Self::F) -> Self::F {
        map(a, f32::abs)
    }

    #[inline(always)]
    unsafe fn with_sign(a: Self::F, sign: Self::F) -> Self::F {
        zip(a, sign, f32::copysign)
    }

    #[inline(always)]
    unsafe fn greater(a: Self::F, b: Self::F) -> Self::M {
        zip(a, b, |a, b| a > b)
    }

    #[inline(always)]
    unsafe fn select(mask: Self::M, a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|i| if mask[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    unsafe fn bits(mask: Self::M) -> u32 {
        mask.iter().enumerate().fold(0, |bits, (i, &set)| bits | u32::from(set) << i)
    }

    #[inline(always)]
    unsafe fn reduce_add(mut a: Self::F) -> f32 {
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                a[i] += a[i + half];
            }
        }
        a[0]
    }

    #[inline(always)]
    unsafe fn reduce_max(a: Self::F) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    #[inline(always)]
    unsafe fn swap<const N: usize>(a: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i ^ N])
    }

    #[inline(always)]
    unsafe fn to_int(a: Self::F) -> Self::I {
        map(a, |a| a as i32)
    }

    #[inline(always)]
    unsafe fn float_bits(a: Self::F) -> Self::I {
        map(a, |a| a.to_bits().cast_signed())
    }

    #[inline(always)]
    unsafe fn from_bits(a: Self::I) -> Self::F {
        map(a, |a| f32::from_bits(a.cast_unsigned()))
    }

    #[inline(always)]
    unsafe fn splat_int(value: i32) -> Self::I {
        [value; LANES]
    }

    #[inline(always)]
    unsafe fn add_int(a: Self::I, b: Self::I) -> Self::I {
        zip(a, b, i32::wrapping_add)
    }

    #[inline(always)]
    unsafe fn sub_int(a: Self::I, b: Self::I) -> Self::I {
        zip(a, b, i32::wrapping_sub)
    }

    #[inline(always)]
    unsafe fn max_int(a: Self::I, b: Self::I) -> Self::I {
        zip(a, b, i32::max)
    }

    #[inline(always)]
    unsafe fn shift_right<const N: u32>(a: Self::I) -> Self::I {
        map(a, |a| a >> N)
    }

    #[inline(always)]
    unsafe fn shift_left<const N: u32>(a: Self::I) -> Self::I {
        map(a, |a| a << N)
    }

    #[inline(always)]
    unsafe fn reduce_add_int(a: Self::I) -> i32 {
        a.into_iter().fold(0, i32::wrapping_add)
    }

    #[inline(always)]
    unsafe fn reduce_max_int(a: Self::I) -> i32 {
        a.into_iter().fold(i32::MIN, i32::max)
    }

    #[inline(always)]
    unsafe fn store_i8(to: *mut i8, a: Self::I) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[i8; LANES]>().write(map(a, |a| a as i8)) }
    }
}
