//! A Whisper model opened for loading.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::config::{WhisperConfig, check_features};
use super::ct2::{Ct2, is_ct2};
use super::special_ids::{WhisperSpecialIds, names_of};
use super::tensors::Tensors;
use crate::checkpoint::texts;
use crate::error::ModelError;
use crate::weights::{ModelFiles, Weights, WeightsError};

/// A Whisper model opened for loading: its configuration is understood, its tensors are found when they are loaded. The
/// weight files stay mapped until this is dropped.
pub struct WhisperCheckpoint {
    pub config: WhisperConfig,
    pub special_ids: WhisperSpecialIds,
    folder: PathBuf,
    pub(super) tensors: Tensors,
}

/// The files that CTranslate2 names so begin with this much of what tells them.
const START: u64 = 64;

impl WhisperCheckpoint {
    /// Is a Whisper model here that this module reads? Looks at names and beginnings of files only.
    pub fn is_here(path: &Path) -> bool {
        ct2_file(path).is_some() || {
            let config = texts::read_json(&path.join("config.json")).ok().flatten();
            config.is_some_and(|config| config.get("model_type").and_then(Value::as_str) == Some("whisper"))
        }
    }

    /// Opens a folder as transformers saves it, or a folder or file of CTranslate2 (`model.bin` with config.json and
    /// tokenizer.json beside it).
    ///
    /// # Errors
    /// Files that are missing or broken, or a model that is not supported.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        if let Some(file) = ct2_file(path) {
            return Self::from_ct2(&file);
        }
        let files = ModelFiles::discover(path)?;
        let ModelFiles::Safetensors { folder, config_json, .. } = &files else {
            let reason = "expected a Whisper model in model.safetensors, or in model.bin of CTranslate2".to_owned();
            return Err(WeightsError::Unsupported { file: path.to_owned(), reason }.into());
        };
        let json = texts::read_json(config_json)?.ok_or_else(|| WeightsError::NoConfig { folder: folder.clone() })?;
        let config = WhisperConfig::from_json(&json)?;
        for file in ["preprocessor_config.json", "processor_config.json"] {
            if let Some(features) = texts::read_json(&folder.join(file))? {
                check_features(&features, &config)?;
            }
        }
        let generation = texts::read_json(&folder.join("generation_config.json"))?;
        let names = names_of(folder)?;
        let special_ids = WhisperSpecialIds::from_transformers(generation.as_ref(), &json, &names, &config)?;
        let tensors = Tensors::from_safetensors(Weights::open(&files)?);
        Ok(Self { config, special_ids, folder: folder.clone(), tensors })
    }

    fn from_ct2(file: &Path) -> Result<Self, ModelError> {
        let folder = file.parent().unwrap_or(Path::new("")).to_owned();
        let ct2 = Ct2::open(file)?;
        let config = ct2.config()?;
        let json = texts::read_json(&folder.join("config.json"))?.unwrap_or(Value::Null);
        let special_ids = WhisperSpecialIds::from_ct2(&json, &names_of(&folder)?, &config)?;
        Ok(Self { config, special_ids, folder, tensors: Tensors::Ct2(ct2) })
    }

    /// Where tokenizer.json and other texts lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How matrices are stored: "F16 (CTranslate2)", "BF16 (safetensors)".
    pub fn format_summary(&self) -> String {
        self.tensors.format_summary()
    }

    /// Number of values in all tensors.
    pub fn n_parameters(&self) -> u64 {
        self.tensors.n_parameters()
    }

    /// The files of weights.
    pub fn weight_files(&self) -> Vec<PathBuf> {
        self.tensors.paths()
    }
}

/// CTranslate2's file at a path or in a folder without safetensors.
fn ct2_file(path: &Path) -> Option<PathBuf> {
    let file = if path.is_dir() { path.join("model.bin") } else { path.to_owned() };
    if path.join("model.safetensors").is_file() {
        return None;
    }
    let mut start = Vec::new();
    std::fs::File::open(&file).ok()?.take(START).read_to_end(&mut start).ok()?;
    is_ct2(&start).then_some(file)
}
