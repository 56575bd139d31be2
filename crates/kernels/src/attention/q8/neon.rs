//! NEON with the dot product instructions: one register is 4 positions x 4 dimensions of keys, or 4 dimensions x 4
//! positions of values.

use std::arch::aarch64::*;
use std::arch::asm;

use super::numbers::Codes;
use crate::attention::neon::{
    LANES, PER_PAGE, V, add, finish, fma, fold, if_less, largest, load, load_half, max, max_page, mul, read, splat,
    store, sum_page, weights, write_lanes,
};
use crate::lanes::Neon as Level;

const TILE_ROWS: usize = 6;
const CODES: Codes = Codes::Planes;

byte_kernels!("neon,dotprod");

type I = int32x4_t;
type Bytes = int8x16_t;
/// High and low plane.
type Pair = [int8x16_t; 2];

macro_rules! operations {
    ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty = $body:expr;)*) => {$(
        #[target_feature(enable = "neon,dotprod")]
        #[inline]
        fn $name($($arg: $type),*) -> $result {
            $body
        }
    )*};
}

operations! {
    none() -> I = vdupq_n_s32(0);
    zero_bytes() -> Bytes = vdupq_n_s8(0);
    dot_keys(sums: [I; 2], keys: Bytes, q: Pair) -> [I; 2] = [sdot(sums[0], keys, q[0]), sdot(sums[1], keys, q[1])];
    dot_values(sums: [I; 2], values: Bytes, w: Pair) -> [I; 2] = dot_keys(sums, values, w);
    total(sums: [I; 2]) -> I = vaddq_s32(vshlq_n_s32::<8>(sums[0]), sums[1]);
    // Keys are loaded as signed bytes, so nothing is in excess.
    less(a: I, _excess: i32) -> I = a;
    to_float(a: I) -> V = vcvtq_f32_s32(a);
}

/// Adds products of four bytes each to four sums. Its intrinsic is not in stable Rust.
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn sdot(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction touches nothing but its registers.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// # Safety
/// 16 bytes can be read there.
#[target_feature(enable = "neon,dotprod")]
#[inline]
unsafe fn load_keys(from: *const u8) -> Bytes {
    // SAFETY: by contract.
    vreinterpretq_s8_u8(veorq_u8(unsafe { vld1q_u8(from) }, vdupq_n_u8(0x80)))
}

/// # Safety
/// 16 bytes can be read there.
#[target_feature(enable = "neon,dotprod")]
#[inline]
unsafe fn load_values(from: *const u8) -> Bytes {
    // SAFETY: by contract.
    unsafe { vld1q_s8(from.cast()) }
}

/// # Safety
/// 8 bytes can be read there.
#[target_feature(enable = "neon,dotprod")]
#[inline]
unsafe fn load_query(from: *const u8) -> Pair {
    let from = from.cast::<i32>();
    // SAFETY: by contract.
    unsafe { [vreinterpretq_s8_s32(vld1q_dup_s32(from)), vreinterpretq_s8_s32(vld1q_dup_s32(from.add(1)))] }
}

/// The weights of four positions.
///
/// # Safety
/// `page` is what [`store_weights`] wrote, and has this group.
#[target_feature(enable = "neon,dotprod")]
#[inline]
unsafe fn load_weights(page: *const u8, group: usize) -> Pair {
    let from = page.cast::<i32>().wrapping_add(group);
    // SAFETY: by contract.
    unsafe { [vreinterpretq_s8_s32(vld1q_dup_s32(from)), vreinterpretq_s8_s32(vld1q_dup_s32(from.add(4)))] }
}

/// The integers in the low bits of `w`, each as two signed bytes: 256 times the first, all of them, and the second.
///
/// # Safety
/// 32 bytes can be written there.
#[target_feature(enable = "neon,dotprod")]
#[inline]
unsafe fn store_weights(to: *mut u8, w: [V; PER_PAGE]) {
    let words = |a: V, b: V| vcombine_u16(vmovn_u32(vreinterpretq_u32_f32(a)), vmovn_u32(vreinterpretq_u32_f32(b)));
    let [a, b] = [words(w[0], w[1]), words(w[2], w[3])];
    // What the second, signed, lacks where it is negative.
    let high = |x| vshrn_n_u16::<8>(vaddq_u16(x, vdupq_n_u16(128)));
    // SAFETY: by contract.
    unsafe {
        vst1q_u8(to, vcombine_u8(high(a), high(b)));
        vst1q_u8(to.add(16), vcombine_u8(vmovn_u16(a), vmovn_u16(b)));
    }
}

/// # Safety
/// 4 f32 can be written there: heads are multiples of 8.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn store_up_to(to: *mut f32, _: usize, x: V) {
    // SAFETY: by contract.
    unsafe { store(to, x) }
}

/// # Safety
/// As `dots`, with up to 6 rows and at least one column from `column` on.
#[target_feature(enable = "neon,dotprod")]
unsafe fn scores_of_columns(rows: usize, pages: Pages<'_>, query: &Query, column: usize, scores: *mut f32) -> usize {
    let left = pages.pages.len() * PER_PAGE - column;
    // SAFETY: by contract; no more columns are taken than there are.
    unsafe {
        choose!(
            rows, left, dots(pages, query, column, scores),
            1 by 4, 2 by 4, 3 by 4, 4 by 2, 5 by 2, else 6 by 2
        )
    }
}

/// # Safety
/// As `weigh`, with 1 to 6 rows.
#[target_feature(enable = "neon,dotprod")]
unsafe fn values_of_rows(
    rows: usize,
    pages: Pages<'_>,
    d0: usize,
    scores: *const f32,
    scales: *const f32,
    out: *mut f32,
) -> usize {
    let left = (pages.head_dim - d0) / LANES;
    // SAFETY: by contract; no more registers are taken than hold the dimensions that are left.
    unsafe {
        choose!(
            rows, left, weigh(pages, d0, scores, scales, out),
            1 by 4, 2 by 4, 3 by 4, 4 by 2, 5 by 2, else 6 by 2
        )
    }
}
