//! Why a model could not be opened or loaded.

use crate::config::ConfigError;
use crate::weights::WeightsError;

/// Why a model could not be opened or loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The architecture needs a tensor that the files do not hold.
    #[error("the weights hold no tensor {name}, which a model of family {family} needs")]
    MissingTensor { name: String, family: String },
    /// A tensor's shape is not what the architecture says.
    #[error("tensor {name} has shape {found:?}, the model's configuration says {expected:?}")]
    Shape { name: String, expected: Vec<usize>, found: Vec<usize> },
    /// A tensor was asked for that models of this architecture do not have: a mistake of the caller.
    #[error("a model of family {family} has no {role}")]
    NoSuchRole { family: String, role: String },
}

impl ModelError {
    /// Stable code for matching: `model_not_found`, `model_broken`, `model_unsupported`; `model_device` where the
    /// device refused a tensor (out of memory, for example).
    pub fn code(&self) -> &'static str {
        match self {
            Self::Weights(error) => error.code(),
            Self::Config(error) => error.code(),
            Self::MissingTensor { .. } | Self::Shape { .. } => "model_broken",
            Self::NoSuchRole { .. } => "model_unsupported",
        }
    }
}
