//! NEON lanes: four registers of four lanes. NEON is part of every aarch64 target that std has.

use std::arch::aarch64::*;
use std::arch::asm;

use super::{LANES, Lanes};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Neon;

/// All four registers through one instruction. Its operations on registers have no precondition but NEON.
macro_rules! each {
    ($op:ident($($arg:ident),*)) => {
        // SAFETY: NEON is part of the target.
        unsafe { [$op($($arg[0]),*), $op($($arg[1]),*), $op($($arg[2]),*), $op($($arg[3]),*)] }
    };
}

/// Sixteen values through memory.
#[inline]
fn array(a: [float32x4_t; 4]) -> [f32; LANES] {
    // SAFETY: four registers of four f32 each are sixteen f32.
    unsafe { std::mem::transmute(a) }
}

impl Lanes for Neon {
    const REGISTERS: usize = 8;

    type F = [float32x4_t; 4];
    type I = [int32x4_t; 4];
    type M = [uint32x4_t; 4];
    #[inline]
    unsafe fn splat(value: f32) -> Self::F {
        // SAFETY: NEON is part of the target.
        [unsafe { vdupq_n_f32(value) }; 4]
    }

    #[inline]
    unsafe fn load(from: *const f32) -> Self::F {
        // SAFETY: the caller's promise.
        unsafe { [vld1q_f32(from), vld1q_f32(from.add(4)), vld1q_f32(from.add(8)), vld1q_f32(from.add(12))] }
    }

    #[inline]
    unsafe fn load_first(from: *const f32, n: usize) -> Self::F {
        let mut values = [0.0_f32; LANES];
        // SAFETY: the caller's promise for the first n < 16.
        unsafe {
            std::ptr::copy_nonoverlapping(from, values.as_mut_ptr(), n);
            Self::load(values.as_ptr())
        }
    }

    #[inline]
    unsafe fn store(to: *mut f32, a: Self::F) {
        // SAFETY: the caller's promise.
        unsafe {
            for (i, part) in a.into_iter().enumerate() {
                vst1q_f32(to.add(4 * i), part);
            }
        }
    }

    #[inline]
    unsafe fn store_first(to: *mut f32, n: usize, a: Self::F) {
        // SAFETY: the caller's promise for the first n < 16.
        unsafe { std::ptr::copy_nonoverlapping(array(a).as_ptr(), to, n) }
    }

    #[inline]
    unsafe fn load_f16(from: *const u16) -> Self::F {
        // SAFETY: the caller's promise for the load; the instruction, which std does not have yet, touches nothing but its
        // registers.
        unsafe {
            std::array::from_fn(|i| {
                let half = vreinterpret_u16_u8(vld1_u8(from.byte_add(8 * i).cast()));
                let x: float32x4_t;
                asm!(
                    "fcvtl {x:v}.4s, {half:v}.4h", x = out(vreg) x, half = in(vreg) half,
                    options(pure, nomem, nostack, preserves_flags)
                );
                x
            })
        }
    }

    #[inline]
    unsafe fn store_f16(to: *mut u16, a: Self::F) {
        for (i, x) in a.into_iter().enumerate() {
            // SAFETY: as above, and the caller's promise for the store.
            unsafe {
                let half: uint16x4_t;
                asm!(
                    "fcvtn {half:v}.4h, {x:v}.4s", half = out(vreg) half, x = in(vreg) x,
                    options(pure, nomem, nostack, preserves_flags)
                );
                vst1_u8(to.byte_add(8 * i).cast(), vreinterpret_u8_u16(half));
            }
        }
    }

    #[inline]
    unsafe fn store_bf16(to: *mut u16, a: Self::F) {
        for (i, x) in a.into_iter().enumerate() {
            // SAFETY: NEON is part of the target, and the caller's promise for the store.
            unsafe {
                let bits = vreinterpretq_u32_f32(x);
                let odd = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
                let rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
                // Of a NaN the highest bits, and one that keeps it a NaN.
                let nan = vorrq_u32(bits, vdupq_n_u32(0x40_0000));
                let rounded = vbslq_u32(vceqq_f32(x, x), rounded, nan);
                vst1_u8(to.byte_add(8 * i).cast(), vreinterpret_u8_u16(vshrn_n_u32::<16>(rounded)));
            }
        }
    }

    #[inline]
    unsafe fn load_bf16_low(from: *const u32) -> Self::F {
        // SAFETY: the caller's promise.
        unsafe {
            std::array::from_fn(|i| {
                let pairs = vreinterpretq_u32_u8(vld1q_u8(from.byte_add(16 * i).cast()));
                vreinterpretq_f32_u32(vshlq_n_u32::<16>(pairs))
            })
        }
    }

    #[inline]
    unsafe fn load_bf16_high(from: *const u32) -> Self::F {
        // SAFETY: the caller's promise.
        unsafe {
            let high = vdupq_n_u32(0xffff_0000);
            std::array::from_fn(|i| {
                let pairs = vreinterpretq_u32_u8(vld1q_u8(from.byte_add(16 * i).cast()));
                vreinterpretq_f32_u32(vandq_u32(pairs, high))
            })
        }
    }

