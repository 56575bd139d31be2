//! Quarters of tiles, 4 rows, in 128-bit registers. Layouts: `pack.rs`.

use std::arch::aarch64::*;
use std::arch::asm;

use crate::Format;
use crate::pack::{DMIN, IQ4_NL_VALUES, MINS, MXFP4_VALUES, SCALES};
use crate::product::weights::{SixBits, Weights};

/// How far what [`codes`] gives lies above the weights. Bytes and the values of tables are given as weights.
pub(super) const fn offset<F: Weights>() -> i32 {
    match F::FORMAT {
        Format::Q8_0 | Format::MXFP4 | Format::IQ4_NL => 0,
        _ => F::OFFSET,
    }
}

/// What the tiles of a K-quant's unit share, for each quarter of the rows.
#[derive(Clone, Copy)]
pub(in crate::product) struct Header {
    d: [float32x4_t; 4],
    dmin: [float32x4_t; 4],
    six_bits: SixBits,
}

impl Header {
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    pub fn new() -> Self {
        let zero = [vdupq_n_f32(0.0); 4];
        Self { d: zero, dmin: zero, six_bits: SixBits([0; 256]) }
    }

    /// Reads it, if the format has one.
    ///
    /// # Safety
    /// `unit` is a whole unit of format `F`.
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    pub unsafe fn read<F: Weights>(&mut self, unit: *const u8) {
        // SAFETY: units with a header start with it.
        unsafe {
            if matches!(F::FORMAT, Format::Q4_K | Format::Q5_K | Format::Q6_K) {
                self.d = [halves(unit), halves(unit.add(8)), halves(unit.add(16)), halves(unit.add(24))];
            }
            if matches!(F::FORMAT, Format::Q4_K | Format::Q5_K) {
                let unit = unit.add(DMIN);
                self.dmin = [halves(unit), halves(unit.add(8)), halves(unit.add(16)), halves(unit.add(24))];
                SixBits::unpack(unit.add(SCALES - DMIN), &mut self.six_bits);
            }
        }
    }

    /// The scales and minima of rows `4 * q` to `4 * q + 3` in tile `t`; the scales of both halves of the inputs, where
    /// those have their own.
    ///
    /// # Safety
    /// `tile` is the whole tile `t` of this header's unit, of format `F`; `q` is below 4.
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    pub unsafe fn scales<F: Weights>(&self, tile: *const u8, t: usize, q: usize) -> [float32x4_t; 2] {
        let none = vdupq_n_f32(0.0);
        // SAFETY: tiles without header start with 16 scales, and 16 minima if they have them; those of Q6_K with twice
        // 16 bytes; `t` is below 8 where there is a header.
        unsafe {
            match F::FORMAT {
                Format::Q4_K | Format::Q5_K => {
                    let six_bits = self.six_bits.0.as_ptr().add(16 * t + 4 * q);
                    let d = vmulq_f32(self.d[q], vcvtq_f32_u32(unsigned(six_bits)));
                    let min = vmulq_f32(self.dmin[q], vcvtq_f32_u32(unsigned(six_bits.add(128))));
                    [d, vnegq_f32(min)]
                }
                Format::Q6_K => {
                    let tile = tile.add(4 * q);
                    [vmulq_f32(self.d[q], signed(tile)), vmulq_f32(self.d[q], signed(tile.add(16)))]
                }
                Format::MXFP4 => [e8m0_halves(tile.add(4 * q)), none],
                _ => {
                    let tile = tile.add(8 * q);
                    [halves(tile), if F::MINS { halves(tile.add(MINS)) } else { none }]
                }
            }
        }
    }
}

