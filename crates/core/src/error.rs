//! What can go wrong above the engine, as codes and sentences.

use std::time::Duration;

use tsserve_engine::AddError;
use tsserve_models::error::ModelError;
use tsserve_text::TextError;

use crate::hub::HubError;

/// An error of the core. `code()` is what callers match on; `Display` is one sentence for a person.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CoreError {
    #[error(transparent)]
    Hub(#[from] HubError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Text(#[from] TextError),
    #[error(transparent)]
    Device(#[from] tsserve_models::candle::DeviceError),
    #[error("the model has no tokenizer: neither a tokenizer.json nor one in its GGUF file")]
    NoTokenizer,
    #[error("{0}")]
    TooLarge(String),
    /// Audio that cannot be read, in a sentence.
    #[error("{0}")]
    Audio(String),
    #[error("{message}")]
    Invalid { message: String, param: Option<&'static str> },
    #[error(
        "this model's maximum context length is {max_context} tokens, but the prompt has {prompt_tokens} tokens: \
         shorten it, or serve the model with a longer context"
    )]
    ContextLength { prompt_tokens: usize, max_context: usize },
    #[error("{waiting} requests are waiting already, which is this server's limit: try again in a moment")]
    QueueFull { waiting: usize, retry_after: Duration },
    #[error("the model is not loaded (any more)")]
    NotLoaded,
    #[error("it was cancelled")]
    Cancelled,
    #[error("the engine is closed")]
    Closed,
    #[error("internal error: {0}")]
    Internal(String),
}

impl CoreError {
    /// Stable code, one of the TypeScript side's `EngineErrorCode`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Hub(error) => match error.code() {
                "no_weights" | "broken_download" | "cache_error" => "model_broken",
                "invalid_spec" => "invalid_request",
                code => code,
            },
            Self::Model(error) => match error.code() {
                "model_device" => "device_unavailable",
                code => code,
            },
            Self::Text(error) => match error.code() {
                "tokenizer_unsupported" | "unknown_pre_tokenizer" => "model_unsupported",
                "encode_failed" | "decode_failed" | "empty_stop" => "invalid_request",
                "grammar_invalid" | "grammar_unsupported" => "invalid_request",
                _ => "model_broken",
            },
            Self::NoTokenizer => "model_broken",
            Self::Device(_) => "device_unavailable",
            Self::TooLarge(_) => "model_too_large",
            Self::Audio(_) => "invalid_audio",
            Self::Invalid { .. } => "invalid_request",
            Self::ContextLength { .. } => "context_length_exceeded",
            Self::QueueFull { .. } => "queue_full",
            Self::Cancelled => "cancelled",
            Self::NotLoaded | Self::Closed => "closed",
            Self::Internal(_) => "internal",
        }
    }

    /// The request's field that the error is about, in the border's names.
    pub fn param(&self) -> Option<&'static str> {
        match self {
            Self::Invalid { param, .. } => *param,
            Self::Audio(_) => Some("audio"),
            Self::ContextLength { .. } => Some("prompt"),
            Self::Text(TextError::Grammar(_) | TextError::GrammarUnsupported(_)) => Some("constraint"),
            _ => None,
        }
    }

    /// When the same request may succeed, where that can be guessed.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::QueueFull { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }
}

impl From<AddError> for CoreError {
    fn from(error: AddError) -> Self {
        match error {
            AddError::ContextLength { prompt_tokens, max_context } => {
                Self::ContextLength { prompt_tokens, max_context }
            }
            AddError::QueueFull { waiting, retry_after } => Self::QueueFull { waiting, retry_after },
            AddError::Closed => Self::Closed,
            other => Self::Invalid { message: other.to_string(), param: None },
        }
    }
}

impl CoreError {
    /// A caught panic: its message, for the log and the caller.
    pub fn from_panic(panic: &(dyn std::any::Any + Send)) -> Self {
        let message = panic
            .downcast_ref::<&str>()
            .map(|s| (*s).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a panic without a message".to_owned());
        Self::Internal(message)
    }
}