    #[inline]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        each!(vaddq_f32(a, b))
    }

    #[inline]
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
        each!(vsubq_f32(a, b))
    }

    #[inline]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        each!(vmulq_f32(a, b))
    }

    #[inline]
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F {
        each!(vdivq_f32(a, b))
    }

    #[inline]
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        each!(vfmaq_f32(c, a, b))
    }

    #[inline]
    unsafe fn fnma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        each!(vfmsq_f32(c, a, b))
    }

    #[inline]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        let mask = each!(vcgtq_f32(a, b));
        each!(vbslq_f32(mask, a, b))
    }

    #[inline]
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F {
        let mask = each!(vcltq_f32(a, b));
        each!(vbslq_f32(mask, a, b))
    }

    #[inline]
    unsafe fn round(a: Self::F) -> Self::F {
        each!(vrndnq_f32(a))
    }

    #[inline]
    unsafe fn abs(a: Self::F) -> Self::F {
        each!(vabsq_f32(a))
    }

    #[inline]
    unsafe fn with_sign(a: Self::F, sign: Self::F) -> Self::F {
        // SAFETY: NEON is part of the target.
        let bit = [unsafe { vdupq_n_u32(1 << 31) }; 4];
        each!(vbslq_f32(bit, sign, a))
    }

    #[inline]
    unsafe fn greater(a: Self::F, b: Self::F) -> Self::M {
        each!(vcgtq_f32(a, b))
    }

    #[inline]
    unsafe fn select(mask: Self::M, a: Self::F, b: Self::F) -> Self::F {
        each!(vbslq_f32(mask, a, b))
    }

    #[inline]
    unsafe fn bits(mask: Self::M) -> u32 {
        // SAFETY: four registers of four u32 each are sixteen u32.
        let lanes: [u32; LANES] = unsafe { std::mem::transmute(mask) };
        lanes.iter().enumerate().fold(0, |bits, (i, lane)| bits | (lane & 1) << i)
    }

    #[inline]
    unsafe fn reduce_add(a: Self::F) -> f32 {
        // SAFETY: NEON is part of the target.
        unsafe {
            let a = vaddq_f32(vaddq_f32(a[0], a[2]), vaddq_f32(a[1], a[3]));
            let a = vadd_f32(vget_low_f32(a), vget_high_f32(a));
            vget_lane_f32::<0>(a) + vget_lane_f32::<1>(a)
        }
    }

    #[inline]
    unsafe fn reduce_max(a: Self::F) -> f32 {
        // SAFETY: NEON is part of the target.
        unsafe { vmaxvq_f32(vmaxq_f32(vmaxq_f32(a[0], a[1]), vmaxq_f32(a[2], a[3]))) }
    }

    #[inline]
    unsafe fn swap<const N: usize>(a: Self::F) -> Self::F {
        // SAFETY: NEON is part of the target.
        unsafe {
            match N {
                8 => [a[2], a[3], a[0], a[1]],
                4 => [a[1], a[0], a[3], a[2]],
                2 => a.map(|a| vextq_f32::<2>(a, a)),
                _ => a.map(|a| vrev64q_f32(a)),
            }
        }
    }

    #[inline]
    unsafe fn to_int(a: Self::F) -> Self::I {
        each!(vcvtnq_s32_f32(a))
    }

    #[inline]
    unsafe fn float_bits(a: Self::F) -> Self::I {
        each!(vreinterpretq_s32_f32(a))
    }

    #[inline]
    unsafe fn from_bits(a: Self::I) -> Self::F {
        each!(vreinterpretq_f32_s32(a))
    }

    #[inline]
    unsafe fn splat_int(value: i32) -> Self::I {
        // SAFETY: NEON is part of the target.
        [unsafe { vdupq_n_s32(value) }; 4]
    }

    #[inline]
    unsafe fn add_int(a: Self::I, b: Self::I) -> Self::I {
        each!(vaddq_s32(a, b))
    }

    #[inline]
    unsafe fn sub_int(a: Self::I, b: Self::I) -> Self::I {
        each!(vsubq_s32(a, b))
    }

    #[inline]
    unsafe fn max_int(a: Self::I, b: Self::I) -> Self::I {
        each!(vmaxq_s32(a, b))
    }

    #[inline]
    unsafe fn shift_right<const N: u32>(a: Self::I) -> Self::I {
        // SAFETY: NEON is part of the target.
        let by = [unsafe { vdupq_n_s32(-N.cast_signed()) }; 4];
        each!(vshlq_s32(a, by))
    }

    #[inline]
    unsafe fn shift_left<const N: u32>(a: Self::I) -> Self::I {
        // SAFETY: NEON is part of the target.
        let by = [unsafe { vdupq_n_s32(N.cast_signed()) }; 4];
        each!(vshlq_s32(a, by))
    }

    #[inline]
    unsafe fn reduce_add_int(a: Self::I) -> i32 {
        // SAFETY: NEON is part of the target.
        unsafe { vaddvq_s32(vaddq_s32(vaddq_s32(a[0], a[1]), vaddq_s32(a[2], a[3]))) }
    }

    #[inline]
    unsafe fn reduce_max_int(a: Self::I) -> i32 {
        // SAFETY: NEON is part of the target.
        unsafe { vmaxvq_s32(vmaxq_s32(vmaxq_s32(a[0], a[1]), vmaxq_s32(a[2], a[3]))) }
    }

    #[inline]
    unsafe fn store_i8(to: *mut i8, a: Self::I) {
        // SAFETY: the caller's promise.
        unsafe {
            let low = vcombine_s16(vmovn_s32(a[0]), vmovn_s32(a[1]));
            let high = vcombine_s16(vmovn_s32(a[2]), vmovn_s32(a[3]));
            vst1q_s8(to, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
        }
    }
}
