//! Groups unpacked to bf16, for products in tiles.

use std::arch::x86_64::*;

use super::weights::{Header, codes};
use crate::product::weights::{Weights, for_format};
use crate::{Format, Matrix};

/// Bytes of an unpacked tile: `[pair of inputs][row]` pairs.
const TILE_BYTES: usize = 1024;

/// Writes group `group` of a matrix of a quantised format to `tiles`.
///
/// # Safety
/// The machine has AVX-512 F, BW, DQ, VL and VNNI.
///
/// # Panics
/// If `tiles` are not as many as the group's.
pub(in crate::product) unsafe fn unpack_to_bf16(matrix: &Matrix, group: usize, tiles: &mut [u8]) {
    // SAFETY: the caller's promise.
    unsafe { for_format!(matrix.format(), unpack_group(matrix.group(group), tiles)) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn unpack_group<F: Weights>(group: &[u8], tiles: &mut [u8]) {
    let mut header = Header::new();
    let units = group.chunks_exact(F::LAYOUT.unit());
    let out = tiles.chunks_exact_mut(F::LAYOUT.tiles * TILE_BYTES);
    assert_eq!(units.len(), out.len(), "tiles of a group");
    for (unit, out) in units.zip(out) {
        let unit = unit.as_ptr();
        // SAFETY: `unit` has a header and the tiles after it.
        unsafe { header.read::<F>(unit) };
        for (t, out) in out.chunks_exact_mut(TILE_BYTES).enumerate() {
            // SAFETY: as above; `out` is a tile.
            unsafe { unpack_tile::<F>(&header, unit.add(F::LAYOUT.header + t * F::LAYOUT.tile), t, out.as_mut_ptr()) };
        }
    }
}

/// # Safety
/// `tile` is tile `t` of a unit with this header, and `out` has room for it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn unpack_tile<F: Weights>(header: &Header, tile: *const u8, t: usize, out: *mut u8) {
    // SAFETY: the caller's promises; eight inputs are four pairs, of 64 bytes each.
    unsafe {
        let [first, second] = header.scales::<F>(tile, t);
        let (first, second) = (plain_nan(first), plain_nan(second));
        let high = if F::HALVES { second } else { first };
        unpack_inputs::<F>(codes::<F, 0>(tile), first, second, out);
        unpack_inputs::<F>(codes::<F, 1>(tile), first, second, out.add(256));
        unpack_inputs::<F>(codes::<F, 2>(tile), high, second, out.add(512));
        unpack_inputs::<F>(codes::<F, 3>(tile), high, second, out.add(768));
    }
}

/// Eight inputs of 16 rows.
///
/// # Safety
/// `out` has room for four pairs of 16 rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn unpack_inputs<F: Weights>(codes: [__m512i; 2], d: __m512, min: __m512, out: *mut u8) {
    let [a, b] = codes;
    let offset = _mm512_set1_epi8(F::OFFSET as i8);
    let (a, b) = (_mm512_sub_epi8(a, offset), _mm512_sub_epi8(b, offset));
    let pairs = [
        rounded(value::<F, 0>(a, d, min), value::<F, 1>(a, d, min)),
        rounded(value::<F, 2>(a, d, min), value::<F, 3>(a, d, min)),
        rounded(value::<F, 0>(b, d, min), value::<F, 1>(b, d, min)),
        rounded(value::<F, 2>(b, d, min), value::<F, 3>(b, d, min)),
    ];
    for (i, pair) in pairs.into_iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { _mm512_storeu_si512(out.add(64 * i).cast(), pair) };
    }
}

/// The values of byte I of each word.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn value<F: Weights, const I: usize>(codes: __m512i, d: __m512, min: __m512) -> __m512 {
    let high = match I {
        0 => _mm512_slli_epi32::<24>(codes),
        1 => _mm512_slli_epi32::<16>(codes),
        2 => _mm512_slli_epi32::<8>(codes),
        _ => codes,
    };
    let weights = _mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(high));
    // Weights times scale are exact in f32, so that the sum is rounded once either way.
    if F::MINS { _mm512_fmadd_ps(weights, d, min) } else { _mm512_mul_ps(weights, d) }
}

/// Two inputs of 16 rows rounded to the nearest bf16, ties to even, as pairs.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn rounded(even: __m512, odd: __m512) -> __m512i {
    let (even, odd) = (rounded_bits(even), rounded_bits(odd));
    _mm512_mask_blend_epi16(0xaaaa_aaaa, _mm512_srli_epi32::<16>(even), odd)
}

/// Bits whose upper halves are the rounded numbers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn rounded_bits(values: __m512) -> __m512i {
    let bits = _mm512_castps_si512(values);
    let is_odd = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x1_0000));
    let below = _mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff));
    _mm512_mask_add_epi32(below, is_odd, below, _mm512_set1_epi32(1))
}

/// The numbers, with every NaN the one whose lower bits are zero: rounding leaves it and what it makes NaN, while others
/// could be carried over to a zero.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn plain_nan(values: __m512) -> __m512 {
    let is_nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(values, values);
    _mm512_mask_blend_ps(is_nan, values, _mm512_set1_ps(f32::NAN))
}
