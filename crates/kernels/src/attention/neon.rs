//! Attention with NEON: 32 registers of 4 f32.

use std::arch::aarch64::*;
use std::arch::asm;

pub(super) type V = float32x4_t;
pub(super) const LANES: usize = 4;
pub(super) const PER_PAGE: usize = 4;
const TILE_ROWS: usize = 6;

tile_kernels!("neon");

macro_rules! operations {
    ($($name:ident($($arg:ident),*) = $body:expr;)*) => {$(
        #[target_feature(enable = "neon")]
        #[inline]
        pub(super) fn $name($($arg: V),*) -> V {
            $body
        }
    )*};
}

operations! {
    add(a, b) = vaddq_f32(a, b);
    sub(a, b) = vsubq_f32(a, b);
    mul(a, b) = vmulq_f32(a, b);
    div(a, b) = vdivq_f32(a, b);
    max(a, b) = vbslq_f32(vcgtq_f32(a, b), a, b);
    fma(a, b, c) = vfmaq_f32(c, a, b);
    if_less(a, b, x, y) = vbslq_f32(vcltq_f32(a, b), x, y);
    power(shifted) = vreinterpretq_f32_u32(vaddq_u32(
        vshlq_n_u32::<23>(vreinterpretq_u32_f32(shifted)),
        vdupq_n_u32(0x3F80_0000),
    ));
}

#[target_feature(enable = "neon")]
#[inline]
pub(super) fn lane_numbers() -> V {
    let numbers = [0.0f32, 1.0, 2.0, 3.0];
    // SAFETY: four f32.
    unsafe { load(numbers.as_ptr()) }
}

#[target_feature(enable = "neon")]
#[inline]
pub(super) fn splat(x: f32) -> V {
    vdupq_n_f32(x)
}

/// # Safety
/// 4 f32 can be read there.
#[target_feature(enable = "neon")]
#[inline]
pub(super) unsafe fn load(from: *const f32) -> V {
    // SAFETY: by contract.
    unsafe { vld1q_f32(from) }
}

/// # Safety
/// 4 f32 can be written there.
#[target_feature(enable = "neon")]
#[inline]
pub(super) unsafe fn store(to: *mut f32, x: V) {
    // SAFETY: by contract.
    unsafe { vst1q_f32(to, x) }
}

/// The conversions are in every aarch64, but their intrinsics are not in stable Rust.
///
/// # Safety
/// 4 f16 can be read there.
#[target_feature(enable = "neon")]
#[inline]
pub(super) unsafe fn load_half(from: *const u16) -> V {
    let x: V;
    // SAFETY: the load by contract; the instruction touches nothing but its registers.
    unsafe {
        let half = vld1_u16(from);
        asm!(
            "fcvtl {x:v}.4s, {half:v}.4h", x = out(vreg) x, half = in(vreg) half,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    x
}

/// # Safety
/// 4 f16 can be written there.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn store_half(to: *mut u16, x: V) {
    let half: uint16x4_t;
    // SAFETY: the instruction touches nothing but its registers; the store by contract.
    unsafe {
        asm!(
            "fcvtn {half:v}.4h, {x:v}.4s", half = out(vreg) half, x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags)
        );
        vst1_u16(to, half);
    }
}

#[target_feature(enable = "neon")]
#[inline]
pub(super) fn sum_page([a, b, c, d]: [V; PER_PAGE]) -> f32 {
    let x = vaddq_f32(vaddq_f32(a, c), vaddq_f32(b, d));
    let x = vadd_f32(vget_low_f32(x), vget_high_f32(x));
    vget_lane_f32::<0>(x) + vget_lane_f32::<1>(x)
}

#[target_feature(enable = "neon")]
#[inline]
pub(super) fn max_page([a, b, c, d]: [V; PER_PAGE]) -> f32 {
    let x = max(max(a, c), max(b, d));
    let x = [vgetq_lane_f32::<0>(x), vgetq_lane_f32::<1>(x), vgetq_lane_f32::<2>(x), vgetq_lane_f32::<3>(x)];
    math::max(math::max(x[0], x[2]), math::max(x[1], x[3]))
}

/// # Safety
/// As `dots`, with up to 6 rows and at least one page.
#[target_feature(enable = "neon")]
unsafe fn scores_of_pages(
    rows: usize,
    q: *const f32,
    pages: &[*const u16],
    ahead: &[*const u16],
    head_dim: usize,
    scores: *mut f32,
) -> usize {
    // SAFETY: by contract; two pages are taken only where there are two.
    unsafe {
        match rows {
            1 if pages.len() > 1 => dots::<1, 2>(q, pages, ahead, head_dim, scores),
            1 => dots::<1, 1>(q, pages, ahead, head_dim, scores),
            2 => dots::<2, 1>(q, pages, ahead, head_dim, scores),
            3 => dots::<3, 1>(q, pages, ahead, head_dim, scores),
            4 => dots::<4, 1>(q, pages, ahead, head_dim, scores),
            5 => dots::<5, 1>(q, pages, ahead, head_dim, scores),
            _ => dots::<6, 1>(q, pages, ahead, head_dim, scores),
        }
    }
}

/// # Safety
/// As `weigh`, with 1 to 6 rows and at least 8 dimensions, in eights, from `d0` on.
#[target_feature(enable = "neon")]
unsafe fn values_of_rows(
    rows: usize,
    values: Values<'_>,
    d0: usize,
    from: usize,
    to: usize,
    scores: *const f32,
    out: *mut f32,
) -> usize {
    let left = (values.head_dim - d0) / LANES;
    // SAFETY: by contract; no more vectors are taken than there are.
    unsafe {
        match rows {
            1 if left >= 8 => weigh::<1, 8>(values, d0, from, to, scores, out),
            1 => weigh::<1, 2>(values, d0, from, to, scores, out),
            2 if left >= 8 => weigh::<2, 8>(values, d0, from, to, scores, out),
            2 => weigh::<2, 2>(values, d0, from, to, scores, out),
            3 if left >= 4 => weigh::<3, 4>(values, d0, from, to, scores, out),
            3 => weigh::<3, 2>(values, d0, from, to, scores, out),
            4 if left >= 4 => weigh::<4, 4>(values, d0, from, to, scores, out),
            4 => weigh::<4, 2>(values, d0, from, to, scores, out),
            5 if left >= 4 => weigh::<5, 4>(values, d0, from, to, scores, out),
            5 => weigh::<5, 2>(values, d0, from, to, scores, out),
            _ if left >= 4 => weigh::<6, 4>(values, d0, from, to, scores, out),
            _ => weigh::<6, 2>(values, d0, from, to, scores, out),
        }
    }
}

/// Never called: heads are multiples of 8.
///
/// # Safety
/// None is needed.
#[target_feature(enable = "neon")]
unsafe fn values_tail(_: usize, _: Values<'_>, _: usize, _: usize, _: usize, _: *const f32, _: *mut f32) {}
