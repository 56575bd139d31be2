//! What can go wrong between text and token ids.

use std::path::PathBuf;

/// The tokenizers crate's error type: a boxed cause.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum TextError {
    #[error("cannot read the tokenizer file {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },

    #[error("the tokenizer is broken: {0}")]
    Invalid(String),

    #[error("the tokenizer.json is broken: {0}")]
    InvalidJson(#[source] Cause),

    #[error("the tokenizer is of a kind that is not supported: {0}")]
    Unsupported(String),

    #[error("the pre-tokenizer `{0}` (tokenizer.ggml.pre) is not known")]
    UnknownPreTokenizer(String),

    #[error("the text cannot be tokenized: {0}")]
    Encode(#[source] Cause),

    #[error("the token ids cannot be decoded: {0}")]
    Decode(#[source] Cause),

    #[error("a stop string must not be empty")]
    EmptyStop,

    /// A grammar that cannot be compiled, or cannot be followed any further.
    #[error("the grammar cannot be used: {0}")]
    Grammar(String),

    #[error("this model's answers cannot be held to a grammar: {0}")]
    GrammarUnsupported(String),
}

impl TextError {
    /// A stable name for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "tokenizer_unreadable",
            Self::Invalid(_) | Self::InvalidJson(_) => "tokenizer_invalid",
            Self::Unsupported(_) => "tokenizer_unsupported",
            Self::UnknownPreTokenizer(_) => "unknown_pre_tokenizer",
            Self::Encode(_) => "encode_failed",
            Self::Decode(_) => "decode_failed",
            Self::EmptyStop => "empty_stop",
            Self::Grammar(_) => "grammar_invalid",
            Self::GrammarUnsupported(_) => "grammar_unsupported",
        }
    }
}
