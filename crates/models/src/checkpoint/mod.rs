//! A model opened for loading: its architecture, its tensors by role, and the texts beside them.

mod role;

use candle_core::{DType, Device, Tensor};

pub use role::{LayerTensor, TensorRole};

use crate::architecture::Architecture;
use crate::error::ModelError;
use crate::weights::{GgufMetadata, ModelFiles, Weights};

/// A model opened for loading. No tensor data has been read.
pub struct Checkpoint {
    pub architecture: Architecture,
    weights: Weights,
}

impl Checkpoint {
    pub fn open(files: &ModelFiles) -> Result<Self, ModelError> {
        let _ = Weights::open(files)?;
        Err(crate::config::ConfigError::Unsupported { what: "opening a checkpoint".to_owned() }.into())
    }

    /// Reads a tensor onto `device` as `dtype`, dequantised, in the layout that `TensorRole` states.
    pub fn load(&self, role: TensorRole, dtype: DType, device: &Device) -> Result<Tensor, ModelError> {
        Ok(self.weights.load(&role.to_string(), dtype, device)?)
    }

    pub fn gguf_metadata(&self) -> Option<&GgufMetadata> {
        None
    }
}
