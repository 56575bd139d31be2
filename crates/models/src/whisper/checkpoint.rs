//! A Whisper model opened for loading.

use std::path::Path;

use super::config::WhisperConfig;
use super::tensors::Tensors;
use crate::checkpoint::texts;
use crate::error::ModelError;
use crate::weights::{ModelFiles, Weights, WeightsError};

/// A Whisper model opened for loading: its configuration is understood, its tensors are found when they are loaded. The
/// weight files stay mapped until this is dropped.
pub struct WhisperCheckpoint {
    pub config: WhisperConfig,
    pub(super) tensors: Tensors,
}

impl WhisperCheckpoint {
    /// Opens a folder as transformers saves it.
    ///
    /// # Errors
    /// Files that are missing or broken, or a model that is not supported.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let files = ModelFiles::discover(path)?;
        let ModelFiles::Safetensors { folder, config_json, .. } = &files else {
            let reason = "expected a Whisper model in a folder with config.json and model.safetensors".to_owned();
            return Err(WeightsError::Unsupported { file: path.to_owned(), reason }.into());
        };
        let config = texts::read_json(config_json)?.ok_or_else(|| WeightsError::NoConfig { folder: folder.clone() })?;
        let config = WhisperConfig::from_json(&config)?;
        Ok(Self { config, tensors: Tensors::from_safetensors(Weights::open(&files)?) })
    }
}
