//! A checkpoint's tensors made into layers.

use candle_core::{DType, Device, Tensor};

use super::layers::{DecoderLayer, Linear, RmsNorm};
use crate::architecture::{Architecture, Layer, LayerNorms};
use crate::checkpoint::{Checkpoint, LayerTensor, TensorRole};
use crate::error::ModelError;
use crate::weights::WeightsError;

/// Reads tensors of one checkpoint for one device.
pub struct Loader<'c> {
    pub checkpoint: &'c Checkpoint,
    pub dtype: DType,
    pub device: &'c Device,
}

impl Loader<'_> {
    pub fn matrix(&self, role: TensorRole) -> Result<Tensor, ModelError> {
        self.checkpoint.load(role, self.dtype, self.device)
    }

    /// A norm in f32, with 1 added where the checkpoint stores weights without it.
    pub fn norm(&self, role: TensorRole) -> Result<RmsNorm, ModelError> {
        let Architecture { norm_eps, norm_plus_one, .. } = self.checkpoint.architecture;
        let weight = self.checkpoint.load(role, DType::F32, self.device)?;
        let weight = if norm_plus_one { (weight + 1.0).map_err(|e| refused(role, e))? } else { weight };
        Ok(RmsNorm { weight, eps: norm_eps })
    }

    pub fn layer(&self, index: usize) -> Result<DecoderLayer, ModelError> {
        use LayerTensor as T;
        let Layer { attention, mlp, norms } = self.checkpoint.architecture.layers[index].clone();
        let role = |tensor| TensorRole::Layer(index, tensor);
        let sandwich = norms == LayerNorms::Sandwich;
        let norm_if = |wanted: bool, tensor| wanted.then(|| self.norm(role(tensor))).transpose();
        let qk_norm = match (norm_if(attention.qk_norm, T::QNorm)?, norm_if(attention.qk_norm, T::KNorm)?) {
            (Some(q), Some(k)) => Some((q, k)),
            _ => None,
        };
        Ok(DecoderLayer {
            attn_norm: self.norm(role(T::AttnNorm))?,
            qkv: self.linear(
                &[role(T::Q), role(T::K), role(T::V)],
                attention.qkv_bias.then_some(&[role(T::QBias), role(T::KBias), role(T::VBias)]),
            )?,
            qk_norm,
            o: self.linear(&[role(T::O)], attention.o_bias.then_some(&[role(T::OBias)]))?,
            post_attn_norm: norm_if(sandwich, T::PostAttnNorm)?,
            mlp_norm: self.norm(role(T::MlpNorm))?,
            gate_up: self
                .linear(&[role(T::Gate), role(T::Up)], mlp.bias.then_some(&[role(T::GateBias), role(T::UpBias)]))?,
            down: self.linear(&[role(T::Down)], mlp.bias.then_some(&[role(T::DownBias)]))?,
            post_mlp_norm: norm_if(sandwich, T::PostMlpNorm)?,
            attention,
            mlp,
        })
    }

    /// Matrices that read the same input, stacked into one.
    fn linear<const N: usize>(
        &self,
        weights: &[TensorRole; N],
        biases: Option<&[TensorRole; N]>,
    ) -> Result<Linear, ModelError> {
        Ok(Linear { weight: self.stacked(weights)?, bias: biases.map(|roles| self.stacked(roles)).transpose()? })
    }

    fn stacked(&self, roles: &[TensorRole]) -> Result<Tensor, ModelError> {
        let parts = roles.iter().map(|role| self.matrix(*role)).collect::<Result<Vec<_>, _>>()?;
        match &parts[..] {
            [one] => Ok(one.clone()),
            _ => Tensor::cat(&parts, 0).map_err(|e| refused(roles[0], e)),
        }
    }
}

fn refused(what: TensorRole, source: candle_core::Error) -> ModelError {
    refused_on_device(&what.to_string(), source)
}

/// The error of a device that could not hold `what`.
pub fn refused_on_device(what: &str, source: candle_core::Error) -> ModelError {
    WeightsError::Device { name: what.to_owned(), source: Box::new(source) }.into()
}