/// The codes of inputs `16 * H` to `16 * H + 15` of rows `4 * q` to `4 * q + 3`, four inputs of each row in a register, as
/// signed bytes that lie [`offset`] above the weights.
///
/// # Safety
/// `tile` is a whole tile of format `F`, and `q` is below 4.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn codes<F: Weights, const H: usize>(tile: *const u8, q: usize) -> [int8x16_t; 4] {
    let layout = F::LAYOUT;
    let h = H as i8;
    // SAFETY: the codes and the planes of high bits are where the layout says.
    unsafe {
        let codes = tile.add(layout.codes + 16 * q);
        let high = tile.add(layout.high + 16 * q);
        match F::FORMAT {
            Format::Q8_0 => {
                let codes = codes.add(256 * H);
                [byte(codes), byte(codes.add(64)), byte(codes.add(128)), byte(codes.add(192))]
            }
            Format::Q5_0 | Format::Q5_1 | Format::Q5_K => {
                let (high, [a, b, c, d]) = (vld1q_u8(high), nibbles(codes.add(128 * H)));
                [
                    with_high(a, high, 4 - 4 * h, 16),
                    with_high(b, high, 3 - 4 * h, 16),
                    with_high(c, high, 2 - 4 * h, 16),
                    with_high(d, high, 1 - 4 * h, 16),
                ]
            }
            Format::Q6_K => {
                let (high, [a, b, c, d]) = (vld1q_u8(high.add(64 * H)), nibbles(codes.add(128 * H)));
                [
                    with_high(a, high, 4, 48),
                    with_high(b, high, 2, 48),
                    with_high(c, high, 0, 48),
                    with_high(d, high, -2, 48),
                ]
            }
            Format::MXFP4 => look_up(&MXFP4_VALUES, nibbles(codes.add(128 * H))),
            Format::IQ4_NL => look_up(&IQ4_NL_VALUES, nibbles(codes.add(128 * H))),
            _ => {
                let [a, b, c, d] = nibbles(codes.add(128 * H));
                [vreinterpretq_s8_u8(a), vreinterpretq_s8_u8(b), vreinterpretq_s8_u8(c), vreinterpretq_s8_u8(d)]
            }
        }
    }
}

/// 16 bytes of Q8_0, which are stored as value + 128.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn byte(at: *const u8) -> int8x16_t {
    // SAFETY: the caller has 16 bytes there.
    vreinterpretq_s8_u8(veorq_u8(unsafe { vld1q_u8(at) }, vdupq_n_u8(0x80)))
}

/// 4 f16 at `at`. (Assembly, because the instruction's function is stable later than this code.)
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn halves(at: *const u8) -> float32x4_t {
    let out: float32x4_t;
    // SAFETY: the caller has 8 bytes there; the instruction is part of NEON and changes only `out`.
    unsafe {
        asm!(
            "fcvtl {out:v}.4s, {halves:v}.4h",
            out = lateout(vreg) out,
            halves = in(vreg) vld1_u8(at),
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    out
}

/// 4 bytes at `at`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn unsigned(at: *const u8) -> uint32x4_t {
    // SAFETY: the caller has 4 bytes there.
    let bytes = vcreate_u8(u64::from(unsafe { at.cast::<u32>().read_unaligned() }));
    vmovl_u16(vget_low_u16(vmovl_u8(bytes)))
}

/// 4 signed bytes at `at`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn signed(at: *const u8) -> float32x4_t {
    // SAFETY: the caller has 4 bytes there.
    let bytes = vcreate_s8(u64::from(unsafe { at.cast::<u32>().read_unaligned() }));
    vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))))
}

/// Halves of 4 E8M0 scales: `2^(e - 128)`, subnormal for `e` of 0 and 1.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn e8m0_halves(at: *const u8) -> float32x4_t {
    // SAFETY: the caller has 4 bytes there.
    let e = unsafe { unsigned(at) };
    let normal = vshlq_n_u32::<23>(vsubq_u32(e, vdupq_n_u32(1)));
    let subnormal = vshlq_u32(vdupq_n_u32(0x0020_0000), vreinterpretq_s32_u32(e));
    vreinterpretq_f32_u32(vbslq_u32(vcltq_u32(e, vdupq_n_u32(2)), subnormal, normal))
}

/// The low and the high nibbles of 16 bytes, and of the 16 that lie 64 further.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn nibbles(codes: *const u8) -> [uint8x16_t; 4] {
    let mask = vdupq_n_u8(15);
    // SAFETY: the caller has both there.
    let (first, second) = unsafe { (vld1q_u8(codes), vld1q_u8(codes.add(64))) };
    [vandq_u8(first, mask), vshrq_n_u8::<4>(first), vandq_u8(second, mask), vshrq_n_u8::<4>(second)]
}

/// Nibbles, and above them the bits of `mask` of `high` after a shift by `left` (to the right if it is negative; a
/// constant where this is inlined).
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn with_high(nibbles: uint8x16_t, high: uint8x16_t, left: i8, mask: u8) -> int8x16_t {
    let high = vshlq_u8(high, vdupq_n_s8(left));
    vreinterpretq_s8_u8(vorrq_u8(nibbles, vandq_u8(high, vdupq_n_u8(mask))))
}

/// What nibbles stand for in a table.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn look_up(table: &'static [i8; 16], [a, b, c, d]: [uint8x16_t; 4]) -> [int8x16_t; 4] {
    // SAFETY: the table has 16 bytes.
    let table = unsafe { vld1q_s8(table.as_ptr()) };
    [vqtbl1q_s8(table, a), vqtbl1q_s8(table, b), vqtbl1q_s8(table, c), vqtbl1q_s8(table, d)]
}
