//! Blocks of stored weights to f32, value for value as ggml's reference code does it.

mod k_quants;
mod small;

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};

use super::types::WeightType;

/// Writes the values of whole blocks. `bytes` holds exactly the blocks of `out`; `kind` is readable.
pub(super) fn dequantize(kind: WeightType, bytes: &[u8], out: &mut [f32]) {
    match kind {
        WeightType::F32 => {
            blocks(bytes, out, |bytes: &[u8; 4], out: &mut [f32; 1]| *out = [f32::from_le_bytes(*bytes)])
        }
        WeightType::BF16 => blocks(bytes, out, |bytes: &[u8; 2], out: &mut [f32; 1]| {
            *out = [f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16)];
        }),
        WeightType::F16 => f16_to_f32(bytes, out),
        WeightType::Q4_0 => blocks(bytes, out, small::q4_0),
        WeightType::Q4_1 => blocks(bytes, out, small::q4_1),
        WeightType::Q5_0 => blocks(bytes, out, small::q5_0),
        WeightType::Q5_1 => blocks(bytes, out, small::q5_1),
        WeightType::Q8_0 => blocks(bytes, out, small::q8_0),
        WeightType::Q8_1 => blocks(bytes, out, small::q8_1),
        WeightType::IQ4_NL => blocks(bytes, out, small::iq4_nl),
        WeightType::MXFP4 => blocks(bytes, out, small::mxfp4),
        WeightType::Q2_K => blocks(bytes, out, k_quants::q2_k),
        WeightType::Q3_K => blocks(bytes, out, k_quants::q3_k),
        WeightType::Q4_K => blocks(bytes, out, k_quants::q4_k),
        WeightType::Q5_K => blocks(bytes, out, k_quants::q5_k),
        WeightType::Q6_K => blocks(bytes, out, k_quants::q6_k),
        WeightType::Q8_K => blocks(bytes, out, k_quants::q8_k),
        WeightType::IQ4_XS => blocks(bytes, out, k_quants::iq4_xs),
        WeightType::Unreadable(_) | WeightType::Unknown(_) => {
            debug_assert!(false, "callers load readable types only");
        }
    }
}

fn blocks<const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    out: &mut [f32],
    block: impl Fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    let (blocks, _) = bytes.as_chunks::<BYTES>();
    let (values, _) = out.as_chunks_mut::<LEN>();
    debug_assert_eq!(blocks.len(), values.len());
    for (bytes, out) in blocks.iter().zip(values) {
        block(bytes, out);
    }
}

/// Through a small aligned buffer, since the crate converts slices many times faster than single values.
fn f16_to_f32(bytes: &[u8], out: &mut [f32]) {
    let mut buffer = [0_u16; 256];
    for (bytes, out) in bytes.chunks(2 * buffer.len()).zip(out.chunks_mut(buffer.len())) {
        for (to, from) in buffer.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *to = u16::from_le_bytes(*from);
        }
        buffer[..out.len()].reinterpret_cast::<f16>().convert_to_f32_slice(out);
    }
}

/// A type that tensors can be loaded as.
pub(super) trait Element: candle_core::WithDType {
    /// The stored type whose bytes are this type's own.
    const STORED: WeightType;
    /// Little-endian bytes of `STORED`.
    fn copy_from_bytes(bytes: &[u8], out: &mut [Self]);
    /// `bytes` holds exactly the blocks of `out`.
    fn dequantize(kind: WeightType, bytes: &[u8], out: &mut [Self]);
}

impl Element for f32 {
    const STORED: WeightType = WeightType::F32;

    fn copy_from_bytes(bytes: &[u8], out: &mut [Self]) {
        dequantize(WeightType::F32, bytes, out);
    }

    fn dequantize(kind: WeightType, bytes: &[u8], out: &mut [Self]) {
        dequantize(kind, bytes, out);
    }
}

impl Element for f16 {
    const STORED: WeightType = WeightType::F16;

    fn copy_from_bytes(bytes: &[u8], out: &mut [Self]) {
        for (to, from) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *to = Self::from_le_bytes(*from);
        }
    }

    fn dequantize(kind: WeightType, bytes: &[u8], out: &mut [Self]) {
        through_f32(kind, bytes, out, |values, out| out.convert_from_f32_slice(values));
    }
}

impl Element for bf16 {
    const STORED: WeightType = WeightType::BF16;

    fn copy_from_bytes(bytes: &[u8], out: &mut [Self]) {
        for (to, from) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *to = Self::from_le_bytes(*from);
        }
    }

    fn dequantize(kind: WeightType, bytes: &[u8], out: &mut [Self]) {
        through_f32(kind, bytes, out, |values, out| out.convert_from_f32_slice(values));
    }
}

/// Piece by piece, so that no second copy of the tensor exists in f32.
fn through_f32<T>(kind: WeightType, bytes: &[u8], out: &mut [T], narrow: impl Fn(&[f32], &mut [T])) {
    let Some((block_len, block_bytes)) = kind.block() else { return };
    let mut buffer = [0_f32; 256];
    let n_blocks = buffer.len() / block_len;
    for (bytes, out) in bytes.chunks(n_blocks * block_bytes).zip(out.chunks_mut(buffer.len())) {
        let values = &mut buffer[..out.len()];
        dequantize(kind, bytes, values);
        narrow(values, out);
    }
}
