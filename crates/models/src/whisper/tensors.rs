//! A checkpoint's tensors under one set of names, whatever file they are in: those of transformers.

use crate::error::ModelError;
use crate::weights::{WeightType, Weights, WeightsError, dequantize};

/// A tensor in its file: rows of equal length.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored<'c> {
    pub kind: WeightType,
    /// All dimensions but the last.
    pub n_rows: usize,
    /// The last dimension.
    pub n_cols: usize,
    bytes: &'c [u8],
}

impl<'c> Stored<'c> {
    /// Bytes of row `row`, as stored.
    pub(super) fn row(&self, row: usize) -> &'c [u8] {
        let row_bytes = self.bytes.len() / self.n_rows;
        &self.bytes[row * row_bytes..][..row_bytes]
    }

    /// Row `row` in f32.
    pub(super) fn row_f32(&self, row: usize, out: &mut [f32]) {
        dequantize(self.kind, self.row(row), out);
    }

    /// All values in f32, row after row.
    pub(super) fn values(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.n_rows * self.n_cols];
        dequantize(self.kind, self.bytes, &mut out);
        out
    }
}

/// Where a checkpoint's tensors are.
pub(super) enum Tensors {
    Transformers { weights: Weights, prefix: &'static str },
}

impl Tensors {
    pub(super) fn from_safetensors(weights: Weights) -> Self {
        let prefix = if weights.info("encoder.conv1.weight").is_some() { "" } else { "model." };
        Self::Transformers { weights, prefix }
    }

    /// The tensor that transformers calls `model.{name}`, if it is `shape` and can be read.
    ///
    /// # Errors
    /// It is missing, has another shape, or is of a type that cannot be read.
    pub(super) fn get(&self, name: &str, shape: &[usize]) -> Result<Stored<'_>, ModelError> {
        let Self::Transformers { weights, prefix } = self;
        let own = format!("{prefix}{name}");
        let info = weights.info(&own).ok_or_else(|| missing(&own))?;
        if info.shape != shape {
            return Err(ModelError::Shape { name: own, expected: shape.to_vec(), found: info.shape.clone() });
        }
        if !info.dtype.is_readable() {
            return Err(WeightsError::UnsupportedType { name: own, kind: info.dtype.to_string() }.into());
        }
        let (n_cols, outer) = shape.split_last().unwrap_or((&1, &[]));
        Ok(Stored { kind: info.dtype, n_rows: outer.iter().product(), n_cols: *n_cols, bytes: weights.raw(&own)? })
    }
}

fn missing(name: &str) -> ModelError {
    ModelError::MissingTensor { name: name.to_owned(), family: "whisper".to_owned() }
}
