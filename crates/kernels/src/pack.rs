//! How packed weights lie in memory.
//!
//! A matrix is cut into groups of 16 rows, and a group into tiles of 32 inputs, in increasing order: the weights of a
//! group are one stream. A tile holds the scales of its 16 rows and then its codes, four inputs of one row side by side,
//! so that 64 bytes are 16 rows x 4 inputs: what one `vpdpbusd` takes. Those of a K-quant's 8 tiles follow a header
//! with what their superblock shares. Nothing is widened and nothing is lost: a tile takes the bytes that its 16 x 32
//! weights take in the file.
//!
//! A row's 32 codes are seen as 8 words of 4 bytes: byte `i` of word `g` is the code of input `4 * g + i`.
//!
//! | format | header | tile |
//! | --- | --- | --- |
//! | Q4_0, IQ4_NL | | 16 f16 d, nibbles |
//! | Q4_1 | | 16 f16 d, 16 f16 m, nibbles |
//! | Q5_0 | | 16 f16 d, fifth bits, nibbles |
//! | Q5_1 | | 16 f16 d, 16 f16 m, fifth bits, nibbles |
//! | Q8_0 | | 16 f16 d, bytes (value + 128) |
//! | MXFP4 | | 16 exponent bytes, nibbles |
//! | Q4_K | 16 f16 d, 16 f16 dmin, 6-bit scales | nibbles |
//! | Q5_K | 16 f16 d, 16 f16 dmin, 6-bit scales | fifth bits, nibbles |
//! | Q6_K | 16 f16 d | 2 x 16 i8 scales (of 16 inputs each), two high bits, nibbles |
//!
//! Nibbles, 256 bytes: byte `4 * row + i` of the `j`-th 64 holds input `8 * j + i` low and `8 * j + 4 + i` high. Fifth
//! bits, 64 bytes: bit `g` of byte `4 * row + i` belongs to input `4 * g + i`. Two high bits, 128 bytes: bits `2 * f`
//! and `2 * f + 1` of byte `4 * row + i` of the `p`-th 64 belong to input `16 * p + 4 * f + i`. 6-bit scales, 192 bytes:
//! byte `16 * t + row` has the low 4 bits of the scale of tile `t` low and of its minimum high; byte
//! `128 + 16 * (t % 4) + row` has their high 2 bits, scale and minimum, of tiles `t % 4` and then `t % 4 + 4`.

pub(crate) mod float;
mod source;

use half::f16;

use crate::{Format, ROW_GROUP, TILE};

/// Values of the nibbles of IQ4_NL.
pub(crate) const IQ4_NL_VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
/// Twice the values of the nibbles of MXFP4.
pub(crate) const MXFP4_VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

const F16_SCALES: usize = 2 * ROW_GROUP;
const NIBBLES: usize = ROW_GROUP * TILE / 2;
const BIT_PLANE: usize = ROW_GROUP * TILE / 8;

/// Where the parts of a quantised format's tiles are, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    /// Tiles that share a header.
    pub tiles: usize,
    /// Bytes of the header before them.
    pub header: usize,
    /// Bytes of a tile.
    pub tile: usize,
    /// Where a tile's bytes or nibbles start.
    pub codes: usize,
    /// Where the bits above the nibbles start.
    pub high: usize,
    /// Bits of a code: 4, 5, 6 or 8.
    pub bits: u32,
}

/// Offsets in the header of a K-quant.
pub(crate) const DMIN: usize = F16_SCALES;
pub(crate) const SCALES: usize = 2 * F16_SCALES;
/// Where the minima of a tile without header start.
pub(crate) const MINS: usize = F16_SCALES;

impl Layout {
    /// # Panics
    /// If the format is a float format.
    #[expect(clippy::panic, reason = "a programming error, found at compile time where it is made by kernels")]
    pub const fn of(format: Format) -> Self {
        let (tiles, header, high, bits) = match format {
            Format::Q4_0 | Format::IQ4_NL => (1, 0, F16_SCALES, 4),
            Format::Q4_1 => (1, 0, 2 * F16_SCALES, 4),
            Format::Q5_0 => (1, 0, F16_SCALES, 5),
            Format::Q5_1 => (1, 0, 2 * F16_SCALES, 5),
            Format::Q8_0 => (1, 0, F16_SCALES, 8),
            Format::MXFP4 => (1, 0, ROW_GROUP, 4),
            Format::Q4_K => (8, 2 * F16_SCALES + 12 * ROW_GROUP, 0, 4),
            Format::Q5_K => (8, 2 * F16_SCALES + 12 * ROW_GROUP, 0, 5),
            Format::Q6_K => (8, F16_SCALES, 2 * ROW_GROUP, 6),
            Format::BF16 | Format::F16 | Format::F32 => panic!("a float format has no codes"),
        };
        let codes = match bits {
            5 => high + BIT_PLANE,
            6 => high + 2 * BIT_PLANE,
            _ => high,
        };
        let tile = codes + if bits == 8 { 2 * NIBBLES } else { NIBBLES };
        Self { tiles, header, tile, codes, high, bits }
    }

