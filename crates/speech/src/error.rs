//! Why a transcription failed.

use crate::network::NetworkError;

/// What can go wrong between a file and its text. The first kind is the caller's doing.
#[derive(Debug, thiserror::Error)]
pub enum SpeechError {
    /// The audio cannot be read: one sentence for who sent it.
    #[error("{0}")]
    Audio(String),
    /// An option that this model or file cannot follow.
    #[error("{message}")]
    Invalid { message: String, param: &'static str },
    #[error("the transcription was cancelled")]
    Cancelled,
    #[error(transparent)]
    Network(#[from] NetworkError),
}
