//! AVX-512 VNNI: one register is 16 positions x 4 dimensions of keys, or 16 dimensions x 4 positions of values.

use std::arch::x86_64::*;

use super::numbers::Codes;
use crate::attention::avx512::{
    LANES, PER_PAGE, V, add, finish, fma, fold, if_less, largest, load, load_half, max, max_page, mul, read, splat,
    store, sum_page, weights, write_lanes,
};
use crate::lanes::Avx512 as Level;

const TILE_ROWS: usize = 12;
const CODES: Codes = Codes::Planes;

byte_kernels!("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c");

type I = __m512i;
type Bytes = __m512i;
/// High and low plane.
type Pair = [__m512i; 2];

macro_rules! operations {
    ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty = $body:expr;)*) => {$(
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
        #[inline]
        fn $name($($arg: $type),*) -> $result {
            $body
        }
    )*};
}

operations! {
    none() -> I = _mm512_setzero_si512();
    zero_bytes() -> Bytes = _mm512_setzero_si512();
    dot_keys(sums: [I; 2], keys: Bytes, q: Pair) -> [I; 2] = [
        _mm512_dpbusd_epi32(sums[0], keys, q[0]),
        _mm512_dpbusd_epi32(sums[1], keys, q[1]),
    ];
    dot_values(sums: [I; 2], values: Bytes, w: Pair) -> [I; 2] = [
        _mm512_dpbusd_epi32(sums[0], w[0], values),
        _mm512_dpbusd_epi32(sums[1], w[1], values),
    ];
    total(sums: [I; 2]) -> I = _mm512_add_epi32(_mm512_slli_epi32::<8>(sums[0]), sums[1]);
    less(a: I, b: i32) -> I = _mm512_sub_epi32(a, _mm512_set1_epi32(b));
    to_float(a: I) -> V = _mm512_cvtepi32_ps(a);
}

/// # Safety
/// 64 bytes can be read there.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn load_keys(from: *const u8) -> Bytes {
    // SAFETY: by contract.
    unsafe { _mm512_loadu_si512(from.cast()) }
}

/// # Safety
/// 64 bytes can be read there.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn load_values(from: *const u8) -> Bytes {
    // SAFETY: by contract.
    unsafe { _mm512_loadu_si512(from.cast()) }
}

/// # Safety
/// 8 bytes can be read there.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn load_query(from: *const u8) -> Pair {
    let from = from.cast::<i32>();
    // SAFETY: by contract.
    unsafe { [_mm512_set1_epi32(from.read_unaligned()), _mm512_set1_epi32(from.add(1).read_unaligned())] }
}

/// The weights of four positions.
///
/// # Safety
/// `page` is what [`store_weights`] wrote, and has this group.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn load_weights(page: *const u8, group: usize) -> Pair {
    let from = page.cast::<i32>();
    // SAFETY: by contract.
    unsafe { [_mm512_set1_epi32(from.add(group).read()), _mm512_set1_epi32(from.add(4 + group).read())] }
}

/// The integers in the low bits of `w`, each as two bytes: 256 times the first, all of them, and the second.
///
/// # Safety
/// 32 bytes can be written there.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
unsafe fn store_weights(to: *mut u8, [w]: [V; PER_PAGE]) {
    let w = _mm512_castps_si512(w);
    // SAFETY: by contract.
    unsafe {
        _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(_mm512_srli_epi32::<8>(w)));
        _mm_storeu_si128(to.add(16).cast(), _mm512_cvtepi32_epi8(w));
    }
}

/// # Safety
/// `n` f32, or 16 if there are more, can be written there.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn store_up_to(to: *mut f32, n: usize, x: V) {
    let mask = if n >= LANES { u16::MAX } else { (1 << n) - 1 };
    // SAFETY: by contract.
    unsafe { _mm512_mask_storeu_ps(to, mask, x) }
}

/// # Safety
/// As `dots`, with up to 12 rows and at least one column from `column` on.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn scores_of_columns(rows: usize, pages: Pages<'_>, query: &Query, column: usize, scores: *mut f32) -> usize {
    let left = pages.pages.len() * PER_PAGE - column;
    // SAFETY: by contract; no more columns are taken than there are.
    unsafe {
        choose!(
            rows, left, dots(pages, query, column, scores),
            1 by 4, 2 by 4, 3 by 4, 4 by 2, 5 by 2, 6 by 2, 7 by 1, 8 by 1, 9 by 1, 10 by 1, 11 by 1, else 12 by 1
        )
    }
}

/// # Safety
/// As `weigh`, with 1 to 6 rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn values_of_rows(
    rows: usize,
    pages: Pages<'_>,
    d0: usize,
    scores: *const f32,
    scales: *const f32,
    out: *mut f32,
) -> usize {
    let left = (pages.head_dim - d0).div_ceil(LANES);
    // SAFETY: by contract; no more registers are taken than hold the dimensions that are left.
    unsafe {
        choose!(
            rows, left, weigh(pages, d0, scores, scales, out),
            1 by 4, 2 by 4, 3 by 4, 4 by 2, 5 by 2, else 6 by 2
        )
    }
}
