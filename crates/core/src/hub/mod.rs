//! Where models come from: local paths, the Hugging Face cache, and the hub behind it.
//!
//! The cache is the one Python's `huggingface_hub` keeps: same layout, same variables, no second copy.

mod cache;
mod client;
mod config;
mod download;
mod error;
mod resolve;
mod scan;
mod select;
mod spec;

use std::path::PathBuf;

pub use config::HubConfig;
pub use error::HubError;
pub use resolve::resolve;
pub use scan::{CachedKind, CachedModel, scan_cache};
pub use spec::{DEFAULT_REVISION, ModelSource, ModelSpec};

/// A model whose files are all on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedModel {
    /// The canonical id. Where a repository's only file that is a model was meant without being named, the id names it.
    pub id: String,
    /// A folder in transformers' layout, or a file that is a model.
    pub path: PathBuf,
    /// The commit, for a model of the hub. Two specs with the same `path` are the same model.
    pub revision: Option<String>,
    /// What the user should know though the model can be used, one sentence each: a copy that may be old or lacks files.
    pub warnings: Vec<String>,
}

/// Bytes that came while a model is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubProgress {
    /// The file that just grew.
    pub file: String,
    /// Bytes here of all files of the model that had to be fetched, what an earlier attempt left included. Ends at `total`.
    pub done: u64,
    /// Grows once if the weights are in several files, whose sizes are known only after their index.
    pub total: u64,
}
