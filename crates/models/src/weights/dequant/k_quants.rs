//! Blocks of 256 values with scales of their own for each 16 or 32.

use super::small::{IQ4_VALUES, scale};

/// 16 bytes with scale and minimum of 16 values each (4 bits), 64 bytes of 2-bit values, f16 scale of the scales, f16
/// scale of the minima.
pub(super) fn q2_k(bytes: &[u8; 84], out: &mut [f32; 256]) {
    let (scales, quants) = (&bytes[..16], &bytes[16..80]);
    let (d, dmin) = (scale(bytes, 80), scale(bytes, 82));
    for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let (start, shift) = two_bits(group);
        let dl = d * f32::from(scales[group] & 15);
        let ml = dmin * f32::from(scales[group] >> 4);
        for (value, &q) in out.iter_mut().zip(&quants[start..]) {
            *value = dl * f32::from((q >> shift) & 3) - ml;
        }
    }
}

/// 32 bytes with the third bits, 64 bytes of 2-bit values, 16 scales of 6 bits in 12 bytes, f16 scale.
pub(super) fn q3_k(bytes: &[u8; 110], out: &mut [f32; 256]) {
    let (high, quants, scales) = (&bytes[..32], &bytes[32..96], &bytes[96..108]);
    let d = scale(bytes, 108);
    for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let (start, shift) = two_bits(group);
        let low = if group < 8 { scales[group] & 15 } else { scales[group - 8] >> 4 };
        let top = (scales[8 + group % 4] >> (2 * (group / 4))) & 3;
        let dl = d * (f32::from(low | top << 4) - 32.0);
        // Two groups of 16 share a bit of the 32 bytes.
        let mask = 1 << (group / 2);
        let high = &high[group % 2 * 16..];
        for ((value, &q), &h) in out.iter_mut().zip(&quants[start..]).zip(high) {
            let offset = if h & mask == 0 { 4.0 } else { 0.0 };
            *value = dl * (f32::from((q >> shift) & 3) - offset);
        }
    }
}

/// Where the 2-bit values of the `group`-th 16 values start, and by how much they are shifted.
fn two_bits(group: usize) -> (usize, usize) {
    (group / 8 * 32 + group % 2 * 16, group % 8 / 2 * 2)
}

/// f16 scale, f16 scale of the minima, 8 scales and minima of 6 bits in 12 bytes, 128 bytes of nibbles.
pub(super) fn q4_k(bytes: &[u8; 144], out: &mut [f32; 256]) {
    let (d, dmin) = (scale(bytes, 0), scale(bytes, 2));
    let (scales, quants) = (&bytes[4..16], &bytes[16..]);
    for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (sc, m) = six_bits(scales, group);
        let (dl, ml) = (d * sc, dmin * m);
        let shift = group % 2 * 4;
        for (value, &q) in out.iter_mut().zip(&quants[group / 2 * 32..]) {
            *value = dl * f32::from((q >> shift) & 15) - ml;
        }
    }
}

/// As `q4_k`, with 32 bytes that hold the fifth bits before the nibbles.
pub(super) fn q5_k(bytes: &[u8; 176], out: &mut [f32; 256]) {
    let (d, dmin) = (scale(bytes, 0), scale(bytes, 2));
    let (scales, high, quants) = (&bytes[4..16], &bytes[16..48], &bytes[48..]);
    for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (sc, m) = six_bits(scales, group);
        let (dl, ml) = (d * sc, dmin * m);
        let shift = group % 2 * 4;
        for ((value, &q), &h) in out.iter_mut().zip(&quants[group / 2 * 32..]).zip(high) {
            *value = dl * f32::from((q >> shift) & 15 | ((h >> group) & 1) << 4) - ml;
        }
    }
}

/// Scale and minimum of the `group`-th 32 values.
fn six_bits(scales: &[u8], group: usize) -> (f32, f32) {
    let (sc, m) = if group < 4 {
        (scales[group] & 63, scales[group + 4] & 63)
    } else {
        let low = scales[group + 4];
        (low & 15 | scales[group - 4] >> 6 << 4, low >> 4 | scales[group] >> 6 << 4)
    };
    (f32::from(sc), f32::from(m))
}

/// 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 signed scales, f16 scale; values are 0..64 minus 32.
pub(super) fn q6_k(bytes: &[u8; 210], out: &mut [f32; 256]) {
    let (low, high, scales) = (&bytes[..128], &bytes[128..192], &bytes[192..208]);
    let d = scale(bytes, 208);
    for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let (half, row, part) = (group / 8, group % 8 / 2, group % 2 * 16);
        let low = &low[half * 64 + row % 2 * 32 + part..];
        let high = &high[half * 32 + part..];
        let (low_shift, high_shift) = (row / 2 * 4, row * 2);
        let dl = d * f32::from(scales[group].cast_signed());
        for ((value, &l), &h) in out.iter_mut().zip(low).zip(high) {
            let q = (l >> low_shift) & 15 | ((h >> high_shift) & 3) << 4;
            *value = dl * (f32::from(q) - 32.0);
        }
    }
}

/// f32 scale, 256 signed bytes, 16 sums (not needed here).
pub(super) fn q8_k(bytes: &[u8; 292], out: &mut [f32; 256]) {
    let d = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    for (value, &byte) in out.iter_mut().zip(&bytes[4..260]) {
        *value = d * f32::from(byte.cast_signed());
    }
}

/// f16 scale, high bits of 8 scales, their low bits, 128 bytes of nibbles that index a table.
pub(super) fn iq4_xs(bytes: &[u8; 136], out: &mut [f32; 256]) {
    let d = scale(bytes, 0);
    let high = u16::from_le_bytes([bytes[2], bytes[3]]);
    let (low, quants) = (&bytes[4..8], &bytes[8..]);
    for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let low = (low[group / 2] >> (group % 2 * 4)) & 15;
        let top = ((high >> (2 * group)) & 3) as u8;
        let dl = d * (f32::from(low | top << 4) - 32.0);
        for (j, &byte) in quants[group * 16..group * 16 + 16].iter().enumerate() {
            out[j] = dl * f32::from(IQ4_VALUES[usize::from(byte & 15)]);
            out[j + 16] = dl * f32::from(IQ4_VALUES[usize::from(byte >> 4)]);
        }
    }
}
