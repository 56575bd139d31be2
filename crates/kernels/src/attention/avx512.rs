//! Attention with AVX-512: 32 registers of 16 f32.

use std::arch::x86_64::*;

use super::avx2;

pub(super) type V = __m512;
pub(super) const LANES: usize = 16;
pub(super) const PER_PAGE: usize = 1;
const TILE_ROWS: usize = 12;

tile_kernels!("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c");

macro_rules! operations {
    ($($name:ident($($arg:ident),*) = $body:expr;)*) => {$(
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        #[inline]
        pub(super) fn $name($($arg: V),*) -> V {
            $body
        }
    )*};
}

operations! {
    add(a, b) = _mm512_add_ps(a, b);
    sub(a, b) = _mm512_sub_ps(a, b);
    mul(a, b) = _mm512_mul_ps(a, b);
    div(a, b) = _mm512_div_ps(a, b);
    max(a, b) = _mm512_max_ps(a, b);
    fma(a, b, c) = _mm512_fmadd_ps(a, b, c);
    if_less(a, b, x, y) = _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), y, x);
    power(shifted) = _mm512_castsi512_ps(_mm512_add_epi32(
        _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted)),
        _mm512_set1_epi32(0x3F80_0000),
    ));
    lane_numbers() = _mm512_setr_ps(
        0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0,
    );
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub(super) fn splat(x: f32) -> V {
    _mm512_set1_ps(x)
}

/// # Safety
/// 16 f32 can be read there.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub(super) unsafe fn load(from: *const f32) -> V {
    // SAFETY: by contract.
    unsafe { _mm512_loadu_ps(from) }
}

/// # Safety
/// 16 f32 can be written there.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub(super) unsafe fn store(to: *mut f32, x: V) {
    // SAFETY: by contract.
    unsafe { _mm512_storeu_ps(to, x) }
}

/// # Safety
/// 16 f16 can be read there.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub(super) unsafe fn load_half(from: *const u16) -> V {
    // SAFETY: by contract.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(from.cast()) })
}

/// # Safety
/// 16 f16 can be written there.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
unsafe fn store_half(to: *mut u16, x: V) {
    // SAFETY: by contract.
    unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x)) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub(super) fn sum_page([x]: [V; PER_PAGE]) -> f32 {
    avx2::sum_8(_mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x)))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub(super) fn max_page([x]: [V; PER_PAGE]) -> f32 {
    avx2::max_8(_mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x)))
}

/// # Safety
/// As `dots`, with up to 12 rows and at least one page.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn scores_of_pages(
    rows: usize,
    q: *const f32,
    pages: &[*const u16],
    ahead: &[*const u16],
    head_dim: usize,
    scores: *mut f32,
) -> usize {
    // SAFETY: by contract; no more pages are taken than there are.
    unsafe {
        match (rows, pages.len()) {
            (1, 4..) => dots::<1, 4>(q, pages, ahead, head_dim, scores),
            (2, 4..) => dots::<2, 4>(q, pages, ahead, head_dim, scores),
            (1, _) => dots::<1, 1>(q, pages, ahead, head_dim, scores),
            (2, _) => dots::<2, 1>(q, pages, ahead, head_dim, scores),
            (3, 4..) => dots::<3, 4>(q, pages, ahead, head_dim, scores),
            (4, 4..) => dots::<4, 4>(q, pages, ahead, head_dim, scores),
            (5, 4..) => dots::<5, 4>(q, pages, ahead, head_dim, scores),
            (6, 4..) => dots::<6, 4>(q, pages, ahead, head_dim, scores),
            (7, 2..) => dots::<7, 2>(q, pages, ahead, head_dim, scores),
            (8, 2..) => dots::<8, 2>(q, pages, ahead, head_dim, scores),
            (9, 2..) => dots::<9, 2>(q, pages, ahead, head_dim, scores),
            (10, 2..) => dots::<10, 2>(q, pages, ahead, head_dim, scores),
            (11, 2..) => dots::<11, 2>(q, pages, ahead, head_dim, scores),
            (12, 2..) => dots::<12, 2>(q, pages, ahead, head_dim, scores),
            (3, _) => dots::<3, 1>(q, pages, ahead, head_dim, scores),
            (4, _) => dots::<4, 1>(q, pages, ahead, head_dim, scores),
            (5, _) => dots::<5, 1>(q, pages, ahead, head_dim, scores),
            (6, _) => dots::<6, 1>(q, pages, ahead, head_dim, scores),
            (7, _) => dots::<7, 1>(q, pages, ahead, head_dim, scores),
            (8, _) => dots::<8, 1>(q, pages, ahead, head_dim, scores),
            (9, _) => dots::<9, 1>(q, pages, ahead, head_dim, scores),
            (10, _) => dots::<10, 1>(q, pages, ahead, head_dim, scores),
            (11, _) => dots::<11, 1>(q, pages, ahead, head_dim, scores),
            _ => dots::<12, 1>(q, pages, ahead, head_dim, scores),
        }
    }
}

/// # Safety
/// As `weigh`, with 1 to 6 rows and at least 16 dimensions from `d0` on.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
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
        match (rows, left) {
            (1, 8..) => weigh::<1, 8>(values, d0, from, to, scores, out),
            (2, 8..) => weigh::<2, 8>(values, d0, from, to, scores, out),
            (3, 8..) => weigh::<3, 8>(values, d0, from, to, scores, out),
            (1, 4..) => weigh::<1, 4>(values, d0, from, to, scores, out),
            (2, 4..) => weigh::<2, 4>(values, d0, from, to, scores, out),
            (3, 4..) => weigh::<3, 4>(values, d0, from, to, scores, out),
            (4, 4..) => weigh::<4, 4>(values, d0, from, to, scores, out),
            (5, 4..) => weigh::<5, 4>(values, d0, from, to, scores, out),
            (6, 4..) => weigh::<6, 4>(values, d0, from, to, scores, out),
            (1, _) => weigh::<1, 1>(values, d0, from, to, scores, out),
            (2, _) => weigh::<2, 1>(values, d0, from, to, scores, out),
            (3, _) => weigh::<3, 1>(values, d0, from, to, scores, out),
            (4, _) => weigh::<4, 1>(values, d0, from, to, scores, out),
            (5, _) => weigh::<5, 1>(values, d0, from, to, scores, out),
            _ => weigh::<6, 1>(values, d0, from, to, scores, out),
        }
    }
}

/// The last 8 dimensions of heads that are not multiples of 16.
///
/// # Safety
/// As `weigh`, with 1 to 6 rows and 8 dimensions from `d0` on.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn values_tail(
    rows: usize,
    values: Values<'_>,
    d0: usize,
    from: usize,
    to: usize,
    scores: *const f32,
    out: *mut f32,
) {
    for r in 0..rows {
        // SAFETY: by contract; the pointers are of row r.
        unsafe {
            let (scores, out) = (scores.add(r * SPAN), out.add(r * values.head_dim));
            avx2::weigh::<1, 1>(values, d0, from, to, scores, out);
        }
    }
}
