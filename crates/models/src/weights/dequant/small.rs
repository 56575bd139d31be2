//! Blocks of 32 values. In all of the 4 and 5 bit types byte `j` holds value `j` in its low half and value `j + 16` in
//! its high half.

use half::f16;

/// Values that a nibble of IQ4_NL and IQ4_XS stands for.
pub(super) const IQ4_VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
/// Twice the values that a nibble of MXFP4 (E2M1) stands for.
const MXFP4_VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// The f16 at `at`.
pub(super) fn scale(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// f16 scale, 16 bytes of nibbles; values are 0..16 minus 8.
pub(super) fn q4_0(bytes: &[u8; 18], out: &mut [f32; 32]) {
    let d = scale(bytes, 0);
    for (j, &byte) in bytes[2..].iter().enumerate() {
        out[j] = (f32::from(byte & 15) - 8.0) * d;
        out[j + 16] = (f32::from(byte >> 4) - 8.0) * d;
    }
}

/// f16 scale, f16 minimum, 16 bytes of nibbles.
pub(super) fn q4_1(bytes: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (scale(bytes, 0), scale(bytes, 2));
    for (j, &byte) in bytes[4..].iter().enumerate() {
        out[j] = f32::from(byte & 15) * d + m;
        out[j + 16] = f32::from(byte >> 4) * d + m;
    }
}

/// f16 scale, 32 fifth bits, 16 bytes of nibbles; values are 0..32 minus 16.
pub(super) fn q5_0(bytes: &[u8; 22], out: &mut [f32; 32]) {
    let d = scale(bytes, 0);
    let high = u32::from_le_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]);
    for (j, &byte) in bytes[6..].iter().enumerate() {
        let (low, top) = five_bits(byte, high, j);
        out[j] = (low - 16.0) * d;
        out[j + 16] = (top - 16.0) * d;
    }
}

/// f16 scale, f16 minimum, 32 fifth bits, 16 bytes of nibbles.
pub(super) fn q5_1(bytes: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = (scale(bytes, 0), scale(bytes, 2));
    let high = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    for (j, &byte) in bytes[8..].iter().enumerate() {
        let (low, top) = five_bits(byte, high, j);
        out[j] = low * d + m;
        out[j + 16] = top * d + m;
    }
}

fn five_bits(byte: u8, high: u32, j: usize) -> (f32, f32) {
    let low = byte & 15 | (((high >> j) & 1) << 4) as u8;
    let top = byte >> 4 | (((high >> (j + 16)) & 1) << 4) as u8;
    (f32::from(low), f32::from(top))
}

/// f16 scale, 32 signed bytes.
pub(super) fn q8_0(bytes: &[u8; 34], out: &mut [f32; 32]) {
    let d = scale(bytes, 0);
    for (value, &byte) in out.iter_mut().zip(&bytes[2..]) {
        *value = f32::from(byte.cast_signed()) * d;
    }
}

/// f16 scale, f16 sum (not needed here), 32 signed bytes.
pub(super) fn q8_1(bytes: &[u8; 36], out: &mut [f32; 32]) {
    let d = scale(bytes, 0);
    for (value, &byte) in out.iter_mut().zip(&bytes[4..]) {
        *value = f32::from(byte.cast_signed()) * d;
    }
}

/// f16 scale, 16 bytes of nibbles that index a table.
pub(super) fn iq4_nl(bytes: &[u8; 18], out: &mut [f32; 32]) {
    let d = scale(bytes, 0);
    for (j, &byte) in bytes[2..].iter().enumerate() {
        out[j] = f32::from(IQ4_VALUES[usize::from(byte & 15)]) * d;
        out[j + 16] = f32::from(IQ4_VALUES[usize::from(byte >> 4)]) * d;
    }
}

/// Exponent byte, 16 bytes of nibbles (E2M1).
pub(super) fn mxfp4(bytes: &[u8; 17], out: &mut [f32; 32]) {
    // 2^(e - 127) for the values, halved because the table holds twice the values: 2^(e - 128), which is subnormal for
    // e of 0 and 1.
    let e = u32::from(bytes[0]);
    let d = f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (e - 1) << 23 });
    for (j, &byte) in bytes[1..].iter().enumerate() {
        out[j] = f32::from(MXFP4_VALUES[usize::from(byte & 15)]) * d;
        out[j + 16] = f32::from(MXFP4_VALUES[usize::from(byte >> 4)]) * d;
    }
}
