//! A Whisper model opened for loading.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::config::{WhisperConfig, check_features};
use super::ct2::{Ct2, is_ct2};
use super::ggml::{Ggml, is_ggml};
use super::published;
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

/// The vocabulary that a ggml file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhisperWords<'c> {
    /// Bytes of the words of text, in order of id and of rank.
    pub text: Vec<&'c [u8]>,
    /// Ids and names of the others.
    pub special: Vec<(u32, String)>,
}

/// What tells CTranslate2's and ggml's files is in so many bytes at their beginning.
const START: u64 = 64;

/// A file of weights with sizes in it.
enum SingleFile {
    Ct2(PathBuf),
    Ggml(PathBuf),
}

impl WhisperCheckpoint {
    /// Is a Whisper model here that this module reads? Looks at names and beginnings of files only.
    pub fn is_here(path: &Path) -> bool {
        SingleFile::at(path).is_some() || {
            let config = texts::read_json(&path.join("config.json")).ok().flatten();
            config.is_some_and(|config| config.get("model_type").and_then(Value::as_str) == Some("whisper"))
        }
    }

    /// Opens a folder as transformers saves it, a folder or file of CTranslate2 (`model.bin` with config.json and
    /// tokenizer.json beside it), or a file of whisper.cpp (`ggml-*.bin`, which holds all).
    ///
    /// # Errors
    /// Files that are missing or broken, or a model that is not supported.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        match SingleFile::at(path) {
            Some(SingleFile::Ct2(file)) => return Self::from_ct2(&file),
            Some(SingleFile::Ggml(file)) => return Self::from_ggml(&file),
            None => {}
        }
        let files = ModelFiles::discover(path)?;
        let ModelFiles::Safetensors { folder, config_json, .. } = &files else {
            let reason = "expected a Whisper model in model.safetensors, model.bin of CTranslate2 or ggml".to_owned();
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

    fn from_ggml(file: &Path) -> Result<Self, ModelError> {
        let folder = file.parent().unwrap_or(Path::new("")).to_owned();
        let ggml = Ggml::open(file)?;
        let config = ggml.config().clone();
        let special_ids = WhisperSpecialIds::from_ggml(&config)?;
        Ok(Self { config, special_ids, folder, tensors: Tensors::Ggml(ggml) })
    }

    /// The vocabulary, if it is in the file of weights. Then nothing beside that file is part of the model, and
    /// `special_ids` do not say which tokens are suppressed.
    pub fn words(&self) -> Option<WhisperWords<'_>> {
        let Tensors::Ggml(ggml) = &self.tensors else { return None };
        // Some files have a name for the end of text among the words.
        let text = ggml.words().take(self.special_ids.end_of_text as usize).collect();
        Some(WhisperWords { text, special: published::special_tokens(self.config.vocab_size) })
    }

    /// The mel filters that the weights were trained with, `[n_mels][201]`, if they are in the file.
    pub fn mel_filters(&self) -> Option<Vec<f32>> {
        if let Tensors::Ggml(ggml) = &self.tensors { Some(ggml.filters()) } else { None }
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

impl SingleFile {
    /// At a path, or CTranslate2's in a folder without safetensors.
    fn at(path: &Path) -> Option<Self> {
        let is_folder = path.is_dir();
        if path.join("model.safetensors").is_file() {
            return None;
        }
        let file = if is_folder { path.join("model.bin") } else { path.to_owned() };
        let mut start = Vec::new();
        std::fs::File::open(&file).ok()?.take(START).read_to_end(&mut start).ok()?;
        match start {
            start if is_ct2(&start) => Some(Self::Ct2(file)),
            start if is_ggml(&start) && !is_folder => Some(Self::Ggml(file)),
            _ => None,
        }
    }
}
