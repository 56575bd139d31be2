//! AVX2 lanes: two registers of eight.

use std::arch::x86_64::*;

use super::Lanes;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2;

/// The first n of eight lanes: eight words from 8 - n on.
static FIRST: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// Masks of the first `n` of sixteen lanes, as two registers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn first(n: usize) -> (__m256i, __m256i) {
    let (low, high) = (n.min(8), n.saturating_sub(8).min(8));
    // SAFETY: 8 words from index 0 to 8 on are within 16.
    unsafe {
        (
            _mm256_loadu_si256(FIRST.as_ptr().add(8 - low).cast()),
            _mm256_loadu_si256(FIRST.as_ptr().add(8 - high).cast()),
        )
    }
}

/// The nearest bf16, ties to even, in the low halves of words. Of a NaN the highest bits and one that keeps it a NaN.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn rounded_to_bf16(a: __m256) -> __m256i {
    let bits = _mm256_castps_si256(a);
    let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
    let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    let nan = _mm256_or_si256(bits, _mm256_set1_epi32(0x40_0000));
    let is_nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(a, a));
    _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, nan, is_nan))
}

/// Both halves through one instruction.
macro_rules! both {
    ($op:ident($($arg:ident),*)) => {
        ($op($($arg.0),*), $op($($arg.1),*))
    };
}

impl Lanes for Avx2 {
    const REGISTERS: usize = 8;

