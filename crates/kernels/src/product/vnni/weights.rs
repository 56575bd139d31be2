//! Tiles of each format in registers. Layouts: `pack.rs`.

use std::arch::x86_64::*;

use crate::Format;
use crate::pack::{DMIN, IQ4_NL_VALUES, MINS, MXFP4_VALUES, SCALES};
use crate::product::weights::{SixBits, Weights};

/// What the tiles of a K-quant's unit share.
#[derive(Clone, Copy)]
pub(super) struct Header {
    d: __m512,
    dmin: __m512,
    six_bits: SixBits,
}

impl Header {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    pub fn new() -> Self {
        Self { d: _mm512_setzero_ps(), dmin: _mm512_setzero_ps(), six_bits: SixBits([0; 256]) }
    }

    /// Reads it, if the format has one.
    ///
    /// # Safety
    /// `unit` is a whole unit of format `F`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    pub unsafe fn read<F: Weights>(&mut self, unit: *const u8) {
        // SAFETY: units with a header start with it.
        unsafe {
            if matches!(F::FORMAT, Format::Q4_K | Format::Q5_K | Format::Q6_K) {
                self.d = halves(unit);
            }
            if matches!(F::FORMAT, Format::Q4_K | Format::Q5_K) {
                self.dmin = halves(unit.add(DMIN));
                SixBits::unpack(unit.add(SCALES), &mut self.six_bits);
            }
        }
    }

    /// The scales and minima of tile `t`'s rows; the scales of both halves, where halves have their own.
    ///
    /// # Safety
    /// `tile` is the whole tile `t` of this header's unit, of format `F`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    pub unsafe fn scales<F: Weights>(&self, tile: *const u8, t: usize) -> [__m512; 2] {
        let none = _mm512_setzero_ps();
        // SAFETY: tiles without header start with 16 scales, and 16 minima if they have them; those of Q6_K with twice
        // 16 bytes; `t` is below 8 where there is a header.
        unsafe {
            match F::FORMAT {
                Format::Q4_K | Format::Q5_K => {
                    let six_bits = self.six_bits.0.as_ptr().add(16 * t);
                    let d = _mm512_mul_ps(self.d, unsigned(six_bits));
                    let min = _mm512_mul_ps(self.dmin, unsigned(six_bits.add(128)));
                    [d, _mm512_xor_ps(min, _mm512_set1_ps(-0.0))]
                }
                Format::Q6_K => [_mm512_mul_ps(self.d, signed(tile)), _mm512_mul_ps(self.d, signed(tile.add(16)))],
                Format::MXFP4 => [e8m0_halves(tile), none],
                _ => [halves(tile), if F::MINS { halves(tile.add(MINS)) } else { none }],
            }
        }
    }
}

/// The codes of inputs `8 * J` to `8 * J + 3` and of the four after them, as unsigned bytes.
///
/// # Safety
/// `tile` is a whole tile of format `F`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn codes<F: Weights, const J: usize>(tile: *const u8) -> [__m512i; 2] {
    let layout = F::LAYOUT;
    let j = J as i32;
    // SAFETY: the codes and the planes of high bits are where the layout says.
    unsafe {
        let codes = tile.add(layout.codes);
        let high = tile.add(layout.high);
        match F::FORMAT {
            Format::Q8_0 => [line(codes.add(128 * J)), line(codes.add(128 * J + 64))],
            Format::Q5_0 | Format::Q5_1 | Format::Q5_K => {
                let (high, [a, b]) = (line(high), nibbles(codes, J));
                [with_high(a, high, 4 - 2 * j, 16), with_high(b, high, 3 - 2 * j, 16)]
            }
            Format::Q6_K => {
                let (high, [a, b]) = (line(high.add(J / 2 * 64)), nibbles(codes, J));
                [with_high(a, high, 4 - j % 2 * 4, 48), with_high(b, high, 2 - j % 2 * 4, 48)]
            }
            Format::MXFP4 => look_up(&MXFP4_VALUES, F::OFFSET, nibbles(codes, J)),
            Format::IQ4_NL => look_up(&IQ4_NL_VALUES, F::OFFSET, nibbles(codes, J)),
            _ => nibbles(codes, J),
        }
    }
}

/// The 64 bytes at `at`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn line(at: *const u8) -> __m512i {
    // SAFETY: the caller has 64 bytes there.
    unsafe { _mm512_loadu_si512(at.cast()) }
}

/// 16 f16 at `at`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn halves(at: *const u8) -> __m512 {
    // SAFETY: the caller has 32 bytes there.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(at.cast()) })
}

/// 16 bytes at `at`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn unsigned(at: *const u8) -> __m512 {
    // SAFETY: the caller has 16 bytes there.
    _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(at.cast()) }))
}

/// 16 signed bytes at `at`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn signed(at: *const u8) -> __m512 {
    // SAFETY: the caller has 16 bytes there.
    _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(unsafe { _mm_loadu_si128(at.cast()) }))
}

/// Halves of 16 E8M0 scales: `2^(e - 128)`, subnormal for `e` of 0 and 1.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn e8m0_halves(at: *const u8) -> __m512 {
    // SAFETY: the caller has 16 bytes there.
    let e = _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(at.cast()) });
    let normal = _mm512_slli_epi32::<23>(_mm512_sub_epi32(e, _mm512_set1_epi32(1)));
    let subnormal = _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2));
    _mm512_castsi512_ps(_mm512_mask_sllv_epi32(normal, subnormal, _mm512_set1_epi32(0x0020_0000), e))
}

/// The low and the high nibbles of the `j`-th 64 bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn nibbles(codes: *const u8, j: usize) -> [__m512i; 2] {
    let mask = _mm512_set1_epi8(15);
    // SAFETY: the caller has 256 bytes there, and `j` is below 4.
    let bytes = unsafe { line(codes.add(64 * j)) };
    [_mm512_and_si512(bytes, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), mask)]
}

/// Nibbles, and above them the bits of `mask` of `high` after a shift by `left` (to the right if it is negative; a
/// constant where this is inlined).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn with_high(nibbles: __m512i, high: __m512i, left: i32, mask: i8) -> __m512i {
    let high = if left >= 0 {
        _mm512_sllv_epi32(high, _mm512_set1_epi32(left))
    } else {
        _mm512_srlv_epi32(high, _mm512_set1_epi32(-left))
    };
    // a | b & c
    _mm512_ternarylogic_epi32::<0xf8>(nibbles, high, _mm512_set1_epi8(mask))
}

/// What nibbles stand for in a table, plus `offset`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn look_up(table: &'static [i8; 16], offset: i32, [a, b]: [__m512i; 2]) -> [__m512i; 2] {
    // SAFETY: the table has 16 bytes.
    let table = _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(table.as_ptr().cast()) });
    let table = _mm512_add_epi8(table, _mm512_set1_epi8(offset as i8));
    [_mm512_shuffle_epi8(table, a), _mm512_shuffle_epi8(table, b)]
}