    /// Bytes of `tiles` tiles and their header.
    pub const fn unit(&self) -> usize {
        self.header + self.tiles * self.tile
    }

    /// Bytes of a group of `n_cols` inputs.
    pub const fn group(&self, n_cols: usize) -> usize {
        n_cols / (TILE * self.tiles) * self.unit()
    }

    #[inline(always)]
    fn put_codes(&self, words: [u32; 8], tile: &mut [u8], lane: usize) {
        let codes = &mut tile[self.codes + 4 * lane..];
        if self.bits == 8 {
            for (g, word) in words.into_iter().enumerate() {
                put_word(codes, 64 * g, word);
            }
            return;
        }
        for j in 0..4 {
            let word = words[2 * j] & 0x0f0f_0f0f | (words[2 * j + 1] & 0x0f0f_0f0f) << 4;
            put_word(codes, 64 * j, word);
        }
        let above = |g: usize, mask: u32| (words[g] >> 4) & mask;
        let high = &mut tile[self.high + 4 * lane..];
        match self.bits {
            5 => put_word(high, 0, (0..8).rev().fold(0, |word, g| word << 1 | above(g, 0x0101_0101))),
            6 => {
                for p in 0..2 {
                    let word = (0..4).rev().fold(0, |word, f| word << 2 | above(4 * p + f, 0x0303_0303));
                    put_word(high, 64 * p, word);
                }
            }
            _ => {}
        }
    }

    #[inline(always)]
    fn codes(&self, tile: &[u8], lane: usize) -> [u32; 8] {
        let codes = &tile[self.codes + 4 * lane..];
        let high = &tile[self.high + 4 * lane..];
        let mut words = [0; 8];
        for (g, out) in words.iter_mut().enumerate() {
            let nibbles = || (word(codes, g / 2 * 64) >> (g % 2 * 4)) & 0x0f0f_0f0f;
            *out = match self.bits {
                4 => nibbles(),
                5 => nibbles() | ((word(high, 0) >> g) & 0x0101_0101) << 4,
                6 => nibbles() | ((word(high, g / 4 * 64) >> (g % 4 * 2)) & 0x0303_0303) << 4,
                _ => word(codes, 64 * g),
            };
        }
        words
    }
}

/// Packs up to 16 rows as one group into zeroed memory. Rows that are missing stay zero: their scales are (and MXFP4's
/// code 0 means 0).
pub(crate) fn pack_group(format: Format, rows: &[&[u8]], out: &mut [u8]) {
    // Each call is compiled for its format: what depends on it is decided once, and lengths are known.
    match format {
        Format::Q4_0 | Format::IQ4_NL => pack_rows(Format::Q4_0, rows, out),
        Format::Q4_1 => pack_rows(Format::Q4_1, rows, out),
        Format::Q5_0 => pack_rows(Format::Q5_0, rows, out),
        Format::Q5_1 => pack_rows(Format::Q5_1, rows, out),
        Format::Q8_0 => pack_rows(Format::Q8_0, rows, out),
        Format::MXFP4 => pack_rows(Format::MXFP4, rows, out),
        Format::Q4_K => pack_rows(Format::Q4_K, rows, out),
        Format::Q5_K => pack_rows(Format::Q5_K, rows, out),
        Format::Q6_K => pack_rows(Format::Q6_K, rows, out),
        Format::BF16 | Format::F16 | Format::F32 => unreachable!("a float format has no codes"),
    }
}

#[inline(always)]
fn pack_rows(format: Format, rows: &[&[u8]], out: &mut [u8]) {
    let layout = Layout::of(format);
    let (_, block_bytes) = format.block();
    for (lane, row) in rows.iter().enumerate().take(ROW_GROUP) {
        for (block, unit) in row.chunks_exact(block_bytes).zip(out.chunks_exact_mut(layout.unit())) {
            let (header, tiles) = unit.split_at_mut(layout.header);
            source::scales(format, block, header, tiles, lane);
            for (t, tile) in tiles.chunks_exact_mut(layout.tile).enumerate() {
                layout.put_codes(source::codes(format, block, t), tile, lane);
            }
        }
    }
}