    type F = (__m256, __m256);
    type I = (__m256i, __m256i);
    type M = (__m256, __m256);
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn splat(value: f32) -> Self::F {
        (_mm256_set1_ps(value), _mm256_set1_ps(value))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(from: *const f32) -> Self::F {
        // SAFETY: the caller's promise.
        unsafe { (_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load_first(from: *const f32, n: usize) -> Self::F {
        let (low, high) = first(n);
        // SAFETY: the caller's promise for the first n; masked lanes are not touched.
        unsafe { (_mm256_maskload_ps(from, low), _mm256_maskload_ps(from.wrapping_add(8), high)) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn store(to: *mut f32, a: Self::F) {
        // SAFETY: the caller's promise.
        unsafe {
            _mm256_storeu_ps(to, a.0);
            _mm256_storeu_ps(to.add(8), a.1);
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn store_first(to: *mut f32, n: usize, a: Self::F) {
        let (low, high) = first(n);
        // SAFETY: the caller's promise for the first n; masked lanes are not touched.
        unsafe {
            _mm256_maskstore_ps(to, low, a.0);
            _mm256_maskstore_ps(to.wrapping_add(8), high, a.1);
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load_f16(from: *const u16) -> Self::F {
        // SAFETY: the caller's promise.
        unsafe { (_mm256_cvtph_ps(_mm_loadu_si128(from.cast())), _mm256_cvtph_ps(_mm_loadu_si128(from.add(8).cast()))) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn store_f16(to: *mut u16, a: Self::F) {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT;
        // SAFETY: the caller's promise.
        unsafe {
            _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<NEAREST>(a.0));
            _mm_storeu_si128(to.add(8).cast(), _mm256_cvtps_ph::<NEAREST>(a.1));
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn store_bf16(to: *mut u16, a: Self::F) {
        let rounded = both!(rounded_to_bf16(a));
        // Packing takes the halves of both by turns: words 0 to 3, 8 to 11, 4 to 7, 12 to 15.
        let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(rounded.0, rounded.1));
        // SAFETY: the caller's promise.
        unsafe { _mm256_storeu_si256(to.cast(), packed) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load_bf16_low(from: *const u32) -> Self::F {
        // SAFETY: the caller's promise.
        let pairs = unsafe { (_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(8).cast())) };
        (_mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs.0)), _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs.1)))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load_bf16_high(from: *const u32) -> Self::F {
        // SAFETY: the caller's promise.
        let pairs = unsafe { (_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(8).cast())) };
        let high = _mm256_set1_epi32(0xffff_0000_u32.cast_signed());
        (_mm256_castsi256_ps(_mm256_and_si256(pairs.0, high)), _mm256_castsi256_ps(_mm256_and_si256(pairs.1, high)))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_add_ps(a, b))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_sub_ps(a, b))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_mul_ps(a, b))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_div_ps(a, b))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        both!(_mm256_fmadd_ps(a, b, c))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn fnma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        both!(_mm256_fnmadd_ps(a, b, c))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_max_ps(a, b))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_min_ps(a, b))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn round(a: Self::F) -> Self::F {
        const EVEN: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        (_mm256_round_ps::<EVEN>(a.0), _mm256_round_ps::<EVEN>(a.1))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn abs(a: Self::F) -> Self::F {
        let sign = _mm256_set1_ps(-0.0);
        (_mm256_andnot_ps(sign, a.0), _mm256_andnot_ps(sign, a.1))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn with_sign(a: Self::F, sign: Self::F) -> Self::F {
        let bit = _mm256_set1_ps(-0.0);
        (_mm256_or_ps(a.0, _mm256_and_ps(bit, sign.0)), _mm256_or_ps(a.1, _mm256_and_ps(bit, sign.1)))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn greater(a: Self::F, b: Self::F) -> Self::M {
        (_mm256_cmp_ps::<_CMP_GT_OQ>(a.0, b.0), _mm256_cmp_ps::<_CMP_GT_OQ>(a.1, b.1))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn select(mask: Self::M, a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_blendv_ps(b, a, mask))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn bits(mask: Self::M) -> u32 {
        (_mm256_movemask_ps(mask.0) | _mm256_movemask_ps(mask.1) << 8).cast_unsigned()
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn reduce_add(a: Self::F) -> f32 {
        let a = _mm256_add_ps(a.0, a.1);
        let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
        _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn reduce_max(a: Self::F) -> f32 {
        let a = _mm256_max_ps(a.0, a.1);
        let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
        _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn swap<const N: usize>(a: Self::F) -> Self::F {
        match N {
            8 => (a.1, a.0),
            4 => (_mm256_permute2f128_ps::<1>(a.0, a.0), _mm256_permute2f128_ps::<1>(a.1, a.1)),
            2 => (_mm256_permute_ps::<0b01_00_11_10>(a.0), _mm256_permute_ps::<0b01_00_11_10>(a.1)),
            _ => (_mm256_permute_ps::<0b10_11_00_01>(a.0), _mm256_permute_ps::<0b10_11_00_01>(a.1)),
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn to_int(a: Self::F) -> Self::I {
        both!(_mm256_cvtps_epi32(a))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn float_bits(a: Self::F) -> Self::I {
        both!(_mm256_castps_si256(a))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn from_bits(a: Self::I) -> Self::F {
        both!(_mm256_castsi256_ps(a))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn splat_int(value: i32) -> Self::I {
        (_mm256_set1_epi32(value), _mm256_set1_epi32(value))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn add_int(a: Self::I, b: Self::I) -> Self::I {
        both!(_mm256_add_epi32(a, b))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn sub_int(a: Self::I, b: Self::I) -> Self::I {
        both!(_mm256_sub_epi32(a, b))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn max_int(a: Self::I, b: Self::I) -> Self::I {
        both!(_mm256_max_epi32(a, b))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn shift_right<const N: u32>(a: Self::I) -> Self::I {
        let n = _mm_cvtsi32_si128(N.cast_signed());
        (_mm256_sra_epi32(a.0, n), _mm256_sra_epi32(a.1, n))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn shift_left<const N: u32>(a: Self::I) -> Self::I {
        let n = _mm_cvtsi32_si128(N.cast_signed());
        (_mm256_sll_epi32(a.0, n), _mm256_sll_epi32(a.1, n))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn reduce_add_int(a: Self::I) -> i32 {
        let a = _mm256_add_epi32(a.0, a.1);
        let a = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
        let a = _mm_add_epi32(a, _mm_shuffle_epi32::<0b1110>(a));
        _mm_cvtsi128_si32(_mm_add_epi32(a, _mm_shuffle_epi32::<1>(a)))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn reduce_max_int(a: Self::I) -> i32 {
        let a = _mm256_max_epi32(a.0, a.1);
        let a = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
        let a = _mm_max_epi32(a, _mm_shuffle_epi32::<0b1110>(a));
        _mm_cvtsi128_si32(_mm_max_epi32(a, _mm_shuffle_epi32::<1>(a)))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn store_i8(to: *mut i8, a: Self::I) {
        // Packing works within halves: words 0-3 8-11 | 4-7 12-15, put in order before the bytes are packed.
        let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(a.0, a.1));
        let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
        // SAFETY: the caller's promise.
        unsafe { _mm_storeu_si128(to.cast(), bytes) }
    }
}
