//! AVX2: bytes are widened to 16 bits, of which one instruction multiplies two and adds their products.

use std::arch::x86_64::*;

use super::numbers::Codes;
use crate::attention::avx2::{
    LANES, PER_PAGE, V, add, finish, fma, fold, if_less, largest, load, load_half, max, max_page, mul, read, splat,
    store, sum_page, weights, write_lanes,
};
use crate::lanes::Avx2 as Level;

const TILE_ROWS: usize = 6;
const CODES: Codes = Codes::Words;

byte_kernels!("avx2,fma,f16c");

type I = __m256i;
/// Those of even number in 16 bits each, and those of odd number.
type Bytes = [__m256i; 2];
/// Dimensions, or positions, 0 and 2 of four, and 1 and 3.
type Pair = [__m256i; 2];

macro_rules! operations {
    ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty = $body:expr;)*) => {$(
        #[target_feature(enable = "avx2,fma,f16c")]
        #[inline]
        fn $name($($arg: $type),*) -> $result {
            $body
        }
    )*};
}

operations! {
    none() -> I = _mm256_setzero_si256();
    zero_bytes() -> Bytes = [_mm256_setzero_si256(); 2];
    dot_keys(sums: [I; 2], keys: Bytes, q: Pair) -> [I; 2] = [
        _mm256_add_epi32(sums[0], _mm256_madd_epi16(keys[0], q[0])),
        _mm256_add_epi32(sums[1], _mm256_madd_epi16(keys[1], q[1])),
    ];
    dot_values(sums: [I; 2], values: Bytes, w: Pair) -> [I; 2] = dot_keys(sums, values, w);
    total(sums: [I; 2]) -> I = _mm256_add_epi32(sums[0], sums[1]);
    less(a: I, b: i32) -> I = _mm256_sub_epi32(a, _mm256_set1_epi32(b));
    to_float(a: I) -> V = _mm256_cvtepi32_ps(a);
}

/// # Safety
/// 32 bytes can be read there.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn load_keys(from: *const u8) -> Bytes {
    // SAFETY: by contract.
    let keys = unsafe { _mm256_loadu_si256(from.cast()) };
    [_mm256_and_si256(keys, _mm256_set1_epi16(0xFF)), _mm256_srli_epi16::<8>(keys)]
}

/// # Safety
/// 32 bytes can be read there.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn load_values(from: *const u8) -> Bytes {
    // SAFETY: by contract.
    let values = unsafe { _mm256_loadu_si256(from.cast()) };
    [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(values)), _mm256_srai_epi16::<8>(values)]
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
    // SAFETY: by contract.
    unsafe { load_query(page.add(group * 2 * GROUP)) }
}

/// The integers in the low bits of `w` in 16 bits each, as [`Codes::Words`] of each four.
///
/// # Safety
/// 32 bytes can be written there.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn store_weights(to: *mut u8, [a, b]: [V; PER_PAGE]) {
    let low = _mm256_set1_epi32(0xFFFF);
    let [a, b] = [_mm256_and_si256(_mm256_castps_si256(a), low), _mm256_and_si256(_mm256_castps_si256(b), low)];
    // Positions 0 to 3, 8 to 11, 4 to 7, 12 to 15.
    let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(a, b));
    let order = _mm256_setr_epi8(
        0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15, 0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15,
    );
    // SAFETY: by contract.
    unsafe { _mm256_storeu_si256(to.cast(), _mm256_shuffle_epi8(words, order)) }
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
#[target_feature(enable = "avx2,fma,f16c")]
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
#[target_feature(enable = "avx2,fma,f16c")]
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
