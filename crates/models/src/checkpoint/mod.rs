//! A model opened for loading: its architecture, its tensors by role, and the texts beside them.

mod gguf_tokenizer;
mod names;
mod role;
pub(crate) mod texts;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

pub use gguf_tokenizer::GgufTokenizer;
pub use role::{LayerTensor, TensorRole};
pub use texts::ChatTemplate;

use crate::architecture::{Architecture, LayerNorms};
use crate::config::{
    ConfigError, SpecialIds, architecture_from_gguf, architecture_from_json, special_ids_from_gguf,
    special_ids_from_json,
};
use crate::error::ModelError;
use crate::weights::{GgufMetadata, ModelFiles, TensorInfo, WeightType, Weights, WeightsError};
use names::Naming;
use texts::Texts;

/// A model opened for loading. Every tensor that its architecture needs is there, with the right shape and a type that
/// can be read; no tensor data has been read. The weight files stay mapped until this is dropped.
pub struct Checkpoint {
    pub architecture: Architecture,
    special_ids: SpecialIds,
    generation_config: Option<String>,
    weights: Weights,
    naming: Naming,
    texts: Texts,
}

/// A matrix in its file.
#[derive(Debug, Clone, Copy)]
pub struct StoredRows<'c> {
    pub kind: WeightType,
    pub n_rows: usize,
    pub n_cols: usize,
    bytes: &'c [u8],
    /// Rows are permuted within heads of this length.
    head_dim: Option<usize>,
}

impl<'c> StoredRows<'c> {
    /// The stored bytes of row `row`, in the order in which `Checkpoint::load` gives rows.
    pub fn row(&self, row: usize) -> &'c [u8] {
        let stored = self.head_dim.map_or(row, |head_dim| names::unpermute(row, head_dim));
        let row_bytes = self.bytes.len() / self.n_rows;
        &self.bytes[stored * row_bytes..][..row_bytes]
    }
}

impl Checkpoint {
    /// Opens the files, understands their configuration, and checks that the tensors are those of the architecture.
    ///
    /// # Errors
    /// Broken files, a model that is not supported, or tensors that do not fit the configuration.
    pub fn open(files: &ModelFiles) -> Result<Self, ModelError> {
        let weights = Weights::open(files)?;
        let checkpoint = match files {
            ModelFiles::Safetensors { folder, config_json, .. } => Self::from_folder(folder, config_json, weights)?,
            ModelFiles::Gguf { file } => Self::from_gguf(file, weights)?,
        };
        for role in names::roles(&checkpoint.architecture) {
            checkpoint.locate(role)?;
        }
        checkpoint.refuse_foreign_tensors()?;
        Ok(checkpoint)
    }

    fn from_folder(folder: &Path, config_json: &Path, weights: Weights) -> Result<Self, ModelError> {
        let config =
            texts::read_json(config_json)?.ok_or_else(|| WeightsError::NoConfig { folder: folder.to_owned() })?;
        let architecture = architecture_from_json(&config)?;
        let generation_config = texts::read_text(&folder.join("generation_config.json"))?;
        let generation = generation_config.as_deref().map(|text| texts::parse("generation_config.json", text));
        let special_ids = special_ids_from_json(generation.transpose()?.as_ref(), &config)?;
        let prefix = if weights.info("embed_tokens.weight").is_some() { "" } else { "model." };
        Ok(Self {
            architecture,
            special_ids,
            generation_config,
            weights,
            naming: Naming::Transformers { prefix },
            texts: Texts::from_folder(folder)?,
        })
    }

    fn from_gguf(file: &Path, weights: Weights) -> Result<Self, ModelError> {
        let metadata = weights
            .gguf_metadata()
            .ok_or_else(|| WeightsError::Broken { file: file.to_owned(), reason: "it has no metadata".to_owned() })?;
        Ok(Self {
            architecture: architecture_from_gguf(metadata, &weights)?,
            special_ids: special_ids_from_gguf(metadata),
            generation_config: None,
            texts: Texts::from_gguf(metadata),
            weights,
            naming: Naming::Gguf,
        })
    }

    /// A layer of a GGUF file with more tensors than the architecture has computes something else (experts, norms of
    /// another family). transformers only warns of such tensors, and so does its format carry some without meaning.
    fn refuse_foreign_tensors(&self) -> Result<(), ModelError> {
        if self.naming != Naming::Gguf {
            return Ok(());
        }
        let known: std::collections::BTreeSet<String> =
            names::roles(&self.architecture).into_iter().map(|role| self.own_name(role)).collect();
        let harmless = |name: &str| !name.starts_with("blk.") || name.ends_with("attn_rot_embd.weight");
        match self.weights.names().find(|name| !known.contains(*name) && !harmless(name)) {
            None => Ok(()),
            Some(name) => {
                let what = format!("tensor {name} in a model of architecture \"{}\"", self.architecture.family);
                Err(ConfigError::Unsupported { what }.into())
            }
        }
    }

    /// Reads a tensor onto `device`, dequantised, as `dtype` (F32, F16 or BF16), in the layout that `TensorRole`
    /// states. Values are those of the file: Gemma's norms hold `w` or `1 + w` as `Architecture::norm_plus_one` says.
    /// The head of a tied model is its embedding, read again.
    ///
    /// # Errors
    /// The architecture has no such tensor, or the device refuses it.
    pub fn load(&self, role: TensorRole, dtype: DType, device: &Device) -> Result<Tensor, ModelError> {
        let name = self.locate(role)?;
        let Some(head_dim) = names::permuted_head_dim(self.naming, &self.architecture, role) else {
            return Ok(self.weights.load(&name, dtype, device)?);
        };
        let row_of = |row| names::unpermute(row, head_dim);
        Ok(self.weights.load_rows(&name, Some(&row_of), dtype, device)?)
    }

