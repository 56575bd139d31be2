//! A checkpoint's tensors under one set of names, whatever file they are in: those of transformers.

use std::path::PathBuf;

use super::ct2::Ct2;
use super::ggml::Ggml;
use crate::error::ModelError;
use crate::weights::{WeightType, Weights, WeightsError, dequantize};

/// How the values of a tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element<'c> {
    Type(WeightType),
    /// Values times a scale in f32: one for each row, or one for all.
    Int8 {
        scales: &'c [u8],
    },
    Int16 {
        scales: &'c [u8],
    },
}

/// A tensor in its file: rows of equal length.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored<'c> {
    pub element: Element<'c>,
    /// All dimensions but the last.
    pub n_rows: usize,
    /// The last dimension.
    pub n_cols: usize,
    pub bytes: &'c [u8],
}

impl<'c> Stored<'c> {
    /// The type, if values are stored as such.
    pub(super) fn kind(&self) -> Option<WeightType> {
        match self.element {
            Element::Type(kind) => Some(kind),
            _ => None,
        }
    }

    /// Bytes of row `row`, as stored.
    pub(super) fn row(&self, row: usize) -> &'c [u8] {
        let row_bytes = self.bytes.len() / self.n_rows;
        &self.bytes[row * row_bytes..][..row_bytes]
    }

    /// Row `row` in f32.
    pub(super) fn row_f32(&self, row: usize, out: &mut [f32]) {
        let bytes = self.row(row);
        match self.element {
            Element::Type(kind) => dequantize(kind, bytes, out),
            Element::Int8 { scales } => {
                let scale = self.scale(scales, row);
                for (out, &byte) in out.iter_mut().zip(bytes) {
                    *out = f32::from(byte.cast_signed()) / scale;
                }
            }
            Element::Int16 { scales } => {
                let scale = self.scale(scales, row);
                for (out, &bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *out = f32::from(i16::from_le_bytes(bytes)) / scale;
                }
            }
        }
    }

    fn scale(&self, scales: &[u8], row: usize) -> f32 {
        let scales = scales.as_chunks::<4>().0;
        let row = if scales.len() == self.n_rows { row } else { 0 };
        scales.get(row).map_or(1.0, |&scale| f32::from_le_bytes(scale))
    }

    /// All values in f32, row after row.
    pub(super) fn values(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.n_rows * self.n_cols];
        for (row, out) in out.chunks_exact_mut(self.n_cols).enumerate() {
            self.row_f32(row, out);
        }
        out
    }
}

/// Where a checkpoint's tensors are.
pub(super) enum Tensors {
    Transformers { weights: Weights, prefix: &'static str },
    Ct2(Ct2),
    Ggml(Ggml),
}

impl Tensors {
    pub(super) fn from_safetensors(weights: Weights) -> Self {
        let prefix = if weights.info("encoder.conv1.weight").is_some() { "" } else { "model." };
        Self::Transformers { weights, prefix }
    }

    /// How matrices are stored: "F16 (CTranslate2)", "BF16 (safetensors)".
    pub(super) fn format_summary(&self) -> String {
        match self {
            Self::Transformers { weights, .. } => weights.format_summary(),
            Self::Ct2(ct2) => format!("{} (CTranslate2)", ct2.matrix_type()),
            Self::Ggml(ggml) => format!("{} (ggml)", ggml.matrix_type()),
        }
    }

    /// Number of values in all tensors.
    pub(super) fn n_parameters(&self) -> u64 {
        match self {
            Self::Transformers { weights, .. } => weights.n_parameters(),
            Self::Ct2(ct2) => ct2.n_parameters(),
            Self::Ggml(ggml) => ggml.n_parameters(),
        }
    }

    /// The files that are open.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        match self {
            Self::Transformers { weights, .. } => weights.paths().map(ToOwned::to_owned).collect(),
            Self::Ct2(ct2) => vec![ct2.path().to_owned()],
            Self::Ggml(ggml) => vec![ggml.path().to_owned()],
        }
    }

    /// The tensor that transformers calls `model.{name}`, if it is `shape` and can be read.
    ///
    /// # Errors
    /// It is missing, has another shape, or is of a type that cannot be read.
    pub(super) fn get(&self, name: &str, shape: &[usize]) -> Result<Stored<'_>, ModelError> {
        let (weights, prefix) = match self {
            Self::Ct2(ct2) => return ct2.get(name, shape),
            Self::Ggml(ggml) => return ggml.get(name, shape),
            Self::Transformers { weights, prefix } => (weights, prefix),
        };
        let own = format!("{prefix}{name}");
        let info = weights.info(&own).ok_or_else(|| missing(&own))?;
        if info.shape != shape {
            return Err(ModelError::Shape { name: own, expected: shape.to_vec(), found: info.shape.clone() });
        }
        if !info.dtype.is_readable() {
            return Err(WeightsError::UnsupportedType { name: own, kind: info.dtype.to_string() }.into());
        }
        let (n_cols, outer) = shape.split_last().unwrap_or((&1, &[]));
        let element = Element::Type(info.dtype);
        Ok(Stored { element, n_rows: outer.iter().product(), n_cols: *n_cols, bytes: weights.raw(&own)? })
    }
}

pub(super) fn missing(name: &str) -> ModelError {
    ModelError::MissingTensor { name: name.to_owned(), family: "whisper".to_owned() }
}
