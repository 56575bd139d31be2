//! Blocks of stored weights to f32, value for value as ggml's reference code does it.

mod k_quants;
mod small;

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};

use super::types::WeightType;

/// Writes the values of whole blocks. `bytes` holds exactly the blocks of `out`; `kind` is readable.
pub(crate) fn dequantize(kind: WeightType, bytes: &[u8], out: &mut [f32]) {
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::weights::{ModelFiles, Weights};

    fn golden() -> Weights {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/golden/quant");
        let files = vec![folder.join("blocks.safetensors")];
        Weights::open(&ModelFiles::Safetensors { config_json: folder.join("none"), folder, files }).unwrap()
    }

    fn close(a: f32, b: f32) -> bool {
        a == b || (a - b).abs() <= 1e-6 * b.abs() || a.to_bits().abs_diff(b.to_bits()) <= 1
    }

    #[test]
    fn every_block_type_of_the_golden_file_is_dequantised() {
        let weights = golden();
        let mut tested = 0;
        for raw_name in weights.names().filter(|name| name.ends_with(".raw")) {
            let type_name = raw_name.trim_end_matches(".raw");
            let kind = (0..64).map(WeightType::from_ggml).find(|kind| kind.to_string() == type_name).unwrap();
            let expected = weights.tensor_f32(&format!("{type_name}.f32")).unwrap();
            let mut values = vec![f32::NAN; expected.len()];
            dequantize(kind, weights.raw(raw_name).unwrap(), &mut values);
            let wrong = values.iter().zip(&expected).position(|(a, b)| !close(*a, *b));
            assert!(wrong.is_none(), "{type_name} differs at {wrong:?}");
            tested += 1;

            // Narrower types are the f32 values, rounded.
            let mut narrow = vec![bf16::ZERO; values.len()];
            bf16::dequantize(kind, weights.raw(raw_name).unwrap(), &mut narrow);
            assert!(narrow.iter().zip(&values).all(|(a, b)| *a == bf16::from_f32(*b)), "{type_name} as bf16");
            let mut narrow = vec![f16::ZERO; values.len()];
            f16::dequantize(kind, weights.raw(raw_name).unwrap(), &mut narrow);
            assert!(narrow.iter().zip(&values).all(|(a, b)| *a == f16::from_f32(*b)), "{type_name} as f16");
        }
        assert_eq!(tested, 15);
    }

    /// Types of intermediate results that no golden block exists for: `scale * byte`.
    #[test]
    fn q8_1_and_q8_k_are_scaled_bytes() {
        let bytes: Vec<u8> = (0..=255).collect();
        let expected = |n: usize| (0..n).map(|i| 0.5 * f32::from((i as u8).cast_signed())).collect::<Vec<_>>();

        let mut block = [f16::from_f32(0.5).to_le_bytes(), f16::from_f32(9.0).to_le_bytes()].concat();
        block.extend(&bytes[..32]);
        let mut values = [0.0; 32];
        dequantize(WeightType::Q8_1, &block, &mut values);
        assert_eq!(values.to_vec(), expected(32));

        let mut block = 0.5_f32.to_le_bytes().to_vec();
        block.extend(&bytes);
        block.extend([7; 32]);
        let mut values = [0.0; 256];
        dequantize(WeightType::Q8_K, &block, &mut values);
        assert_eq!(values.to_vec(), expected(256));
    }

    #[test]
    fn types_of_candle_agree_with_candle() {
        use candle_core::quantized::{GgmlDType, QStorage, QTensor};
        use candle_core::{Device, Shape};

        let weights = golden();
        let types = [
            (WeightType::Q4_0, GgmlDType::Q4_0),
            (WeightType::Q4_1, GgmlDType::Q4_1),
            (WeightType::Q5_0, GgmlDType::Q5_0),
            (WeightType::Q5_1, GgmlDType::Q5_1),
            (WeightType::Q8_0, GgmlDType::Q8_0),
            (WeightType::Q2_K, GgmlDType::Q2K),
            (WeightType::Q3_K, GgmlDType::Q3K),
            (WeightType::Q4_K, GgmlDType::Q4K),
            (WeightType::Q5_K, GgmlDType::Q5K),
            (WeightType::Q6_K, GgmlDType::Q6K),
        ];
        for (kind, candle_kind) in types {
            let raw = weights.raw(&format!("{kind}.raw")).unwrap();
            let storage = QStorage::from_data(raw.into(), &Device::Cpu, candle_kind).unwrap();
            let tensor = QTensor::new(storage, Shape::from((4, 512))).unwrap().dequantize(&Device::Cpu).unwrap();
            let expected = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let mut values = vec![0.0; expected.len()];
            dequantize(kind, raw, &mut values);
            assert!(values.iter().zip(&expected).all(|(a, b)| close(*a, *b)), "{kind}");
        }
    }
}
