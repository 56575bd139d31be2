//! Quarters of tiles as pairs of rows. Layouts: `pack.rs`.

use std::arch::aarch64::*;

use crate::Format;
use crate::pack::{IQ4_NL_VALUES, MXFP4_VALUES};
use crate::product::weights::Weights;

/// `[rows 4 * q and 4 * q + 1, the two rows after them]`, each 8 codes of the first row and then of the second.
type PairsOfRows = [uint8x16_t; 2];

/// The codes of inputs `16 * H` to `16 * H + 15` of rows `4 * q` to `4 * q + 3`, as unsigned bytes: words 0 and 2 of each
/// row's four, and words 1 and 3. (Words of one and the other line of stored bytes are brought together before nibbles are
/// taken apart, which is half the work of doing so afterwards.)
///
/// # Safety
/// `tile` is a whole tile of format `F`, and `q` is below 4.
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
pub(super) unsafe fn codes<F: Weights, const H: usize>(tile: *const u8, q: usize) -> [PairsOfRows; 2] {
    let layout = F::LAYOUT;
    // SAFETY: the codes and the planes of high bits are where the layout says.
    unsafe {
        let codes = tile.add(layout.codes + 16 * q);
        let high = tile.add(layout.high + 16 * q);
        match F::FORMAT {
            Format::Q8_0 => {
                let codes = codes.add(256 * H);
                [pair(codes, codes.add(128)), pair(codes.add(64), codes.add(192))]
            }
            Format::Q5_0 | Format::Q5_1 | Format::Q5_K => {
                // Bit `4 * H + g` of a byte belongs to word `g`.
                let left = 4 - 4 * H as i8;
                let (high, [even, odd]) = (pair(high, high), nibbles(codes.add(128 * H)));
                [with_high(even, high, [left, left - 2], 16), with_high(odd, high, [left - 1, left - 3], 16)]
            }
            Format::Q6_K => {
                let high = high.add(64 * H);
                let (high, [even, odd]) = (pair(high, high), nibbles(codes.add(128 * H)));
                [with_high(even, high, [4, 0], 48), with_high(odd, high, [2, -2], 48)]
            }
            Format::MXFP4 => look_up(&MXFP4_VALUES, F::OFFSET, nibbles(codes.add(128 * H))),
            Format::IQ4_NL => look_up(&IQ4_NL_VALUES, F::OFFSET, nibbles(codes.add(128 * H))),
            _ => nibbles(codes.add(128 * H)),
        }
    }
}

/// A word of each of 4 rows at `first` and one at `second`: both words of two rows in a register.
///
/// # Safety
/// Both have 16 bytes.
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn pair(first: *const u8, second: *const u8) -> PairsOfRows {
    // SAFETY: the caller's promise.
    let (a, b) = unsafe { (vreinterpretq_u32_u8(vld1q_u8(first)), vreinterpretq_u32_u8(vld1q_u8(second))) };
    [vreinterpretq_u8_u32(vzip1q_u32(a, b)), vreinterpretq_u8_u32(vzip2q_u32(a, b))]
}

/// The low and the high nibbles of 16 bytes and of the 16 that lie 64 further, in pairs.
///
/// # Safety
/// Both are there.
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn nibbles(codes: *const u8) -> [PairsOfRows; 2] {
    let mask = vdupq_n_u8(15);
    // SAFETY: the caller's promise.
    let [a, b] = unsafe { pair(codes, codes.add(64)) };
    [[vandq_u8(a, mask), vandq_u8(b, mask)], [vshrq_n_u8::<4>(a), vshrq_n_u8::<4>(b)]]
}

/// Nibbles, and above them the bits of `mask` of `high` after shifts by `left` (to the right if it is negative): one for
/// the first word of each row, one for the second. Both are constants where this is inlined.
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
fn with_high(nibbles: PairsOfRows, high: PairsOfRows, left: [i8; 2], mask: u8) -> PairsOfRows {
    let words = left.map(|left| u64::from(u32::from_ne_bytes([left.cast_unsigned(); 4])));
    let left = vreinterpretq_s8_u64(vdupq_n_u64(words[0] | words[1] << 32));
    let with = |nibbles, high| vorrq_u8(nibbles, vandq_u8(vshlq_u8(high, left), vdupq_n_u8(mask)));
    [with(nibbles[0], high[0]), with(nibbles[1], high[1])]
}

/// What nibbles stand for in a table, plus `offset`.
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn look_up(table: &'static [i8; 16], offset: i32, codes: [PairsOfRows; 2]) -> [PairsOfRows; 2] {
    // SAFETY: the table has 16 bytes.
    let table = vreinterpretq_u8_s8(vaddq_s8(unsafe { vld1q_s8(table.as_ptr()) }, vdupq_n_s8(offset as i8)));
    codes.map(|[a, b]| [vqtbl1q_u8(table, a), vqtbl1q_u8(table, b)])
}
