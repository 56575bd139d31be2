//! Why weights could not be found, opened or read.

use std::path::PathBuf;

/// Why weights could not be found, opened or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    #[error("{} does not exist", path.display())]
    NotFound { path: PathBuf },
    #[error("{} holds no weights (expected config.json with model.safetensors, or one .gguf file)", folder.display())]
    NoWeights { folder: PathBuf },
    #[error("{} holds model weights but no config.json", folder.display())]
    NoConfig { folder: PathBuf },
    #[error(
        "{} holds its weights only as {file}: pickle files can run code when they are read, so they are refused; \
         a safetensors or GGUF version is needed",
        folder.display()
    )]
    PickleOnly { folder: PathBuf, file: String },
    #[error("{} holds several GGUF files, name one of them: {}", folder.display(), names.join(", "))]
    SeveralGguf { folder: PathBuf, names: Vec<String> },
    #[error("{} names the weight file {shard}, which is missing", index.display())]
    MissingShard { index: PathBuf, shard: String },
    #[error("{} is broken: {reason}", file.display())]
    Broken { file: PathBuf, reason: String },
    #[error("{} cannot be used: {reason}", file.display())]
    Unsupported { file: PathBuf, reason: String },
    #[error("tensor {name} has type {kind}, which is not supported")]
    UnsupportedType { name: String, kind: String },
    #[error("the weights hold no tensor {name}")]
    UnknownTensor { name: String },
    #[error("{} could not be read", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("tensor {name} could not be put on the device")]
    Device {
        name: String,
        #[source]
        source: Box<candle_core::Error>,
    },
}

impl WeightsError {
    /// Stable code for matching: `model_not_found`, `model_broken`, `model_unsupported`, `model_device`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } | Self::NoWeights { .. } => "model_not_found",
            Self::NoConfig { .. }
            | Self::MissingShard { .. }
            | Self::Broken { .. }
            | Self::UnknownTensor { .. }
            | Self::Io { .. } => "model_broken",
            Self::PickleOnly { .. }
            | Self::SeveralGguf { .. }
            | Self::Unsupported { .. }
            | Self::UnsupportedType { .. } => "model_unsupported",
            Self::Device { .. } => "model_device",
        }
    }
}
