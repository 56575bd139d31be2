//! GGUF's blocks, as the codes and scales that packing writes.

use super::{DMIN, MINS, SCALES, word};
use crate::Format;

/// The 32 codes of tile `t` of a block, as 8 words of 4: the stored bits, without offset; those of Q8_0 plus 128.
#[inline(always)]
pub(super) fn codes(format: Format, block: &[u8], t: usize) -> [u32; 8] {
    match format {
        Format::Q4_0 | Format::IQ4_NL => halves(&block[2..], 0),
        Format::Q4_1 => halves(&block[4..], 0),
        Format::Q5_0 => halves(&block[6..], word(block, 2)),
        Format::Q5_1 => halves(&block[8..], word(block, 4)),
        Format::MXFP4 => halves(&block[1..], 0),
        Format::Q8_0 => words(part(block, 2), 0, u32::MAX).map(|word| word ^ 0x8080_8080),
        // Each 32 bytes hold two tiles, low nibbles and high nibbles.
        Format::Q4_K => words(part(block, 16 + t / 2 * 32), t % 2 * 4, 0x0f0f_0f0f),
        Format::Q5_K => {
            let low = words(part(block, 48 + t / 2 * 32), t % 2 * 4, 0x0f0f_0f0f);
            with_high(low, words(part(block, 16), t, 0x0101_0101))
        }
        // Each half block has 64 bytes of nibbles, tiles 0 and 1 low and 2 and 3 high, and 32 of pairs of high bits.
        Format::Q6_K => {
            let (half, row) = (t / 4, t % 4);
            let low = words(part(block, 64 * half + row % 2 * 32), row / 2 * 4, 0x0f0f_0f0f);
            with_high(low, words(part(block, 128 + 32 * half), 2 * row, 0x0303_0303))
        }
        Format::BF16 | Format::F16 | Format::F32 => unreachable!("a float format has no codes"),
    }
}

/// 32 bytes as words, shifted to the right and masked. (A loop: `array::from_fn` is not always inlined.)
#[inline(always)]
fn words(bytes: &[u8; 32], shift: usize, mask: u32) -> [u32; 8] {
    let mut words = [0; 8];
    for (out, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *out = (u32::from_le_bytes(*bytes) >> shift) & mask;
    }
    words
}

#[inline(always)]
fn with_high(mut words: [u32; 8], high: [u32; 8]) -> [u32; 8] {
    for (word, high) in words.iter_mut().zip(high) {
        *word |= high << 4;
    }
    words
}

/// 16 bytes of nibbles, byte `j` with input `j` low and `j + 16` high, and 32 fifth bits in order.
#[inline(always)]
fn halves(bytes: &[u8], high: u32) -> [u32; 8] {
    let mut words = [0; 8];
    for (g, out) in words.iter_mut().enumerate() {
        let nibbles = (word(bytes, g % 4 * 4) >> (g / 4 * 4)) & 0x0f0f_0f0f;
        *out = nibbles | spread((high >> (4 * g)) & 15) << 4;
    }
    words
}

/// 32 bytes, their bounds checked once.
#[inline(always)]
fn part(block: &[u8], at: usize) -> &[u8; 32] {
    &block[at..].as_chunks().0[0]
}

/// Four bits, each to a byte of its own: bit `i` is copied to bits `i + 7 * j`, of which `8 * i` is kept.
#[inline(always)]
fn spread(bits: u32) -> u32 {
    bits.wrapping_mul(0x0020_4081) & 0x0101_0101
}

/// Writes the block's scales for row `lane` into its unit's header and tiles.
#[inline(always)]
pub(super) fn scales(format: Format, block: &[u8], header: &mut [u8], tiles: &mut [u8], lane: usize) {
    match format {
        Format::Q4_1 | Format::Q5_1 => {
            put_half(tiles, lane, &block[..2]);
            put_half(&mut tiles[MINS..], lane, &block[2..4]);
        }
        Format::MXFP4 => tiles[lane] = block[0],
        Format::Q4_K | Format::Q5_K => {
            put_half(header, lane, &block[..2]);
            put_half(&mut header[DMIN..], lane, &block[2..4]);
            let out = &mut header[SCALES..];
            for t in 0..8 {
                let (scale, min) = six_bits(&block[4..16], t);
                out[16 * t + lane] = scale & 15 | (min & 15) << 4;
                out[128 + 16 * (t % 4) + lane] |= (scale >> 4 | min >> 4 << 2) << (t / 4 * 4);
            }
        }
        Format::Q6_K => {
            put_half(header, lane, &block[208..210]);
            let tile_bytes = tiles.len() / 8;
            for (tile, scales) in tiles.chunks_exact_mut(tile_bytes).zip(block[192..208].chunks_exact(2)) {
                tile[lane] = scales[0];
                tile[16 + lane] = scales[1];
            }
        }
        _ => put_half(tiles, lane, &block[..2]),
    }
}

/// Scale and minimum of tile `t` in a K-quant's 12 bytes.
#[inline(always)]
fn six_bits(scales: &[u8], t: usize) -> (u8, u8) {
    if t < 4 {
        (scales[t] & 63, scales[t + 4] & 63)
    } else {
        let low = scales[t + 4];
        (low & 15 | scales[t - 4] >> 6 << 4, low >> 4 | scales[t] >> 6 << 4)
    }
}

#[inline(always)]
fn put_half(out: &mut [u8], lane: usize, bytes: &[u8]) {
    out[2 * lane..][..2].copy_from_slice(bytes);
}
