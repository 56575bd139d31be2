//! Why a loaded network could not compute.

/// Why a loaded network could not compute. It stays usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WhisperError {
    /// As many windows or caches are alive as were allowed at load.
    #[error("no room for another {what}: {limit} are in use")]
    Full { what: &'static str, limit: usize },
    /// What was asked for makes no sense for this model: a mistake of the caller.
    #[error("{0}")]
    Input(String),
    /// A worker panicked.
    #[error("the computation failed: {0}")]
    Failed(String),
}
