//! AVX-VNNI: one register is 8 positions x 4 dimensions of keys, or 8 dimensions x 4 positions of values.

use std::arch::x86_64::*;

use super::numbers::Codes;
use crate::attention::avx2::{
    LANES, PER_PAGE, V, add, finish, fma, fold, if_less, largest, load, load_half, max, max_page, mul, read, splat,
    store, sum_page, weights, write_lanes,
};
use crate::lanes::Avx2 as Level;

const TILE_ROWS: usize = 6;
const CODES: Codes = Codes::Planes;

byte_kernels!("avx2,fma,f16c,avxvnni");

type I = __m256i;
type Bytes = __m256i;
/// High and low plane.
type Pair = [__m256i; 2];

macro_rules! operations {
    ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty = $body:expr;)*) => {$(
        #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
        #[inline]
        fn $name($($arg: $type),*) -> $result {
            $body
        }
    )*};
}

operations! {
    none() -> I = _mm256_setzero_si256();
    zero_bytes() -> Bytes = _mm256_setzero_si256();
    dot_keys(sums: [I; 2], keys: Bytes, q: Pair) -> [I; 2] = [
        _mm256_dpbusd_avx_epi32(sums[0], keys, q[0]),
        _mm256_dpbusd_avx_epi32(sums[1], keys, q[1]),
    ];
    dot_values(sums: [I; 2], values: Bytes, w: Pair) -> [I; 2] = [
        _mm256_dpbusd_avx_epi32(sums[0], w[0], values),
        _mm256_dpbusd_avx_epi32(sums[1], w[1], values),
    ];
    total(sums: [I; 2]) -> I = _mm256_add_epi32(_mm256_slli_epi32::<8>(sums[0]), sums[1]);
    less(a: I, b: i32) -> I = _mm256_sub_epi32(a, _mm256_set1_epi32(b));
    to_float(a: I) -> V = _mm256_cvtepi32_ps(a);
}

/// # Safety
/// 32 bytes can be read there.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn load_keys(from: *const u8) -> Bytes {
    // SAFETY: by contract.
    unsafe { _mm256_loadu_si256(from.cast()) }
}

/// # Safety
/// 32 bytes can be read there.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn load_values(from: *const u8) -> Bytes {
    // SAFETY: by contract.
    unsafe { _mm256_loadu_si256(from.cast()) }
}

/// # Safety
/// 8 bytes can be read there.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn load_query(from: *const u8) -> Pair {
    let from = from.cast::<i32>();
    // SAFETY: by contract.
    unsafe { [_mm256_set1_epi32(from.read_unaligned()), _mm256_set1_epi32(from.add(1).read_unaligned())] }
}

/// The weights of four positions.
///
/// # Safety
/// `page` is what [`store_weights`] wrote, and has this group.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn load_weights(page: *const u8, group: usize) -> Pair {
    let from = page.cast::<i32>();
    // SAFETY: by contract.
    unsafe { [_mm256_set1_epi32(from.add(group).read()), _mm256_set1_epi32(from.add(4 + group).read())] }
}

/// The integers in the low bits of `w`, each as two bytes: 256 times the first, all of them, and the second.
///
/// # Safety
/// 32 bytes can be written there.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn store_weights(to: *mut u8, [a, b]: [V; PER_PAGE]) {
    let low = _mm256_set1_epi32(0xFFFF);
    let [a, b] = [_mm256_and_si256(_mm256_castps_si256(a), low), _mm256_and_si256(_mm256_castps_si256(b), low)];
    // 16 bits of positions 0 to 3, 8 to 11, 4 to 7, 12 to 15; put in order.
    let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(a, b));
    let (high, low) = (_mm256_srli_epi16::<8>(words), _mm256_and_si256(words, _mm256_set1_epi16(0xFF)));
    // First planes of positions 0 to 7, second ones of these, and the same of 8 to 15; put in order.
    let planes = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi16(high, low));
    // SAFETY: by contract.
    unsafe { _mm256_storeu_si256(to.cast(), planes) }
}

/// # Safety
/// 8 f32 can be written there: heads are multiples of 8.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn store_up_to(to: *mut f32, _: usize, x: V) {
    // SAFETY: by contract.
    unsafe { store(to, x) }
}

/// # Safety
/// As `dots`, with up to 6 rows and at least one column from `column` on.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
unsafe fn scores_of_columns(rows: usize, pages: Pages<'_>, query: &Query, column: usize, scores: *mut f32) -> usize {
    let left = pages.pages.len() * PER_PAGE - column;
    // SAFETY: by contract; no more columns are taken than there are.
    unsafe {
        choose!(
            rows, left, dots(pages, query, column, scores),
            1 by 4, 2 by 2, 3 by 2, 4 by 1, 5 by 1, else 6 by 1
        )
    }
}

/// # Safety
/// As `weigh`, with 1 to 6 rows.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
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
            1 by 4, 2 by 2, 3 by 2, 4 by 1, 5 by 1, else 6 by 1
        )
    }
}