    /// A matrix as its rows are stored, for runners that keep weights packed.
    ///
    /// # Errors
    /// The architecture has no such tensor, or it is a vector.
    pub fn stored_rows(&self, role: TensorRole) -> Result<StoredRows<'_>, ModelError> {
        let name = self.locate(role)?;
        let info = self.tensor_info(role)?;
        let [n_rows, n_cols] = info.shape[..] else {
            return Err(WeightsError::UnknownTensor { name }.into());
        };
        let bytes = self.weights.raw(&name)?;
        let head_dim = names::permuted_head_dim(self.naming, &self.architecture, role);
        Ok(StoredRows { kind: info.dtype, n_rows, n_cols, bytes, head_dim })
    }

    /// All values of a role's tensor in f32, in the order of `load`.
    ///
    /// # Errors
    /// The architecture has no such tensor.
    pub fn load_f32(&self, role: TensorRole) -> Result<Vec<f32>, ModelError> {
        let name = self.locate(role)?;
        let values = self.weights.tensor_f32(&name)?;
        let Some(head_dim) = names::permuted_head_dim(self.naming, &self.architecture, role) else {
            return Ok(values);
        };
        let n_rows = self.tensor_info(role)?.shape[0];
        let row_len = values.len() / n_rows;
        Ok((0..n_rows)
            .flat_map(|row| &values[names::unpermute(row, head_dim) * row_len..][..row_len])
            .copied()
            .collect())
    }

    /// The name of a role's tensor in the files.
    ///
    /// # Errors
    /// The architecture has no such tensor.
    pub fn tensor_name(&self, role: TensorRole) -> Result<String, ModelError> {
        self.locate(role)
    }

    /// How a role's tensor is stored. Rows of q and k may be in another order than `load` gives them
    /// (`is_row_permuted`).
    ///
    /// # Errors
    /// The architecture has no such tensor.
    pub fn tensor_info(&self, role: TensorRole) -> Result<&TensorInfo, ModelError> {
        let name = self.locate(role)?;
        self.weights.info(&name).ok_or_else(|| WeightsError::UnknownTensor { name }.into())
    }

    /// Does the file hold the rows of this tensor in another order than `load` gives them?
    pub fn is_row_permuted(&self, role: TensorRole) -> bool {
        names::permuted_head_dim(self.naming, &self.architecture, role).is_some()
    }

    /// Every tensor of the architecture, each once: the head only where it is a matrix of its own.
    pub fn roles(&self) -> Vec<TensorRole> {
        names::roles(&self.architecture)
    }

    /// Memory that the tensors of `roles` take when loaded as a type of `bytes_per_value` bytes.
    pub fn loaded_bytes(&self, bytes_per_value: usize) -> u64 {
        let values =
            |role| names::shape(&self.architecture, role).map(|shape| shape.iter().map(|&d| d as u64).product());
        let total: u64 = self.roles().into_iter().map(|role| values(role).unwrap_or(0_u64)).sum();
        total * bytes_per_value as u64
    }

    /// The opened files: names, sizes and stored types of all tensors.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Metadata of a GGUF file; `None` for a folder.
    pub fn gguf_metadata(&self) -> Option<&GgufMetadata> {
        self.weights.gguf_metadata()
    }

    /// The tokenizer that a GGUF file carries; `None` for a folder, or if it carries none that makes sense.
    pub fn gguf_tokenizer(&self) -> Option<GgufTokenizer> {
        GgufTokenizer::from_metadata(self.gguf_metadata()?)
    }

    /// Token ids that end an answer, and others with a meaning of their own.
    pub fn special_ids(&self) -> &SpecialIds {
        &self.special_ids
    }

    /// generation_config.json as it is on disk (valid JSON), if there is one.
    pub fn generation_config_json(&self) -> Option<&str> {
        self.generation_config.as_deref()
    }

    /// Path of tokenizer.json, if there is one.
    pub fn tokenizer_json(&self) -> Option<&Path> {
        self.texts.tokenizer_json.as_deref()
    }

    /// tokenizer_config.json as it is on disk (valid JSON), if there is one.
    pub fn tokenizer_config_json(&self) -> Option<&str> {
        self.texts.tokenizer_config.as_deref()
    }

    /// The model's chat templates; none for a base model.
    pub fn chat_templates(&self) -> &[ChatTemplate] {
        &self.texts.chat_templates
    }

    /// Texts of special tokens by the name that templates know them by: "bos_token", "eos_token", ...
    pub fn special_tokens(&self) -> &BTreeMap<String, String> {
        &self.texts.special_tokens
    }

    /// The name of a role's tensor, once its presence, shape and type are checked.
    fn locate(&self, role: TensorRole) -> Result<String, ModelError> {
        let expected = names::shape(&self.architecture, role)?;
        let name = self.own_name(role);
        let family = || self.architecture.family.clone();
        let Some(info) = self.weights.info(&name) else {
            return Err(ModelError::MissingTensor { name, family: family() });
        };
        if info.shape != expected {
            return Err(ModelError::Shape { name, expected, found: info.shape.clone() });
        }
        if !info.dtype.is_readable() {
            return Err(WeightsError::UnsupportedType { name, kind: info.dtype.to_string() }.into());
        }
        Ok(name)
    }

    fn own_name(&self, role: TensorRole) -> String {
        let role = if role == TensorRole::Head && self.architecture.tied_head { TensorRole::Embedding } else { role };
        let norms = match role {
            TensorRole::Layer(layer, _) => self.architecture.layers.get(layer).map_or(LayerNorms::Pre, |l| l.norms),
            _ => LayerNorms::Pre,
        };
        self.naming.name(role, norms)
    }
}