/// One row of one tile, as numbers: the value of input `k` is `d[k / 16] * weights[k] + m`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowTile {
    pub weights: [i16; TILE],
    pub d: [f32; 2],
    pub m: f32,
}

/// Row `lane` of tile `tile` of a group.
#[inline(always)]
pub(crate) fn row_tile(format: Format, group: &[u8], tile: usize, lane: usize) -> RowTile {
    let layout = Layout::of(format);
    let unit = &group[tile / layout.tiles * layout.unit()..][..layout.unit()];
    let (header, tiles) = unit.split_at(layout.header);
    let t = tile % layout.tiles;
    let tile = &tiles[t * layout.tile..][..layout.tile];

    let mut weights = [0; TILE];
    for (weights, word) in weights.chunks_exact_mut(4).zip(layout.codes(tile, lane)) {
        for (weight, code) in weights.iter_mut().zip(word.to_le_bytes()) {
            *weight = weight_of(format, code);
        }
    }
    let (d, m) = match format {
        Format::MXFP4 => ([e8m0_half(tile[lane]); 2], 0.0),
        Format::Q4_1 | Format::Q5_1 => ([half_at(tile, lane); 2], half_at(&tile[MINS..], lane)),
        Format::Q4_K | Format::Q5_K => {
            let (scale, min) = six_bits(&header[SCALES..], t, lane);
            let d = half_at(header, lane) * f32::from(scale);
            ([d; 2], -(half_at(&header[DMIN..], lane) * f32::from(min)))
        }
        Format::Q6_K => {
            let d = half_at(header, lane);
            let scale = |half: usize| d * f32::from(tile[16 * half + lane].cast_signed());
            ([scale(0), scale(1)], 0.0)
        }
        _ => ([half_at(tile, lane); 2], 0.0),
    };
    RowTile { weights, d, m }
}

/// The values of row `lane` of a group.
pub(crate) fn dequantize(format: Format, group: &[u8], lane: usize, out: &mut [f32]) {
    for (tile, out) in out.chunks_exact_mut(TILE).enumerate() {
        let row = row_tile(format, group, tile, lane);
        for (k, out) in out.iter_mut().enumerate() {
            let value = row.d[k / (TILE / 2)] * f32::from(row.weights[k]);
            // Without minimum nothing is added: -0 stays -0.
            *out = if has_mins(format) { value + row.m } else { value };
        }
    }
}

/// Are minima added to the scaled codes?
pub(crate) const fn has_mins(format: Format) -> bool {
    matches!(format, Format::Q4_1 | Format::Q5_1 | Format::Q4_K | Format::Q5_K)
}

/// How far codes lie above weights; for formats with a table, what makes all its values unsigned.
pub(crate) const fn offset(format: Format) -> i32 {
    match format {
        Format::Q4_0 => 8,
        Format::Q5_0 => 16,
        Format::Q6_K => 32,
        Format::Q8_0 | Format::IQ4_NL => 128,
        Format::MXFP4 => 12,
        _ => 0,
    }
}

#[inline(always)]
fn weight_of(format: Format, code: u8) -> i16 {
    let nibble = usize::from(code & 15);
    match format {
        Format::IQ4_NL => i16::from(IQ4_NL_VALUES[nibble]),
        Format::MXFP4 => i16::from(MXFP4_VALUES[nibble]),
        _ => i16::from(code) - offset(format) as i16,
    }
}

/// Scale and minimum of tile `t` in a header's 6-bit scales.
fn six_bits(scales: &[u8], t: usize, lane: usize) -> (u8, u8) {
    let low = scales[16 * t + lane];
    let high = scales[128 + 16 * (t % 4) + lane] >> (t / 4 * 4);
    (low & 15 | (high & 3) << 4, low >> 4 | (high & 12) << 2)
}

/// Half of an E8M0 scale, 2^(e - 128), which is subnormal for `e` of 0 and 1: the table of MXFP4 has doubled values.
fn e8m0_half(e: u8) -> f32 {
    let e = u32::from(e);
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (e - 1) << 23 })
}

fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]]).to_f32()
}

#[inline(always)]
fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline(always)]
fn put_word(bytes: &mut [u8], at: usize, word: u32) {
    bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
}
