//! What becomes of weights that are not quantised when they are packed.

use std::collections::BTreeMap;

use tsserve_kernels::{Format, TILE};

use super::weights::{format_of, padded};
use crate::checkpoint::{Checkpoint, LayerTensor, StoredRows, TensorRole};

/// How matrices in bf16, f16 and f32 are quantised at load. What a file has quantised stays as it is, norms and biases
/// stay in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(non_camel_case_types, reason = "the names by which these formats are known")]
pub enum Quantization {
    Q8_0,
    Q4_0,
    Q4_K,
}

impl Quantization {
    /// Every quantisation.
    pub const ALL: [Self; 3] = [Self::Q8_0, Self::Q4_0, Self::Q4_K];

    /// The name by which it is asked for.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
            Self::Q4_K => "q4_k",
        }
    }

    /// The quantisation with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|quantization| quantization.name() == name)
    }

    /// The format of a layer's matrix with rows of `n_cols` weights that are not quantised; `None`: as it is stored.
    pub(crate) fn format_of(self, n_cols: usize) -> Option<Format> {
        self.format(TensorRole::Layer(0, LayerTensor::Down), n_cols)
    }

    /// The format of a matrix in `role` with rows of `n_cols` weights that are not quantised; `None`: as it is stored.
    ///
    /// Embedding and head keep eight bits, since errors there go straight into inputs and logits: llama.cpp's quantiser
    /// gives heads Q6_K, and Q8_0 where rows are no multiple of 256. So have, here, rows of other matrices that do not
    /// divide into the 256 of Q4_K.
    fn format(self, role: TensorRole, n_cols: usize) -> Option<Format> {
        let format = match (self, role) {
            (_, TensorRole::Embedding | TensorRole::Head) | (Self::Q8_0, _) => Format::Q8_0,
            (Self::Q4_0, _) => Format::Q4_0,
            (Self::Q4_K, _) if n_cols.is_multiple_of(Format::Q4_K.block().0) => Format::Q4_K,
            (Self::Q4_K, _) => Format::Q8_0,
        };
        n_cols.is_multiple_of(format.block().0).then_some(format)
    }
}

/// The format in which a stored matrix is packed; `None` where there are no kernels for it.
pub(super) fn packed_format(
    role: TensorRole,
    stored: &StoredRows<'_>,
    quantization: Option<Quantization>,
) -> Option<Format> {
    let as_stored = format_of(stored.kind)?;
    if as_stored.is_quantized() {
        return Some(as_stored);
    }
    Some(quantization.and_then(|quantization| quantization.format(role, stored.n_cols)).unwrap_or(as_stored))
}

/// What a checkpoint's weights will be when they are packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedSize {
    /// Memory of the matrices, and of all else in f32.
    pub bytes: u64,
    /// How many matrices are quantised at load, by the name of their format.
    pub quantized: BTreeMap<String, usize>,
}

/// What the weights of a checkpoint that is not [`super::unsupported`]'s will be when they are packed.
pub fn packed_size(checkpoint: &Checkpoint, quantization: Option<Quantization>) -> PackedSize {
    let mut size = PackedSize { bytes: 0, quantized: BTreeMap::new() };
    for role in checkpoint.roles() {
        let Ok(stored) = checkpoint.stored_rows(role) else {
            let values = checkpoint.tensor_info(role).map_or(0, |info| info.shape.iter().product::<usize>());
            size.bytes += 4 * values as u64;
            continue;
        };
        let Some(format) = packed_format(role, &stored, quantization) else { continue };
        if format_of(stored.kind) != Some(format) {
            *size.quantized.entry(format.to_string()).or_default() += 1;
        }
        let (block_values, block_bytes) = format.block();
        size.bytes += (stored.n_rows * (padded(stored.n_cols, TILE) / block_values) * block_bytes) as u64;
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_fall_back_by_the_length_of_rows() {
        let (layer, head) = (TensorRole::Layer(0, LayerTensor::Down), TensorRole::Head);
        let formats = |role, n_cols| Quantization::ALL.map(|quantization| quantization.format(role, n_cols));
        assert_eq!(formats(layer, 512), [Some(Format::Q8_0), Some(Format::Q4_0), Some(Format::Q4_K)]);
        assert_eq!(formats(layer, 576), [Some(Format::Q8_0), Some(Format::Q4_0), Some(Format::Q8_0)]);
        assert_eq!(formats(layer, 40), [None; 3]);
        assert_eq!(formats(head, 512), [Some(Format::Q8_0); 3]);
        assert_eq!(formats(TensorRole::Embedding, 48), [None; 3]);
        for quantization in Quantization::ALL {
            assert_eq!(Quantization::from_name(quantization.name()), Some(quantization));
        }
        assert_eq!(Quantization::from_name("q5_0"), None);
    }
}
