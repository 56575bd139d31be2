//! Attention with AVX2, FMA and F16C: 16 registers of 8 f32.

use std::arch::x86_64::*;

pub(super) type V = __m256;
pub(super) const LANES: usize = 8;
pub(super) const PER_PAGE: usize = 2;
const TILE_ROWS: usize = 6;

tile_kernels!("avx2,fma,f16c");

macro_rules! operations {
    ($($name:ident($($arg:ident),*) = $body:expr;)*) => {$(
        #[target_feature(enable = "avx2,fma,f16c")]
        #[inline]
        pub(super) fn $name($($arg: V),*) -> V {
            $body
        }
    )*};
}

operations! {
    add(a, b) = _mm256_add_ps(a, b);
    sub(a, b) = _mm256_sub_ps(a, b);
    mul(a, b) = _mm256_mul_ps(a, b);
    div(a, b) = _mm256_div_ps(a, b);
    max(a, b) = _mm256_max_ps(a, b);
    fma(a, b, c) = _mm256_fmadd_ps(a, b, c);
    if_less(a, b, x, y) = _mm256_blendv_ps(y, x, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b));
    power(shifted) = _mm256_castsi256_ps(_mm256_add_epi32(
        _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted)),
        _mm256_set1_epi32(0x3F80_0000),
    ));
    lane_numbers() = _mm256_setr_ps(0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0);
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn splat(x: f32) -> V {
    _mm256_set1_ps(x)
}

/// # Safety
/// 8 f32 can be read there.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) unsafe fn load(from: *const f32) -> V {
    // SAFETY: by contract.
    unsafe { _mm256_loadu_ps(from) }
}

/// # Safety
/// 8 f32 can be written there.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) unsafe fn store(to: *mut f32, x: V) {
    // SAFETY: by contract.
    unsafe { _mm256_storeu_ps(to, x) }
}

/// # Safety
/// 8 f16 can be read there.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) unsafe fn load_half(from: *const u16) -> V {
    // SAFETY: by contract.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(from.cast()) })
}

/// # Safety
/// 8 f16 can be written there.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn store_half(to: *mut u16, x: V) {
    // SAFETY: by contract.
    unsafe { _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x)) }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn sum_page([a, b]: [V; PER_PAGE]) -> f32 {
    sum_8(add(a, b))
}

/// Halves upon halves.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn sum_8(x: V) -> f32 {
    let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn max_page([a, b]: [V; PER_PAGE]) -> f32 {
    max_8(max(a, b))
}

/// Halves upon halves.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn max_8(x: V) -> f32 {
    let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)))
}

/// # Safety
/// As `dots`, with up to 6 rows and at least one page.
#[target_feature(enable = "avx2,fma,f16c")]
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
            2 if pages.len() > 1 => dots::<2, 2>(q, pages, ahead, head_dim, scores),
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
/// As `weigh`, with 1 to 6 rows and at least 8 dimensions from `d0` on.
#[target_feature(enable = "avx2,fma,f16c")]
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
            1 if left >= 2 => weigh::<1, 2>(values, d0, from, to, scores, out),
            1 => weigh::<1, 1>(values, d0, from, to, scores, out),
            2 if left >= 4 => weigh::<2, 4>(values, d0, from, to, scores, out),
            2 => weigh::<2, 1>(values, d0, from, to, scores, out),
            3 if left >= 4 => weigh::<3, 4>(values, d0, from, to, scores, out),
            3 => weigh::<3, 1>(values, d0, from, to, scores, out),
            4 if left >= 2 => weigh::<4, 2>(values, d0, from, to, scores, out),
            4 => weigh::<4, 1>(values, d0, from, to, scores, out),
            5 if left >= 2 => weigh::<5, 2>(values, d0, from, to, scores, out),
            5 => weigh::<5, 1>(values, d0, from, to, scores, out),
            _ if left >= 2 => weigh::<6, 2>(values, d0, from, to, scores, out),
            _ => weigh::<6, 1>(values, d0, from, to, scores, out),
        }
    }
}

/// Never called: heads are multiples of 8.
///
/// # Safety
/// None is needed.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn values_tail(_: usize, _: Values<'_>, _: usize, _: usize, _: usize, _: *const f32, _: *mut f32) {}
