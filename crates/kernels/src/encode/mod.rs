//! From f32 to GGUF's blocks: quantisation at load.
//!
//! Q8_0 and Q4_0 have one answer each, that of GGML's reference code, bit for bit. What Q4_K's scales and minima are is a
//! search ([`q4_k`]); its answer depends on nothing but the values.

mod q4_k;

use half::f16;

use crate::Format;

impl Format {
    /// Is there an encoder ([`encode`]) to this format?
    pub fn is_encodable(self) -> bool {
        matches!(self, Self::Q8_0 | Self::Q4_0 | Self::Q4_K)
    }
}

/// Writes `values`, whole blocks of finite numbers, as blocks of `format`. What f16 scales cannot hold (weights beyond
/// some 500,000 in Q4_0, less in no format than 65,504) becomes infinite.
///
/// # Panics
/// If the format is not [`Format::is_encodable`], or the lengths are not those of the same whole blocks.
pub fn encode(format: Format, values: &[f32], out: &mut [u8]) {
    let (block_values, block_bytes) = format.block();
    assert!(format.is_encodable(), "no encoder to {format}");
    assert!(values.len().is_multiple_of(block_values), "{} values in blocks of {block_values}", values.len());
    assert_eq!(out.len(), values.len() / block_values * block_bytes, "the bytes of {} values", values.len());
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the machine has AVX2.
        return unsafe { encode_avx2(format, values, out) };
    }
    encode_portable(format, values, out);
}

/// The portable code in wider registers: no operation is fused or reordered, so that the bits are the same.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn encode_avx2(format: Format, values: &[f32], out: &mut [u8]) {
    encode_portable(format, values, out);
}

#[inline(always)]
fn encode_portable(format: Format, values: &[f32], out: &mut [u8]) {
    match format {
        Format::Q8_0 => blocks(values, out, q8_0),
        Format::Q4_0 => blocks(values, out, q4_0),
        _ => blocks(values, out, q4_k::encode),
    }
}

#[inline(always)]
fn blocks<const LEN: usize, const BYTES: usize>(
    values: &[f32],
    out: &mut [u8],
    block: impl Fn(&[f32; LEN], &mut [u8; BYTES]),
) {
    for (values, out) in values.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        block(values, out);
    }
}

/// 1 / `d`, and 0 for 0.
#[inline(always)]
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// `d` and 32 signed bytes, rounded half away from zero with the scale that f16 has not yet rounded.
#[inline(always)]
fn q8_0(x: &[f32; 32], out: &mut [u8; 34]) {
    let d = x.iter().fold(0.0f32, |max, x| max.max(x.abs())) / 127.0;
    let inverse = inverse(d);
    let (scale, codes) = out.split_at_mut(2);
    scale.copy_from_slice(&f16::from_f32(d).to_le_bytes());
    for (code, x) in codes.iter_mut().zip(x) {
        *code = ((x * inverse).round() as i8).cast_unsigned();
    }
}

/// `d` and nibbles, value `j` low and value `j + 16` high. The value farthest from zero, the first of several, becomes
/// -8: `d` has the other sign. The sum that is cut off is rounded once, as by a fused multiply-add.
#[inline(always)]
fn q4_0(x: &[f32; 32], out: &mut [u8; 18]) {
    let farthest = x.iter().fold(0.0f32, |far, &x| if x.abs() > far.abs() { x } else { far });
    let d = farthest / -8.0;
    let inverse = f64::from(inverse(d));
    // A cast cuts off, and holds what is below 0 at 0.
    let code = |x: f32| (((f64::from(x) * inverse + 8.5) as f32) as u8).min(15);
    let (scale, codes) = out.split_at_mut(2);
    scale.copy_from_slice(&f16::from_f32(d).to_le_bytes());
    for (j, byte) in codes.iter_mut().enumerate() {
        *byte = code(x[j]) | code(x[j + 16]) << 4;
    }
}
